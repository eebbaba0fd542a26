//! `pretrain shards`: making tar shards, and checking them.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand};
use data::names::{first_names, quoted};
use data::shards::{
    CLASSES, Checked, Folder, LabelsFrom, Made, Pictures, SUMMARY, ShardSettings, UNREADABLE,
    Watcher, check, make, pattern,
};
use data::{ByteSize, DatasetOptions, Location};
use engine::outputs::lies_in;
use engine::progress::Counter;
use engine::run_dir::display_path;
use words::counted;

const EXAMPLES: &str = "\
Examples:
  # A folder of photos into shards of 256 MB
  pretrain shards make --data photos --output sets/photos

  # What is there as it should be?
  pretrain shards check sets/photos";

const MAKE_EXAMPLES: &str = "\
A set is made of shard-000000.tar, …, an index (.idx) beside each, and summary.json, which has
images, bytes and SHA-256 of every shard. The same images and settings give the same bytes. A command
that was stopped goes on where it was when it is given again.

Examples:
  # A folder of photos into shards of 256 MB
  pretrain shards make --data photos --output sets/photos
  pretrain train --data 'sets/photos/shard-{000000..000011}.tar' --output runs/first

  # Longest side 512 pixels, to save space
  pretrain shards make --data photos --output sets/small --max-side 512 --quality 90

  # One folder a class: each image has the number of its class beside it
  pretrain shards make --data imagenet/train --output sets/train --labels required

  # Into a bucket, with the credentials that AWS_ACCESS_KEY_ID, … give
  pretrain shards make --data photos --output s3://bucket/photos

  # A list, in its own order
  pretrain shards make --data list.txt --output sets/list --in-order";

const CHECK_EXAMPLES: &str = "\
Each shard is read from its start to its end: that it has the bytes that summary.json says, that its
members lie where its index says, that all images can be decoded and labels are classes. What is wrong
is listed, and the exit status is 1. Of shards that others made there is no summary; then images,
labels and indexes are looked at.

Examples:
  pretrain shards check sets/photos
  pretrain shards check others-shards";

/// Flags of `pretrain shards`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub struct ShardsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pack images into tar shards that this program and WebDataset read.
    #[command(after_help = MAKE_EXAMPLES)]
    Make(MakeArgs),
    /// Read shards whole and say what is wrong with them.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
}

/// Flags of `pretrain shards make`.
#[derive(Debug, Args)]
struct MakeArgs {
    /// Folder of images or of class folders, list, tar shards: what `pretrain train --data` takes
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Folder for the shards, empty or not there; one with an unfinished set is gone on with. Also
    /// s3://bucket/set, gs://…, az://…
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Most bytes of a shard; an image that is larger has a shard of its own
    #[arg(long, value_name = "BYTES", default_value_t = ShardSettings::default().size)]
    size: ByteSize,
    /// Make pictures whose longer side has more pixels than this smaller, as JPEG of 8 bits; all
    /// others are copied bit for bit
    #[arg(long, value_name = "PIXELS")]
    max_side: Option<u32>,
    /// JPEG quality of pictures that are made smaller, 1 to 100
    #[arg(long, value_name = "Q", default_value_t = ShardSettings::default().quality)]
    quality: u8,
    /// Whether images have their classes beside them
    #[arg(long, value_enum, default_value = "auto")]
    labels: LabelsFrom,
    /// Seed of the order in which images go into shards, so that each shard is a sample of all
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Keep images in the order of their names (a list's: in its own) instead
    #[arg(long, conflicts_with = "seed")]
    in_order: bool,
    /// What the shards' names begin with
    #[arg(long, value_name = "NAME", default_value_t = ShardSettings::default().prefix)]
    prefix: String,
    /// Channels of the images: 1 or 3 for pictures, more for .npy arrays and bands of TIFF files
    #[arg(long, value_name = "N", default_value_t = 3)]
    in_chans: usize,
    /// Share of unreadable files that stops it
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    max_corrupt: f64,
    /// Threads that read images, 0 for as many as cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    workers: usize,
}

/// Flags of `pretrain shards check`.
#[derive(Debug, Args)]
struct CheckArgs {
    /// Folder with shards; also s3://bucket/set, gs://…, az://…
    #[arg(value_name = "DIR")]
    path: PathBuf,
    /// Channels of the images, where no summary says it
    #[arg(long, value_name = "N", default_value_t = 3)]
    in_chans: usize,
    /// Shards that are read at a time, 0 for as many as cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    workers: usize,
}

/// Makes or checks shards.
pub fn run(args: ShardsArgs) -> Result<()> {
    match args.command {
        Command::Make(args) => run_make(&args),
        Command::Check(args) => run_check(&args),
    }
}

fn run_make(args: &MakeArgs) -> Result<()> {
    ensure!(
        (0.0..=1.0).contains(&args.max_corrupt),
        "max-corrupt is {}, but it is a share from 0 to 1",
        args.max_corrupt
    );
    let settings = ShardSettings {
        size: args.size,
        max_side: args.max_side,
        quality: args.quality,
        seed: (!args.in_order).then_some(args.seed),
        channels: args.in_chans,
        prefix: args.prefix.clone(),
        ..ShardSettings::default()
    };
    settings.check()?;
    ensure!(
        is_stored(&args.output) || !args.data.is_dir() || !lies_in(&args.output, &args.data),
        "output is {}, but that lies in the data, {}, where its shards would be found as images",
        args.output.display(),
        args.data.display()
    );
    let options = DatasetOptions::with_channels(args.in_chans);
    let pictures = Pictures::open(&args.data, &options, args.labels)?;
    describe(args, &pictures);
    let bar = Bar::default();
    let folder = Folder::open(&args.output)?;
    let made = make(&pictures, &folder, &settings, args.max_corrupt, threads(args.workers), &bar)?;
    bar.finish();
    tell(&args.output, &made);
    Ok(())
}

/// Says what was found.
fn describe(args: &MakeArgs, pictures: &Pictures) {
    let others = match pictures.other_files() {
        0 => String::new(),
        count => format!("; left out: {}", counted(count, "other file")),
    };
    let images = counted(pictures.len(), "image");
    eprintln!("{images} in {}{others}", args.data.display());
    pictures.notes().iter().for_each(|note| eprintln!("note: {note}"));
    match (pictures.classes(), args.labels) {
        (Some(classes), _) => {
            let names = first_names(classes.iter().map(String::as_str));
            eprintln!("classes, {names} (--labels none leaves them out)");
        }
        (None, LabelsFrom::Auto) => {
            eprintln!("no labels: not all images lie in class folders, or have labels in shards")
        }
        (None, _) => {}
    }
}

/// Says what was made, and how it is read.
fn tell(output: &Path, Made { summary, resumed }: &Made) {
    let at = |name: &str| match is_stored(output) {
        true => output.join(name).display().to_string(),
        false => display_path(&output.join(name)),
    };
    let shards = summary.shards.len();
    let made = if *resumed == summary.images + summary.unreadable { " made before" } else { "" };
    println!(
        "{}{made}: {}, {}",
        counted(shards, "shard"),
        counted(summary.images, "image"),
        ByteSize(summary.bytes)
    );
    if let Some(side) = summary.settings.max_side {
        let quality = summary.settings.quality;
        println!(
            "larger than {side} pixels, and JPEG of quality {quality} now: {}",
            counted(summary.resized, "image")
        );
    }
    if summary.unreadable > 0 {
        println!(
            "left out as unreadable: {}, listed in {}",
            counted(summary.unreadable, "file"),
            at(UNREADABLE)
        );
    }
    if summary.classes > 0 {
        println!("{}: {}", counted(summary.classes, "class"), at(CLASSES));
    }
    println!("summary: {}", at(SUMMARY));
    println!("--data '{}'", at(&pattern(&summary.settings.prefix, shards)));
}

fn run_check(args: &CheckArgs) -> Result<()> {
    let bar = Bar::default();
    let folder = Folder::open(&args.path)?;
    let Checked { shards, images, bytes, problems, summary } =
        check(&folder, args.in_chans, threads(args.workers), &bar)?;
    bar.finish();
    problems.iter().for_each(|problem| println!("{problem}"));
    let (shards, images) = (counted(shards, "shard"), counted(images, "image"));
    let found = format!("{shards}, {images}, {}", ByteSize(bytes));
    if !problems.is_empty() {
        let problems = counted(problems.len(), "problem");
        bail!("{}: {problems}, listed above ({found})", args.path.display());
    }
    match summary {
        true => println!("{found}: all as {} says", quoted(SUMMARY)),
        false => println!("{found}: all can be read; there is no {SUMMARY} to compare with"),
    }
    Ok(())
}

/// Whether a path is the name of something in a store.
fn is_stored(path: &Path) -> bool {
    path.to_str().is_some_and(Location::is_one)
}

fn threads(workers: usize) -> usize {
    if workers == 0 { data::cores() } else { workers }
}

/// A progress bar once it is known how much there is to do.
#[derive(Default)]
struct Bar(Mutex<Option<Counter>>);

impl Bar {
    fn with(&self, act: impl FnOnce(&mut Option<Counter>)) {
        act(&mut self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }

    fn finish(&self) {
        self.with(|bar| bar.take().into_iter().for_each(Counter::finish));
    }
}

impl Watcher for Bar {
    fn begin(&self, total: u64, done: u64) {
        self.with(|bar| *bar = Some(Counter::new("image", total).resumed(done)));
    }

    fn advance(&self, images: u64, _: u64) {
        self.with(|bar| bar.iter_mut().for_each(|bar| bar.add(images)));
    }
}
