//! What a run leaves behind besides numbers: curves and the exported classifier.

use std::path::{Path, PathBuf};

use anyhow::Result;
use data::write_file;
use engine::export::ExportFormat;
use engine::metrics::series;
use engine::outputs::{make_folder, print_written};
use engine::picture::{CURVE_SIZE, LineChart, loss_curve, png};
use engine::run_dir::RunDir;
use image::RgbImage;
use tch::{Device, Kind};

use crate::saved::{LoadSpec, LoadedModel};

/// Exports the best classifier of the run, draws its curves, and says where
/// everything lies.
pub fn finish(name: &str, run: &RunDir) -> Result<()> {
    let folder = run.path();
    let loaded = LoadSpec::new(folder, Device::Cpu, Kind::Float).load()?;
    let mut written: Vec<(&str, PathBuf)> = vec![("run", folder.to_owned())];
    written.extend(export(&folder.join("export"), &loaded)?);
    let metrics = run.metrics();
    let curves = [
        ("loss curve", "loss.png", loss_curve(&metrics, name, "training loss")?),
        ("accuracy curve", "accuracy.png", accuracy_curve(&metrics, name)?),
    ];
    for (what, file, picture) in curves {
        if let Some(picture) = picture {
            let path = folder.join(file);
            write_file(&path, &png(&picture)?)?;
            written.push((what, path));
        }
    }
    if let Some(accuracy) = loaded.accuracy {
        println!("{:<16} {:.2} %", "best top-1", 100.0 * accuracy);
    }
    print_written(&written);
    Ok(())
}

/// Writes the classifier for timm, or by the names of the `.pt2` file that it came from.
fn export(folder: &Path, loaded: &LoadedModel) -> Result<Vec<(&'static str, PathBuf)>> {
    make_folder(folder)?;
    let (model, tensors) = (loaded.classifier.model(), loaded.classifier.variables());
    if model.graph().is_none() {
        let timm = folder.join("timm");
        ExportFormat::Timm.write(&timm, model, &tensors, Some(loaded.timm_config()))?;
        return Ok(vec![("timm folder", timm)]);
    }
    let write = |(what, ending): (&'static str, &str)| {
        let file = folder.join(format!("{}_classifier.{ending}", model.name));
        ExportFormat::Official.write(&file, model, &tensors, None)?;
        Ok((what, file))
    };
    [("classifier", "safetensors"), ("state dict", "pth")].into_iter().map(write).collect()
}

/// Top-1 accuracy against epoch; none without an evaluation.
fn accuracy_curve(metrics: &Path, title: &str) -> Result<Option<RgbImage>> {
    let points = |key: &str| -> Result<Vec<(f64, f64)>> {
        let points = series(metrics, "finished_epoch", key)?;
        Ok(points.into_iter().map(|(epoch, share)| (epoch, 100.0 * share)).collect())
    };
    let (weights, averages) = (points("top1")?, points("ema_top1")?);
    if weights.is_empty() {
        return Ok(None);
    }
    let mut chart =
        LineChart::new(title, "epoch", "validation top-1 in %").series("weights", &weights);
    if !averages.is_empty() {
        chart = chart.series("averaged weights", &averages);
    }
    Ok(Some(chart.render(CURVE_SIZE.0, CURVE_SIZE.1)?))
}
