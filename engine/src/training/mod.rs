//! Training, the same for all programs: the loop [`fit`] over a [`Task`], the [`Trainer`] with what
//! is trained, where a run begins, the flags that say so, and the run's numbers.

mod begin;
mod draws;
mod fit;
mod flags;
mod log;
mod presets;
mod sections;
mod settled;
mod state;
mod trainer;

pub use begin::{RunFiles, Start, begin_run, open_checkpoint, open_run, parts_of_batch};
pub use draws::drop_path_table;
pub use fit::{BatchOf, Position, RunOutput, Scores, StateOf, Task, fit};
pub use flags::TrainFlags;
pub use log::{RunLog, RunPlan, StepInfo};
pub use presets::{Preset, PresetsArgs};
pub use sections::Sections;
pub use settled::{Measured, Settled, refuse_non_finite};
pub use state::{Criterion, RunState, saved_settings};
pub use trainer::{Losses, Rates, Trainer};
