//! The preset `auto`: settings that suit the data and the machine, each chosen for a reason that
//! is told.
//!
//! Each program has a [`Rule`] of its own. All choose in one order: first what follows from the data
//! and the machine, then, with what a few steps took, how much is computed at a time and how long the
//! run is. Here are that order and what the rules share.

mod choices;
mod length;
mod machine;
mod parts;
mod rule;
mod sizes;

use anyhow::Result;
use toml::Table;

use super::{ResumeMode, Setup, Task};
use crate::distributed::ProcessGroup;
use crate::progress::during;
use crate::settings::{Settings as _, TrainSettings as _, from_layers};

pub use choices::Choices;
pub use length::{LengthRule, PROCESSOR_HOURS, checkpoint_epochs};
pub use machine::{Machine, gigabytes};
pub use parts::{choose_parts, choose_precision};
pub use rule::Rule;
pub use sizes::{crop_side, short_side};

/// The data of a task's run, listed.
pub type DataOf<T> = <<T as Task>::Rule as Rule>::Data;

/// What a program makes of its settings, and of the data where that is listed already.
pub type Prepare<T> =
    fn(<T as Task>::Settings, &ResumeMode, &ProcessGroup, Option<DataOf<T>>) -> Result<Setup<T>>;

/// The settings that are chosen, and the data, if it was listed for that.
pub type Chosen<T> = (Choices<<T as Task>::Settings>, Option<DataOf<T>>);

/// Chooses what `given` (settings by their own names) leaves open, for the processes of `world`
/// and by what this one sees. Nothing is written.
///
/// # Errors
/// Data that cannot be read, settings that cannot work: what to give.
pub fn choose<T: Task>(
    given: Table,
    world: &ProcessGroup,
    prepare: Prepare<T>,
) -> Result<Chosen<T>> {
    let settings: T::Settings = from_layers([given.clone()])?;
    settings.check_each()?;
    let machine = Machine::of(settings.execution(), world)?;
    let mut choices = Choices::new(given);
    let new = ResumeMode::New { overwrite: false };
    let measure = |settings: T::Settings, data: DataOf<T>| {
        let setup = prepare(settings, &new, &ProcessGroup::alone(), Some(data))?;
        during(true, "timing a few steps", || setup.measure())
    };
    let data = rule::apply::<T::Rule>(&mut choices, &machine, measure)?;
    if !choices.is_empty() {
        eprintln!("chosen for this data on {machine}; what you give stays:\n{choices}");
    }
    Ok((choices, data))
}
