//! `pretrain playground`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use engine::device::DeviceFlags;
use playground::{Page, ServeFlags, serve};

use crate::config::InputSize;
use crate::playground::{Playground, Subject};

const EXAMPLES: &str = "\
Examples:
  pretrain playground --weights runs/first --images photos --open

  # Two checkpoints beside each other
  pretrain playground --weights runs/first --compare runs/second --images photos

  # On a server, seen through an ssh tunnel (ssh -L 7860:localhost:7860 server)
  pretrain playground --weights runs/first --images photos --port 7860";

const PAGE: Page = Page {
    program: "pretrain",
    tabs: include_str!("../playground/page/tabs.html"),
    body: include_str!("../playground/page/body.html"),
    files: &[
        ("pretrain.js", include_str!("../playground/page/pretrain.js")),
        ("mask.js", include_str!("../playground/page/mask.js")),
        ("reconstruct.js", include_str!("../playground/page/reconstruct.js")),
        ("features.js", include_str!("../playground/page/features.js")),
        ("sparse.js", include_str!("../playground/page/sparse.js")),
    ],
};

/// Flags of `pretrain playground`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PlaygroundArgs {
    /// A run folder, a checkpoint, or weights with decoder.
    #[arg(long, alias = "checkpoint", value_name = "PATH")]
    weights: PathBuf,
    /// Another one, shown beside it.
    #[arg(long, value_name = "PATH")]
    compare: Option<PathBuf>,
    /// Size to resize and crop pictures to; the run's, else the paper's, if not given
    #[arg(long, value_name = "PIXELS")]
    input_size: Option<InputSize>,
    /// The model, or its .pt2 file, if the weights do not tell.
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    serve: ServeFlags,
    #[command(flatten)]
    compute: DeviceFlags,
}

/// Serves the page until the program is ended.
pub fn run(args: PlaygroundArgs) -> Result<()> {
    let device = args.compute.open()?;
    let paths = [Some(&args.weights), args.compare.as_ref()];
    let subjects = paths.into_iter().flatten();
    let subjects = subjects.map(|path| Subject::load(path, args.model.as_deref(), device));
    let subjects = subjects.collect::<Result<Vec<Subject>>>()?;
    ensure!(
        args.compare.as_ref() != Some(&args.weights),
        "compare is {}, but that is what --weights has already",
        args.weights.display()
    );
    let mut app = Playground::new(subjects, args.input_size)?;
    serve(&args.serve, PAGE, &mut app)
}
