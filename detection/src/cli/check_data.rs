//! `detect check-data`.

use std::path::PathBuf;
use std::process::ExitCode;

use ::data::write_file;
use anyhow::Result;
use clap::Args;
use engine::outputs::Inputs;
use engine::run_dir::display_path;

use crate::data::{self, CheckOptions};

const EXAMPLES: &str = "\
Ends with 1 if there is anything that keeps the data from being used.

Examples:
  detect check-data annotations/instances_train2017.json
  detect check-data labels.json --images photos --read-images --report report.json";

/// Flags of `detect check-data`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckDataArgs {
    /// Annotation file in COCO's format.
    annotations: PathBuf,
    /// Folder of its images; where COCO has them if not given
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Decode every image, too.
    #[arg(long)]
    read_images: bool,
    /// Also write the report as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Prints the report.
pub fn run(args: CheckDataArgs) -> Result<ExitCode> {
    if let Some(report) = &args.report {
        Inputs::new([&args.annotations]).spare(report)?;
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let options = CheckOptions { read_images: args.read_images, threads };
    let report = data::check(&args.annotations, args.images.as_deref(), &options)?;
    print!("{report}");
    if let Some(path) = &args.report {
        write_file(path, serde_json::to_string_pretty(&report)?.as_bytes())?;
        println!("report: {}", display_path(path));
    }
    Ok(if report.is_usable() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
