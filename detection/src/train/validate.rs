//! Evaluation within a run: figures, and pictures of what was found.

use anyhow::Result;
use data::write_file;
use engine::run_dir::RunDir;
use engine::training::{RunFiles, RunLog};
use tch::{Kind as Type, Tensor};

use super::config::TrainConfig;
use super::precise_bn;
use super::step::Trainer;
use crate::data::{DetectionLoader, GroundTruth};
use crate::evaluation::{CocoEvaluator, EvaluatorOptions, ImageDetections, Kind, Report};
use crate::inference::{self, in_original, side_lengths, to_bytes, to_tensor};
use crate::picture::{Comparison, comparison_sheet, ground_truth_objects, png, predicted_objects};

/// Epochs from which batch norms' statistics are renewed; none of training's.
const PRECISE_EPOCH: u64 = 1 << 40;
/// Least score of a detection that is drawn.
const DRAWN_SCORE: f64 = 0.5;

/// What an evaluation works on.
pub struct Validation<'a> {
    /// Batches for the batch norms' statistics.
    pub training: &'a DetectionLoader,
    /// The images to score.
    pub images: &'a DetectionLoader,
    /// For each class that is learned the images' of the same name.
    pub classes: &'a [usize],
}

/// Renews the batch norms' statistics, scores the validation images (each process its part) and
/// draws some, all with the averaged weights if there are any. The report is rank 0's.
pub fn validate(
    trainer: &mut Trainer,
    validation: &Validation,
    files: &RunFiles,
    step: u64,
    log: &mut RunLog,
) -> Result<Option<Report>> {
    trainer.with_averages(|trainer| {
        renew_statistics(trainer, validation.training)?;
        trainer.settle_statistics()?;
        let report = score(trainer, validation)?;
        log.left_out_of_validation(validation.images.corrupt_files())?;
        let Some((report, run)) = report.as_ref().zip(files.folder()) else { return Ok(None) };
        record(step, report, log)?;
        if let Some(sheet) = pictures(trainer, validation, step)? {
            write_file(&run.path().join("predictions.png"), &sheet)?;
            log.picture("predictions", step, &sheet)?;
        }
        Ok(Some(report.clone()))
    })
}

/// Writes the figures of an evaluation.
fn record(step: u64, report: &Report, log: &mut RunLog) -> Result<()> {
    let figures = report.scalars();
    let mut record = serde_json::Map::new();
    record.insert("step".into(), step.into());
    for (name, value) in &figures {
        record.insert(name.clone(), (*value).into());
        log.scalar(&format!("val/{name}"), step, *value)?;
    }
    log.write(&record)?;
    let short: Vec<String> = report
        .sections()
        .map(|(kind, section)| {
            let figures = &section.figures;
            let percent = |value: f64| format!("{:.1}", 100.0 * value);
            format!("{} AP {} AP50 {}", kind.name(), percent(figures.ap), percent(figures.ap50))
        })
        .collect();
    log.note(&format!("step {step}: {}", short.join(", ")));
    Ok(())
}

/// Takes the figures of the evaluation at `step`, which is made again, out of the run's records.
pub fn forget(run: &RunDir, step: u64) -> Result<()> {
    let path = run.metrics();
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
    let is_kept = |line: &&str| match serde_json::from_str::<serde_json::Value>(line) {
        Ok(record) => record["step"] != step || record.get("loss").is_some(),
        Err(_) => true,
    };
    let kept: String = text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
    if kept.len() < text.len() {
        write_file(&path, kept.as_bytes())?;
    }
    Ok(())
}

/// Precise batch norm over as many training batches as the settings say.
fn renew_statistics(trainer: &Trainer, loader: &DetectionLoader) -> Result<()> {
    let batches = trainer.config.precise_bn;
    let variables = trainer.detector.variables();
    let any = variables.keys().any(|name| name.ends_with("running_mean"));
    if batches == 0 || !any || trainer.detector.plugin {
        return Ok(());
    }
    let heads = precise_bn::has_head_norms(&variables);
    let epochs = batches.div_ceil(loader.steps());
    let source = loader.batches(PRECISE_EPOCH..PRECISE_EPOCH + epochs, 0);
    let mut source = source.take(batches as usize);
    precise_bn::renew(&variables, || {
        let Some(batch) = source.next() else { return Ok(false) };
        let batch = batch?;
        let mut samples = batch.images;
        // What one part has is what the norms see in training.
        samples.truncate(trainer.part_size);
        if heads {
            trainer.losses(samples, batch.epoch)?;
        } else {
            let images: Vec<_> = samples.into_iter().map(|sample| sample.image).collect();
            let (count, device) = (images.len() as i64, trainer.detector.device());
            // No block is left out.
            let ones = |blocks| Tensor::ones([blocks as i64, count], (Type::Float, device));
            trainer.detector.model.maps(&images, &trainer.mode(ones), &trainer.world)?;
        }
        Ok(true)
    })
}

/// The figures, on rank 0: all processes detect in their images, rank 0 scores. Images that cannot
/// be read, of which the loader allows a share, are not among those scored.
fn score(trainer: &Trainer, validation: &Validation) -> Result<Option<Report>> {
    let world = &trainer.world;
    let mode = trainer.detector.eval_mode(trainer.config.precision.compute());
    let model = &trainer.detector.model;
    let detect = |found_in: &mut dyn FnMut(ImageDetections) -> crate::Result<()>| {
        let class = |class: usize| validation.classes.get(class).copied();
        inference::detect(model, &mode, validation.images, found_in, class, |_| {})
    };
    let evaluator = || evaluator(&trainer.config, validation.images.dataset().coco());
    if world.is_alone() {
        let mut evaluator = evaluator()?;
        detect(&mut |found| evaluator.add(found.image_id, found.detections))?;
        evaluator.leave_out_rest();
        return Ok(Some(evaluator.finish()?.report));
    }
    let mut own = Vec::new();
    let detected = detect(&mut |found| {
        own.push(found);
        Ok(())
    });
    world.agree(detected)?;
    let all: Vec<Vec<ImageDetections>> = world.gather(&own)?;
    if !world.is_main() {
        return Ok(None);
    }
    let mut evaluator = evaluator()?;
    for found in all.into_iter().flatten() {
        evaluator.add(found.image_id, found.detections)?;
    }
    evaluator.leave_out_rest();
    Ok(Some(evaluator.finish()?.report))
}

/// The evaluator of validation data, of boxes and, if they are learned, masks.
pub fn evaluator(config: &TrainConfig, ground_truth: &GroundTruth) -> Result<CocoEvaluator> {
    let mut kinds = vec![Kind::Bbox];
    if config.masks {
        kinds.push(Kind::Segm);
    }
    let options = EvaluatorOptions { kinds, ..EvaluatorOptions::default() };
    Ok(CocoEvaluator::new(ground_truth, options)?)
}

/// The sheet of labelled and found objects in the first images with any, as PNG.
fn pictures(trainer: &Trainer, validation: &Validation, step: u64) -> Result<Option<Vec<u8>>> {
    let dataset = validation.images.dataset();
    let with_objects = (0..dataset.len()).filter(|&index| dataset.object_count(index) > 0);
    let mode = trainer.detector.eval_mode(trainer.config.precision.compute());
    let names = dataset.names();
    let mut rows = Vec::new();
    for index in with_objects {
        if rows.len() >= trainer.config.pictures {
            break;
        }
        let Ok(image) = dataset.image(index) else { continue };
        let size = (image.height(), image.width());
        let bytes = to_bytes(&image)?;
        let fed = to_tensor(&trainer.config.eval_transform().apply(image)?)?;
        let model = &trainer.detector.model;
        let found = model.infer(std::slice::from_ref(&fed), &mode)?;
        let layout = model.config().classes;
        let mut found = in_original(&found[0], side_lengths(&fed), size, layout)?;
        found.iter_mut().for_each(|one| one.class = validation.classes[one.class]);
        rows.push(Comparison {
            image: bytes,
            truth: ground_truth_objects(dataset.coco(), dataset.record(index).id),
            found: predicted_objects(&found, &names, DRAWN_SCORE)?,
        });
    }
    if rows.is_empty() {
        return Ok(None);
    }
    let caption = format!("{} after {step} steps", trainer.config.name);
    Ok(Some(png(&comparison_sheet(&caption, &rows)?)?))
}
