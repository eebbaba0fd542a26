//! Evaluation within a run.

use anyhow::Result;
use engine::training::{Position, RunLog, Trainer};
use serde::Serialize;

use super::task::{Accuracy, FineTuning};
use crate::evaluation::Report;
use crate::inference::evaluate;

/// An evaluation's line of `metrics.jsonl`; accuracies are in 0–1.
#[derive(Serialize)]
struct ValidationRecord {
    step: u64,
    finished_epoch: u64,
    top1: f64,
    top5: f64,
    val_loss: f64,
    #[serde(flatten)]
    averaged: Option<Averaged>,
}

/// The averaged weights' part of it.
#[derive(Serialize)]
struct Averaged {
    ema_top1: f64,
    ema_top5: f64,
    ema_val_loss: f64,
}

/// Scores the validation images, with the weights and with their averages, and
/// writes the figures down.
pub fn validate(
    task: &FineTuning,
    trainer: &mut Trainer,
    at: &Position,
    log: &mut RunLog,
) -> Result<Accuracy> {
    let (step, epoch, validation) = (at.step, at.epoch, &task.validation);
    let score = |trainer: &Trainer| -> Result<Report> {
        evaluate(&task.classifier, &trainer.eval_mode(), validation, &trainer.world, |_| {})
    };
    let report = score(trainer)?;
    let averaged = match trainer.ema {
        Some(_) => Some(trainer.with_averages(|trainer| score(trainer))?),
        None => None,
    };
    log.left_out_of_validation(validation.corrupt_files())?;
    log.write(&ValidationRecord {
        step,
        finished_epoch: epoch,
        top1: report.top1,
        top5: report.top5,
        val_loss: report.loss,
        averaged: averaged.as_ref().map(|report| Averaged {
            ema_top1: report.top1,
            ema_top5: report.top5,
            ema_val_loss: report.loss,
        }),
    })?;
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let mut told = format!("epoch {epoch}: top-1 {}", percent(report.top1));
    for (prefix, report) in [("val", Some(&report)), ("val_ema", averaged.as_ref())] {
        if let Some(report) = report {
            for (name, value) in
                [("top1", report.top1), ("top5", report.top5), ("loss", report.loss)]
            {
                log.scalar(&format!("{prefix}/{name}"), value)?;
            }
        }
    }
    if let Some(averaged) = &averaged {
        told += &format!(", averaged weights {}", percent(averaged.top1));
    }
    log.note(&told);
    Ok(Accuracy { model: report.top1, ema: averaged.map(|report| report.top1) })
}
