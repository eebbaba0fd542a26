//! Operators on boxes and maps, each against its reference: anchors, box coder, matcher, samplers, NMS, RoIAlign, mask pasting.
