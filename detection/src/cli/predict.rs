//! `detect predict`.

mod pictures;
mod predictions;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;
use data::files::{NamedImage, image_files};
use data::write_file;
use data::{Image, decode};
use engine::outputs::{Inputs, make_folder};
use engine::progress::Counter;
use engine::run_dir::display_path;
use image::{ImageFormat, RgbImage};
use tch::Kind;
use words::counted;

use self::pictures::{Output, PREDICTIONS, is_jpeg, picture_names, without_drawn};
pub(super) use self::predictions::Predictions;
use super::model_flags::{FeedFlags, ModelFlags};
use crate::data::Id;
use crate::data::annotations::AnnotationFile;
use crate::evaluation::Detection;
use crate::inference::{detect_image, to_bytes};
use crate::picture::draw_predictions;
use crate::saved::LoadedModel;

const EXAMPLES: &str = "\
--output gets every image with what was found drawn on it (JPEG stays JPEG, all else becomes PNG:
a.tif is drawn as a.png, or as a.tif.png where there is an a.png or a.bmp, too; beneath crowded
images a legend counts the classes), and predictions.json: images, categories, and annotations with
boxes, masks and scores in COCO's format.
Results of an earlier call are replaced; other files are not, and never an image that is read.

Examples:
  detect predict --weights runs/first --output found photo.jpg
  detect predict --weights runs/first --output found photos/
  detect predict --weights runs/first --output found 'photos/**/*.png' --score-threshold 0.7

  # torchvision's weights; classes are numbered as in COCO
  detect predict --weights maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth --preset mask_rcnn_torchvision \\
      --output found photo.jpg";

/// Flags of `detect predict`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PredictArgs {
    #[command(flatten)]
    model: ModelFlags,
    /// Images: files, folders (with all in them), or quoted patterns.
    #[arg(required = true, value_name = "PATH")]
    images: Vec<PathBuf>,
    /// Folder for the drawn images and predictions.json.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Least score of what is drawn and written.
    #[arg(long, value_name = "SCORE", default_value_t = 0.5)]
    score_threshold: f64,
    /// Annotation file in COCO's format to take the classes' names from, where the weights do
    /// not tell.
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// Write predictions.json alone.
    #[arg(long)]
    no_pictures: bool,
    /// Also write over files in --output that are not of an earlier `detect predict`.
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    feed: FeedFlags,
}

/// Detects, draws and writes.
///
/// # Errors
/// No images, weights that do not fit, a file that cannot be written. An image
/// that cannot be read is named and left out; if none can, that is an error.
pub fn run(args: PredictArgs) -> Result<()> {
    ensure!(
        (0.0..=1.0).contains(&args.score_threshold),
        "score-threshold is {}, but it must be in [0, 1]",
        args.score_threshold
    );
    let files = files(&args.images)?;
    let output = output(&args, &files)?;
    let loaded = args.model.options.load(&args.model.weights, Kind::Float, args.feed.table())?;
    let classes = classes(&loaded, args.classes.as_deref())?;
    let names: Vec<String> = classes.iter().map(|(_, name)| name.clone()).collect();
    output.begin()?;

    let mut written = Predictions::new(&classes);
    let mut counter = Counter::new("image", files.len() as u64);
    for (at, file) in files.iter().enumerate() {
        counter.add(1);
        let image = match read(&file.path) {
            Ok(image) => image,
            Err(error) => {
                counter.note(&format!("skipped {}: {error:#}", file.path.display()));
                continue;
            }
        };
        let picture = to_bytes(&image)?;
        let mut found = detect(&loaded, image)?;
        found.retain(|detection| detection.score >= args.score_threshold);
        if let Some(path) = output.picture(at) {
            let drawn = draw_predictions(&picture, &found, &names, args.score_threshold)?;
            save(&drawn, &path)?;
        }
        let name = name_in_json(&file.name);
        if file.name.to_str().is_none() {
            counter.note(&format!("a name that is no UTF-8 is written as {name}"));
        }
        written.add(&name, picture.dimensions(), &found);
    }
    counter.finish();
    ensure!(written.images > 0, "none of {} can be read", counted(files.len(), "image"));
    let path = args.output.join(PREDICTIONS);
    write_file(&path, serde_json::to_string(&written.json)?.as_bytes())?;
    let (objects, images) = (counted(written.objects, "object"), counted(written.images, "image"));
    print!("{objects} in {images}; {}", display_path(&path));
    if !args.no_pictures {
        print!(" and drawn images in {}", display_path(&args.output));
    }
    println!();
    Ok(())
}

/// The images to detect in, without what was drawn before.
fn files(arguments: &[PathBuf]) -> Result<Vec<NamedImage>> {
    let (mut files, drawn) = without_drawn(image_files(arguments)?, arguments);
    // Named twice, or named and in a folder, it is one image.
    let mut seen = HashSet::new();
    files.retain(|file| seen.insert(in_real_folder(&file.path)));
    ensure!(
        !files.is_empty(),
        "what is there was drawn by `detect predict` ({}); name images one by one to detect in them",
        counted(drawn, "image")
    );
    if drawn > 0 {
        eprintln!("note: left out, drawn by an earlier `detect predict`: {drawn}");
    }
    Ok(files)
}

/// A file's path with no link or detour to its folder.
fn in_real_folder(path: &Path) -> PathBuf {
    let folder = std::path::absolute(path).ok().and_then(|path| path.parent()?.canonicalize().ok());
    let name = path.file_name().unwrap_or_default();
    folder.map_or_else(|| path.to_owned(), |folder| folder.join(name))
}

/// Where everything will be written, before anything is.
fn output(args: &PredictArgs, files: &[NamedImage]) -> Result<Output> {
    let names: Vec<&Path> = files.iter().map(|file| file.name.as_path()).collect();
    let pictures = if args.no_pictures { Vec::new() } else { picture_names(&names) };
    let read =
        [Some(&args.model.weights), args.model.options.config.as_ref(), args.classes.as_ref()];
    let read = files.iter().map(|file| &file.path).chain(read.into_iter().flatten());
    let inputs = Inputs::new(read);
    Output::plan(&args.output, &pictures, &inputs, &args.images, args.overwrite)
}

/// Id and name of every class.
pub(super) fn classes(loaded: &LoadedModel, file: Option<&Path>) -> Result<Vec<(Id, String)>> {
    let count = loaded.detector.model.config().num_classes as usize;
    if let Some(file) = file {
        let truth = AnnotationFile::read(file)?.truth;
        let ids = crate::evaluation::category_ids(&truth);
        ensure!(
            ids.len() == count,
            "{} has {}, but the detector has {}",
            file.display(),
            counted(ids.len(), "category"),
            counted(count, "class")
        );
        let names = crate::evaluation::category_names(&truth);
        let ids = ids.into_iter().map(|id| truth.category_id(id).within_64_bits());
        return Ok(ids.zip(names).collect());
    }
    let ids: Vec<Id> = match &loaded.classes {
        Some(classes) => classes.iter().map(|class| class.id.clone()).collect(),
        None => (1..=count as u64).map(Id::from).collect(),
    };
    Ok(ids.into_iter().zip(loaded.names()).collect())
}

fn read(path: &Path) -> Result<Image> {
    let bytes = std::fs::read(path)?;
    Ok(decode(path, &bytes, 3)?)
}

fn detect(loaded: &LoadedModel, image: Image) -> Result<Vec<Detection>> {
    let detector = &loaded.detector;
    let mode = detector.eval_mode(loaded.precision.compute());
    detect_image(&detector.model, &mode, &loaded.inference.transform(), image)
}

/// Writes a drawn image in the format that its name says.
fn save(picture: &RgbImage, path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let format = if is_jpeg(path) { ImageFormat::Jpeg } else { ImageFormat::Png };
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format)?;
    Ok(write_file(path, bytes.get_ref())?)
}

/// What a file is called in JSON; bytes that are no UTF-8 as `\xff`, so that names stay apart.
fn name_in_json(name: &Path) -> String {
    let bytes = || name.as_os_str().as_encoded_bytes().escape_ascii().to_string();
    name.to_str().map_or_else(bytes, str::to_owned)
}
