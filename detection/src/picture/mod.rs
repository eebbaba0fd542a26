//! Pictures of predictions and of evaluations.
