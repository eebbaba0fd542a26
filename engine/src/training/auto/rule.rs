//! The order in which every program's rule chooses.

use anyhow::Result;
use toml::{Table, Value};

use super::{Choices, Machine, choose_parts, choose_precision};
use crate::settings::TrainSettings;
use crate::training::trial::StepCost;

/// What a program's rule goes by besides the machine, and what it chooses of that.
pub trait Rule: Sized {
    /// Settings of a run.
    type Settings: TrainSettings;
    /// The data that they name, listed: the trials take it over, and so does the run.
    type Data: Clone;

    /// What is chosen; where all of it is given, the data need not be looked at.
    const CHOSEN: &'static [&'static str];
    /// Images of which a step is tried.
    const TRIED: usize;
    /// Images at a time of which batch norms know enough.
    const LEAST_PART: usize;

    /// Whether the settings name any data. Those that do not are refused when they are resolved.
    fn names_data(settings: &Self::Settings) -> bool;

    /// Lists the data and looks at some of it.
    ///
    /// # Errors
    /// Data that cannot be read, settings that cannot work: what to give.
    fn look(settings: &Self::Settings) -> Result<(Self, Self::Data)>;

    /// Chooses what is learned, and how.
    ///
    /// # Errors
    /// Those of [`Choices::choose`].
    fn choose_recipe(&self, choices: &mut Choices<Self::Settings>, machine: &Machine)
    -> Result<()>;

    /// Takes out of the settings what a few steps need not, or could not, be made with.
    fn simplify_trial(settings: &mut Self::Settings);

    /// Chooses the images of a step, and says how many these are.
    ///
    /// # Errors
    /// Those of [`Choices::choose`].
    fn choose_batch(
        &self,
        choices: &mut Choices<Self::Settings>,
        machine: &Machine,
    ) -> Result<usize>;

    /// Chooses what is left once a step's parts, and what they cost, are known: how long the run
    /// is, how often it is saved and looked at.
    ///
    /// # Errors
    /// Those of [`Choices::choose`].
    fn choose_length(
        &self,
        choices: &mut Choices<Self::Settings>,
        machine: &Machine,
        cost: &StepCost,
    ) -> Result<()>;
}

/// Chooses by the rule `R` what is not given; `measure` says what steps with settings take here.
/// The data, if it was looked at.
///
/// # Errors
/// Those of the rule, and steps that cannot be made.
pub(super) fn apply<R: Rule>(
    choices: &mut Choices<R::Settings>,
    machine: &Machine,
    measure: impl Fn(R::Settings, R::Data) -> Result<StepCost>,
) -> Result<Option<R::Data>> {
    let settings = choices.settings()?;
    let has_place = !settings.run().output.as_os_str().is_empty();
    if !has_place || !R::names_data(&settings) || choices.are_given(R::CHOSEN) {
        return Ok(None);
    }
    let (rule, data) = R::look(&settings)?;
    let cost_of = |choices: &Choices<R::Settings>, images: usize| {
        let mut settings = choices.settings_with(of_trial(machine, images))?;
        R::simplify_trial(&mut settings);
        measure(settings.resolve()?, data.clone())
    };

    rule.choose_recipe(choices, machine)?;
    let so_far = choices.clone();
    choose_precision(choices, machine, |precision| {
        let mut tried = so_far.clone();
        tried.follow("precision", precision)?;
        cost_of(&tried, R::TRIED)
    })?;
    let cost = cost_of(choices, R::TRIED)?;
    let batch = rule.choose_batch(choices, machine)?;
    let so_far = choices.clone();
    let cost = choose_parts(choices, machine, (batch, R::LEAST_PART), cost, |part| {
        cost_of(&so_far, part)
    })?;
    rule.choose_length(choices, machine, &cost)?;
    Ok(Some(data))
}

/// Settings of a trial of `images` images at a time, whatever is given.
fn of_trial(machine: &Machine, images: usize) -> Table {
    let settings = [("batch-size", images), ("accum-steps", 1), ("threads", machine.cores)];
    let entry = |(name, value): (&str, usize)| (name.to_owned(), Value::Integer(value as i64));
    settings.map(entry).into_iter().collect()
}
