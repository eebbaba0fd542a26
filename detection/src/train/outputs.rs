//! What a run leaves behind besides numbers: weights, the last report, and a
//! word about what went wrong.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use engine::checkpoint::{CheckpointDir, write_file};
use engine::run_dir::{RunDir, shown};

use super::log::Settled;
use super::step::Trainer;
use crate::data::DetectionLoader;
use crate::evaluation::Report;
use crate::modeling::weights::write_detector;

/// Stops the run at a loss or gradient that is not finite. The last checkpoint,
/// made before it, stays.
///
/// # Errors
/// That is the case.
pub fn refuse_non_finite(
    settled: &Settled,
    run: &RunDir,
    loader: &DetectionLoader,
    checkpoints: &CheckpointDir,
) -> Result<()> {
    let wrong = settled.losses.iter().find(|(_, loss)| !loss.is_finite());
    let what = match (wrong, settled.grad_norm) {
        (Some((name, loss)), _) => format!("{name} is {loss}"),
        (None, Some(norm)) if !norm.is_finite() => format!("the gradient norm is {norm}"),
        _ => return Ok(()),
    };
    let dataset = loader.dataset();
    let names: Vec<&str> = settled.indices.iter().map(|&index| dataset.name(index)).collect();
    let list = run.path().join(format!("non-finite-step-{}.txt", settled.step));
    write_file(&list, (names.join("\n") + "\n").as_bytes())?;
    let kept = checkpoints.last().map_or("there is no checkpoint yet".into(), |path| {
        format!("the last good checkpoint is {}", path.display())
    });
    bail!(
        "{what} at step {}; its {} images are listed in {} (the first: {}); {kept}. A lower \
         --base-lr, a longer --warmup-iterations, --clip-grad or --precision float32 may help",
        settled.step,
        names.len(),
        list.display(),
        names.iter().take(3).copied().collect::<Vec<_>>().join(", "),
    )
}

/// Exports the detector (averaged if there are averages), writes the last
/// report, and says where everything lies.
pub fn finish(trainer: &mut Trainer, run: &RunDir, report: Option<&Report>) -> Result<()> {
    let folder = run.path();
    let export = folder.join("export");
    std::fs::create_dir_all(&export)
        .with_context(|| format!("cannot make {}", export.display()))?;
    let weights = export.join(format!("{}.pth", trainer.config.detector));
    trainer.with_averages(|trainer| {
        let detector = &trainer.detector;
        if detector.plugin {
            // Its names are nobody else's; the checkpoint has them.
            return Ok(());
        }
        Ok(write_detector(&weights, &detector.store, detector.model.config())?)
    })?;
    let mut written: Vec<(&str, PathBuf)> = vec![("run", folder.to_owned())];
    if weights.exists() {
        written.push(("detector", weights));
    }
    if let Some(report) = report {
        let path = folder.join("report.json");
        write_file(&path, serde_json::to_string_pretty(report)?.as_bytes())?;
        written.push(("figures", path));
        print!("{report}");
    }
    let sheet = folder.join("predictions.png");
    if sheet.exists() {
        written.push(("predictions", sheet));
    }
    for (what, path) in written {
        println!("{what:<16} {}", shown(&path));
    }
    Ok(())
}
