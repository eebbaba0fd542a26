//! What a run writes down as it goes: `metrics.jsonl` for programs to read,
//! TensorBoard event files for people to look at.

mod jsonl;
mod proto;
mod series;
mod tensorboard;

pub use jsonl::{JsonlWriter, drop_evaluation};
pub use series::series;
pub use tensorboard::TensorBoardWriter;
