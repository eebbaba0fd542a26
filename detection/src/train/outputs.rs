//! What a run leaves behind besides numbers: weights and the last report.

use std::path::PathBuf;

use anyhow::Result;
use data::write_file;
use engine::outputs::{make_folder, print_written};
use engine::run_dir::RunDir;

use crate::detector::Detector;
use crate::evaluation::Report;
use crate::modeling::weights::write_detector;

/// Exports the detector, writes the last report, and says where everything lies.
pub fn finish(detector: &Detector, report: Option<&Report>, run: &RunDir) -> Result<()> {
    let folder = run.path();
    let export = folder.join("export");
    make_folder(&export)?;
    let weights = export.join(format!("{}.pth", detector.model.config().name()));
    // A plugin's names are nobody else's; the checkpoint has them.
    if !detector.plugin {
        write_detector(&weights, &detector.store, detector.model.config())?;
    }
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
    print_written(&written);
    Ok(())
}
