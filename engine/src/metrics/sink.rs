//! Where a run's numbers go.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::Result;
use crate::progress::Step;

/// Numbers of training: means since the record before. As JSON it is a line of `metrics.jsonl`.
#[derive(Debug, Clone, Serialize)]
pub struct TrainRecord<'a> {
    /// The last step, from 1.
    pub step: u64,
    /// Epochs up to there, with their fraction.
    pub epoch: f64,
    /// The sum of all losses.
    pub loss: f64,
    /// The losses by name, if there are several.
    #[serde(flatten)]
    pub parts: &'a BTreeMap<&'static str, f64>,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Further numbers of the last step.
    #[serde(flatten)]
    pub more: BTreeMap<&'static str, f64>,
    /// Global gradient norm of the last step, before clipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// Over all processes.
    pub images_per_second: f64,
    /// Share of the time spent waiting for data, on average over all processes.
    pub data_wait: f64,
    /// That of each process, by rank; empty of one process.
    #[serde(skip_serializing_if = "<[f64]>::is_empty")]
    pub data_wait_by_rank: &'a [f64],
}

/// A place that a run's numbers go to: a file, a service, the terminal. What a sink has no use for
/// it leaves out. Only rank 0 has sinks; steps count from 1 and never decrease.
pub trait LogSink {
    /// Called after every step.
    fn log_step(&mut self, _step: &Step) {}

    /// Takes a record of training, one for every `--log-steps` steps.
    ///
    /// # Errors
    /// [`crate::Error`] if it cannot be written: the run then stops.
    fn log_train(&mut self, _record: &TrainRecord) -> Result<()> {
        Ok(())
    }

    /// Takes another record, of an epoch or an evaluation: a JSON object with an integer `step`.
    ///
    /// # Errors
    /// As [`LogSink::log_train`].
    fn log_record(&mut self, _record: &RawValue) -> Result<()> {
        Ok(())
    }

    /// Takes a number of an epoch or an evaluation, for a curve over steps.
    ///
    /// # Errors
    /// As [`LogSink::log_train`].
    fn log_scalar(&mut self, _step: u64, _tag: &str, _value: f64) -> Result<()> {
        Ok(())
    }

    /// Takes a picture, the bytes of a PNG file.
    ///
    /// # Errors
    /// As [`LogSink::log_train`].
    fn log_image(&mut self, _step: u64, _tag: &str, _png: &[u8]) -> Result<()> {
        Ok(())
    }

    /// Takes a line of text for whoever watches the run.
    fn log_note(&mut self, _text: &str) {}

    /// A step waits for its data; called now and then as long as it does.
    fn log_waiting(&mut self, _text: &str) {}

    /// Called before the first step, which may take long: `what` is being done.
    fn log_doing(&mut self, _what: &str) {}

    /// Work between two steps (a checkpoint, an evaluation) has ended; rates leave it out.
    fn skip_time(&mut self) {}

    /// The run has ended, or was interrupted.
    fn finish(&mut self) {}
}

/// A record for tests of sinks.
#[cfg(test)]
pub(super) fn example<'a>(parts: &'a BTreeMap<&'static str, f64>) -> TrainRecord<'a> {
    TrainRecord {
        step: 300,
        epoch: 1.5,
        loss: 0.75,
        parts,
        lr: 0.125,
        more: [("weight_decay", 0.0625)].into(),
        grad_norm: Some(2.0),
        images_per_second: 8.0,
        data_wait: 0.375,
        data_wait_by_rank: &[],
    }
}
