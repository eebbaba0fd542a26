//! Pictures of a run: reconstructions, loss curves, and what masks become
//! layer by layer.

mod reach;
mod sheet;

pub use engine::picture::{Error, LineChart, Pixels, Result, png, to_rgb};
pub use reach::reach_figure;
pub use sheet::Sheet;
