//! COCO evaluation: the twelve figures, results files, error analysis.
