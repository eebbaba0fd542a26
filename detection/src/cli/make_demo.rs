//! `detect make-demo`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use engine::outputs::lies_in;
use engine::remote::check_is_here;
use engine::run_dir::display_path;
use words::counted;

use crate::demo::{self, DemoOptions};

const EXAMPLES: &str = "\
Shapes of a few classes, turned, scaled and hiding each other, are pasted on parts of the
photographs; their masks are what can be seen of them. Training and validation images share no
pixel of a photograph.

Examples:
  detect make-demo --photos photos --output demo
  detect train --data demo --output runs/demo --preset demo

  # More and larger images of three classes
  detect make-demo --photos photos --output demo3 --train 1000 --val 200 --size 320 --classes 3";

/// Flags of `detect make-demo`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct MakeDemoArgs {
    /// Folder of photographs.
    #[arg(long, value_name = "DIR")]
    photos: PathBuf,
    /// Folder to make the data set in; new or empty.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    options: DemoOptions,
    /// Write into a folder that has files already.
    #[arg(long)]
    overwrite: bool,
}

/// Makes the data set.
pub fn run(args: MakeDemoArgs) -> Result<()> {
    check_is_here(&args.output)?;
    let empty = std::fs::read_dir(&args.output).map_or(true, |mut found| found.next().is_none());
    ensure!(
        empty || args.overwrite,
        "{} is not empty; give a new folder, or --overwrite to write into it",
        args.output.display()
    );
    // Else what is made would be written over photographs, or be some the next time.
    let parts = ["train", "val"].map(|part| args.output.join(part));
    ensure!(
        !lies_in(&args.output, &args.photos)
            && !parts.iter().any(|part| lies_in(&args.photos, part)),
        "--output {} is, or is in, the folder of the photographs, {}: name another output",
        args.output.display(),
        args.photos.display()
    );
    let options = &args.options;
    let made = demo::make(&args.photos, &args.output, options)?;
    let parts = [("train", options.train, &made.train), ("val", options.val, &made.val)];
    for (name, count, split) in parts {
        println!(
            "{name:<6} {}, {}  {}",
            counted(count, "image"),
            counted(split.objects, "object"),
            display_path(&split.annotations)
        );
    }
    Ok(())
}
