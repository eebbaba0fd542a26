//! Training, the same for all programs: the loop [`Run::fit`] over a [`Task`], the [`Trainer`] with what
//! is trained, where a run begins, the flags that say so, and the run's numbers.

pub mod auto;
mod begin;
mod draws;
mod estimate;
mod fit;
mod flags;
mod log;
mod metrics;
mod presets;
mod sections;
mod setup;
mod state;
mod trainer;
pub mod trial;

pub use begin::{ResumeMode, Run, RunWriter, open_checkpoint, open_run};
pub use draws::drop_path_table;
pub use fit::{BatchOf, FORWARD_SHARE, Position, RunOutput, Scores, StateOf, Task};
pub use flags::TrainFlags;
pub use log::{RunLog, RunPlan, StepInfo};
pub use metrics::{PendingMetrics, StepMetrics, check_finite};
pub use presets::{Preset, PresetsArgs, presets_examples};
pub use sections::CheckpointTensors;
pub use setup::Setup;
pub use state::{Criterion, RunState, saved_settings};
pub use trainer::{Losses, Rates, Trainer};
