//! COCO-format data sets: reading, augmenting, batching.
