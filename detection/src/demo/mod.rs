//! A small data set with known masks, made out of photographs.
//!
//! Shapes of a few classes, turned, scaled and hiding each other, lie on parts of photographs
//! among distractors of no class. Their masks are what can be seen of them. Training and validation
//! pictures share no pixel of a photograph. Colour goes with the class, as it does with fruit: a
//! detector that begins with random weights has minutes, not days.

mod annotations;
mod paint;
mod photos;
mod raster;
mod scene;
mod shapes;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use data::rng::Rng;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder, RgbImage};

use self::annotations::Annotations;
use self::photos::Photos;
use self::scene::Plan;
use self::shapes::Shape;
use crate::{Error, Result};

/// The random stream of the demo.
const STREAM: u64 = 0x6465_6d6f;
/// High enough that edges stay sharp.
const JPEG_QUALITY: u8 = 92;
/// One picture in so many has no object.
const EMPTY_EVERY: usize = 20;
/// One picture in so many has a crowd.
const CROWD_EVERY: usize = 12;

/// What [`make`] makes: flags of `detect make-demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoOptions {
    /// Training images.
    #[arg(long, value_name = "N", default_value_t = DemoOptions::default().train)]
    pub train: usize,
    /// Validation images.
    #[arg(long, value_name = "N", default_value_t = DemoOptions::default().val)]
    pub val: usize,
    /// Long side of an image in pixels; the short one is three quarters of it.
    #[arg(long, value_name = "PIXELS", default_value_t = DemoOptions::default().size)]
    pub size: usize,
    /// Most objects in an image.
    #[arg(long, value_name = "N", default_value_t = DemoOptions::default().objects)]
    pub objects: usize,
    /// Classes, 1 to 6.
    #[arg(long, value_name = "N", default_value_t = DemoOptions::default().classes)]
    pub classes: usize,
    /// The same seed makes the same files.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

impl Default for DemoOptions {
    /// 500 and 80 pictures of 224 × 168 pixels with up to 5 objects of 4 classes.
    fn default() -> Self {
        Self { train: 500, val: 80, size: 224, objects: 5, classes: 4, seed: 0 }
    }
}

/// One half of the data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The annotation file.
    pub annotations: PathBuf,
    /// The folder of the pictures.
    pub images: PathBuf,
    /// Objects and crowds in it.
    pub objects: usize,
}

/// A data set that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demo {
    /// For training.
    pub train: Split,
    /// For validation.
    pub val: Split,
}

/// Makes a data set of the photographs in `photos` in `folder`, laid out as COCO is:
/// `annotations/instances_{train,val}.json` and the pictures in `train` and `val`.
///
/// # Errors
/// [`Error::Input`] for options out of range or photographs too small; [`Error::Engine`] for
/// what can't be read or written.
pub fn make(photos: &Path, folder: &Path, options: &DemoOptions) -> Result<Demo> {
    check(options)?;
    let (train, val) = Photos::open(photos)?;
    Ok(Demo {
        train: split(&train, folder, "train", options.train, options)?,
        val: split(&val, folder, "val", options.val, options)?,
    })
}

fn check(options: &DemoOptions) -> Result<()> {
    for (name, value) in [
        ("training pictures", options.train),
        ("validation pictures", options.val),
        ("objects in a picture", options.objects),
    ] {
        if value == 0 {
            return Err(Error::invalid(name, value, "at least 1 is needed"));
        }
    }
    if !(64..=4096).contains(&options.size) {
        return Err(Error::invalid("picture size", options.size, "it must be in 64..=4096 pixels"));
    }
    if !(1..=Shape::ALL.len()).contains(&options.classes) {
        let rule = format!("there are 1 to {}", Shape::ALL.len());
        return Err(Error::invalid("classes", options.classes, rule));
    }
    Ok(())
}

/// Makes `count` pictures and their annotation file.
fn split(
    photos: &Photos,
    folder: &Path,
    name: &str,
    count: usize,
    options: &DemoOptions,
) -> Result<Split> {
    let images = folder.join(name);
    fs::create_dir_all(&images).map_err(|e| data::Error::io(&images, e))?;
    let classes = &Shape::ALL[..options.classes];
    let mut annotations = Annotations::new(classes);
    let half = u64::from(name == "val");
    for number in 0..count {
        let mut rng = Rng::new(options.seed, &[STREAM, half, number as u64]);
        let plan = plan(number, classes, options, &mut rng);
        let (picture, objects) = scene::draw(&plan, photos, &mut rng)?;
        let file = format!("{number:06}.jpg");
        write_jpeg(&picture, &images.join(&file))?;
        annotations.add(&file, plan.size, &objects)?;
    }
    let path = folder.join("annotations").join(format!("instances_{name}.json"));
    let objects = annotations.write(&path)?;
    Ok(Split { annotations: path, images, objects })
}

/// What picture `number` shows. By turns, so that a small data set has some of everything.
fn plan(number: usize, classes: &[Shape], options: &DemoOptions, rng: &mut Rng) -> Plan {
    let (long, short) = (options.size, options.size * 3 / 4);
    let size = match number % 5 {
        0 | 1 => (long, short),
        2 => (short, short),
        _ => (short, long),
    };
    let empty = number % EMPTY_EVERY == EMPTY_EVERY - 1;
    let count = if empty { 0 } else { 1 + rng.below(options.objects) };
    let objects = (0..count).map(|_| classes[rng.below(classes.len())]).collect();
    let crowd = (!empty && number % CROWD_EVERY == CROWD_EVERY / 2)
        .then(|| classes[rng.below(classes.len())]);
    Plan { size, objects, crowd, clutter: rng.below(2) }
}

fn write_jpeg(picture: &RgbImage, path: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
        .write_image(picture.as_raw(), picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .map_err(|e| data::Error::image(path, e.to_string()))?;
    fs::write(path, bytes).map_err(|e| data::Error::io(path, e).into())
}
