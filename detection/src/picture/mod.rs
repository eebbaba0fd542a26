//! Pictures of predictions and of evaluations.
//!
//! All are drawn on 8-bit RGB images with bitmap fonts that are part of the
//! binary, so that they look the same on every machine.

mod beside;
mod confusion;
mod curves;
mod errors;
mod labels;
mod legend;
mod objects;
mod palette;

pub use beside::{Comparison, comparison_sheet};
pub use confusion::confusion_matrix;
pub use curves::pr_curves;
pub use engine::picture::png;
pub use errors::error_bars;
pub use objects::{
    Object, draw_objects, draw_predictions, ground_truth_objects, predicted_objects,
};
pub use palette::class_color;
