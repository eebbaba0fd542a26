//! What training programs share around their loops: where a run begins, the flags
//! that say so, the run's numbers, and the end of a run that went wrong. The loops
//! themselves are each program's own.

mod begin;
mod draws;
mod flags;
mod log;
mod presets;
mod sections;
mod settled;
mod update;

pub use begin::{
    RunFiles, Start, open_checkpoint, open_run, parts_of_batch, restore_run, saved_state,
    settle_statistics, share_run, tell_world_change,
};
pub use draws::drop_path_table;
pub use flags::RunFlags;
pub use log::{RunLog, RunPlan, Taken};
pub use presets::{Preset, PresetsArgs};
pub use sections::Sections;
pub use settled::{Measured, Settled, refuse_non_finite};
pub use update::update;
