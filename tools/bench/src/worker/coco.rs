//! COCO's figures from a results file.

use std::path::Path;

use anyhow::{Context, Result};
use detection::data::GroundTruth;
use detection::evaluation::{CocoEvaluator, EvaluatorOptions, Kind, results};

use super::{Common, timed};
use crate::memory::Baseline;
use crate::protocol::{Ready, serve};

/// Which evaluation.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Of boxes or masks: bbox or segm
    #[arg(long, value_parser = parse_kind)]
    kind: Kind,
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    let known = [Kind::Bbox, Kind::Segm].into_iter().find(|kind| kind.name() == text);
    known.ok_or_else(|| format!("{text:?} must be bbox or segm"))
}

/// Serves evaluations until the input ends.
///
/// # Errors
/// The files cannot be read.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { common, kind } = arguments;
    let memory = Baseline::now()?;
    let (truth, _) = GroundTruth::read(&common.inputs.join("gt.json"))?;
    Baseline::forget_peak();
    let path = common.inputs.join(format!("{}.json", kind.name()));
    let figures = figures(&truth, &path, *kind)?;
    serve(Ready::default().with("figures", figures), || {
        timed(1.0, &memory, || self::figures(&truth, &path, *kind).map(drop))
    })
}

/// The twelve figures.
fn figures(truth: &GroundTruth, path: &Path, kind: Kind) -> Result<Vec<f64>> {
    let results = results::read(path, truth)?;
    let options = EvaluatorOptions { kinds: vec![kind], ..EvaluatorOptions::default() };
    let mut evaluator = CocoEvaluator::new(truth, options)?;
    for image in results.images {
        evaluator.add(image.image_id, image.detections)?;
    }
    let report = evaluator.finish()?.report;
    let (_, section) = report.sections().next().context("no kind was evaluated")?;
    Ok(section.figures.to_array().to_vec())
}
