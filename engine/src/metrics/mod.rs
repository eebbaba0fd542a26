//! What a run logs as it goes, to [`LogSink`]s: `metrics.jsonl` for programs to
//! read, TensorBoard event files for people to look at, and the terminal.

mod jsonl;
mod proto;
mod series;
mod sink;
mod tensorboard;
mod terminal;

pub use jsonl::{JsonlWriter, drop_evaluation};
pub use series::series;
pub use sink::{LogSink, TrainRecord};
pub use tensorboard::TensorBoardWriter;
pub use terminal::TerminalSink;
