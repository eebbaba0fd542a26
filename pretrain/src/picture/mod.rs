//! Pictures of a run: reconstructions, loss curves, features, and what masks
//! become layer by layer.

mod reach;
mod sheet;
mod tiles;

pub use engine::picture::{Error, LineChart, Pixels, Result, png, to_rgb};
pub use reach::reach_figure;
pub use sheet::Sheet;
pub use tiles::{Tile, hide, ramp, tile_sheet};
