//! Networks read from `torch.export`'s `.pt2` files.

mod model;

pub use model::GraphModel;
