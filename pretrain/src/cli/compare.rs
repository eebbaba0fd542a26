//! `pretrain compare`.

use anyhow::{Result, ensure};
use clap::Args;
use engine::settings::{Given, from_layers};

use crate::compare::{self, Begin, CompareSettings};

const EXAMPLES: &str = "\
Pretrains on --data, then fine-tunes on --labelled: from random weights and from the pretrained ones
with as many steps, and from random weights with as much time, pretraining included. It times a few
steps first and plans what fits --minutes. Ctrl-C ends it in order, --resume goes on.

Examples:
  # Class folders: flowers/train/CLASS/… and flowers/val/CLASS/…
  pretrain compare --data photos --labelled flowers --output compared --minutes 60

  # Objects in COCO's format, all labels, five seeds
  pretrain compare --data photos --labelled coco --output compared --minutes 240 --shares 1 --seeds 5

  # Only measure, and see what an hour would hold; then do it
  pretrain compare --data photos --labelled flowers --output compared --plan
  pretrain compare --output compared --resume

  # A model and settings of one's own
  pretrain compare --data photos --labelled flowers --output compared --model convnext_atto \\
      --pretrain '--input-size 128' --finetune '--input-size 128 --base-lr 2e-3'";

/// Flags of `pretrain compare`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    #[command(flatten)]
    settings: Given<CompareSettings>,
    /// Measure, print the plan and stop.
    #[arg(long)]
    plan: bool,
    /// Continue the comparison in --output.
    #[arg(long)]
    resume: bool,
    /// Delete the comparison that --output holds and begin anew.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
}

/// Compares.
pub fn run(args: CompareArgs) -> Result<()> {
    let CompareArgs { settings: given, plan: plan_only, resume, overwrite } = args;
    let settings = match resume {
        true => continued(&given)?,
        false => from_layers::<CompareSettings>([given.table])?.resolve()?,
    };
    compare::run(&settings, Begin { resume, overwrite, plan_only })
}

/// The settings of the comparison in the folder that is named, which are not to be changed.
fn continued(given: &Given<CompareSettings>) -> Result<CompareSettings> {
    let named = from_layers::<CompareSettings>([given.table.clone()])?;
    ensure!(!named.output.as_os_str().is_empty(), "no comparison to resume: name its --output");
    let saved = compare::saved_settings(&named.output)?;
    let before = from_layers::<CompareSettings>([saved.clone()])?;
    let settings = from_layers::<CompareSettings>([saved, given.table.clone()])?.resolve()?;
    let changed = before.same_runs(&settings);
    ensure!(
        changed.is_empty(),
        "the comparison was begun with other settings ({}): its runs could not be compared. Leave \
         these flags out, or give another --output",
        changed.join(", ")
    );
    Ok(settings)
}
