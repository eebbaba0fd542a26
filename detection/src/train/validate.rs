//! Evaluation within a run: figures, and pictures of what was found.

use std::collections::BTreeMap;

use anyhow::Result;
use backbone::Module;
use data::write_file;
use engine::training::{RunLog, RunOutput, Trainer};

use super::precise_bn;
use super::task::DetectorTraining;
use crate::data::{DetectionLoader, GroundTruth};
use crate::evaluation::{CocoEvaluator, EvaluatorOptions, ImageDetections, Kind, Report};
use crate::inference::{self, detect_image, to_bytes};
use crate::modeling::weights::BOTTOM_UP;
use crate::picture::{Comparison, comparison_sheet, ground_truth_objects, png, predicted_objects};

/// Epochs from which batch norms' statistics are recomputed; none of training's.
const PRECISE_EPOCH: u64 = 1 << 40;
/// Least score of a detection that is drawn.
const DRAWN_SCORE: f64 = 0.5;

/// What an evaluation works on.
pub struct Validation {
    /// Batches for the batch norms' statistics.
    pub training: DetectionLoader,
    /// The images to score.
    pub images: DetectionLoader,
    /// For each class that is learned the images' of the same name.
    pub classes: Vec<usize>,
}

/// Recomputes the batch norms' statistics, scores the validation images (each process its part)
/// and draws some, all with the averaged weights if there are any. The report is rank 0's.
pub fn validate(
    task: &DetectorTraining,
    trainer: &mut Trainer,
    run: &mut RunOutput,
    step: u64,
) -> Result<Option<Report>> {
    trainer.with_averages(|trainer| {
        if update_bn_stats(task, trainer)? {
            trainer.broadcast_bn_stats()?;
        }
        let report = score(task, trainer)?;
        run.log.left_out_of_validation(task.validation.images.corrupt_files())?;
        let Some((report, folder)) = report.as_ref().zip(run.files.folder()) else {
            return Ok(None);
        };
        record(step, report, &mut run.log)?;
        if let Some(sheet) = pictures(task, step)? {
            write_file(&folder.path().join("predictions.png"), &sheet)?;
            run.log.image("predictions", &sheet)?;
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
        log.scalar(&format!("val/{name}"), *value)?;
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

/// Precise batch norm over as many training batches as the settings say; whether there was any.
fn update_bn_stats(task: &DetectorTraining, trainer: &Trainer) -> Result<bool> {
    let batches = task.config.precise_bn;
    let any = trainer.variables.keys().any(|name| name.ends_with("running_mean"));
    if batches == 0 || !any || task.detector.plugin {
        return Ok(false);
    }
    let heads = precise_bn::has_head_norms(&trainer.variables);
    let loader = &task.validation.training;
    let epochs = batches.div_ceil(loader.steps());
    let source = loader.batches(PRECISE_EPOCH..PRECISE_EPOCH + epochs, 0);
    let mut source = source.take(batches as usize);
    precise_bn::update(&trainer.variables, &momenta(task), || {
        let Some(batch) = source.next() else { return Ok(false) };
        let batch = batch?;
        let mut samples = batch.images;
        // What one micro-batch has is what the norms see in training.
        samples.truncate(trainer.micro_batch_size);
        if heads {
            task.losses_of(trainer, samples, batch.epoch)?;
        } else {
            task.maps_of(trainer, samples)?;
        }
        Ok(true)
    })?;
    Ok(true)
}

/// Momentum of each of the backbone's batch norms, by its name in memory.
fn momenta(task: &DetectorTraining) -> BTreeMap<String, f64> {
    let modules = task.detector.model.bottom_up().modules().into_iter();
    let momentum = |(name, module): (String, Module)| match module {
        Module::BatchNorm2d { momentum, .. } => Some((format!("{BOTTOM_UP}{name}"), momentum)),
        _ => None,
    };
    modules.filter_map(momentum).collect()
}

/// The figures, on rank 0: all processes detect in their images, rank 0 scores. Images that cannot
/// be read, of which the loader allows a share, are not among those scored.
fn score(task: &DetectorTraining, trainer: &Trainer) -> Result<Option<Report>> {
    let (world, validation) = (&trainer.world, &task.validation);
    let mode = task.detector.eval_mode(task.config.execution.precision.compute());
    let model = &task.detector.model;
    let detect = |found_in: &mut dyn FnMut(ImageDetections) -> crate::Result<()>| {
        let class = |class: usize| validation.classes.get(class).copied();
        inference::detect(model, &mode, &validation.images, found_in, class, |_| {})
    };
    let masks = task.config.detector.masks;
    let evaluator = || evaluator(masks, validation.images.dataset().coco());
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
    world.all_ok(detected)?;
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
pub fn evaluator(masks: bool, ground_truth: &GroundTruth) -> Result<CocoEvaluator> {
    let mut kinds = vec![Kind::Bbox];
    if masks {
        kinds.push(Kind::Segm);
    }
    let options = EvaluatorOptions { kinds, ..EvaluatorOptions::default() };
    Ok(CocoEvaluator::new(ground_truth, options)?)
}

/// The sheet of labelled and found objects in the first images with any, as PNG.
fn pictures(task: &DetectorTraining, step: u64) -> Result<Option<Vec<u8>>> {
    let DetectorTraining { config, detector, validation, .. } = task;
    let dataset = validation.images.dataset();
    let with_objects = (0..dataset.len()).filter(|&index| dataset.object_count(index) > 0);
    let mode = detector.eval_mode(config.execution.precision.compute());
    let transform = config.inference.transform();
    let names = dataset.names();
    let mut rows = Vec::new();
    for index in with_objects {
        if rows.len() >= config.pictures {
            break;
        }
        let Ok(image) = dataset.image(index) else { continue };
        let bytes = to_bytes(&image)?;
        let mut found = detect_image(&detector.model, &mode, &transform, image)?;
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
    let caption = format!("{} after {step} steps", config.run.name);
    Ok(Some(png(&comparison_sheet(&caption, &rows)?)?))
}
