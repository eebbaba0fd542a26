//! `detect playground`.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::Args;
use data::{Image, Interpolation, decode};
use playground::{App, Page, Picture, Question, ServeFlags, data_url, jpeg, serve};
use serde_json::{Value, json};
use tch::Kind;

use super::model_flags::{FeedFlags, ModelFlags};
use super::predict::{Predictions, classes};
use crate::data::Id;
use crate::evaluation::Detection;
use crate::inference::Found;
use crate::saved::LoadedModel;

const EXAMPLES: &str = "\
Examples:
  detect playground --weights runs/first --images photos --open

  # torchvision's weights
  detect playground --weights maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth \\
      --preset mask_rcnn_torchvision --images photos";

const PAGE: Page = Page {
    program: "detect",
    tabs: "",
    body: include_str!("playground/body.html"),
    files: &[("detect.js", include_str!("playground/detect.js"))],
};

/// Longest side of a picture as the page shows it, in pixels.
const SHOWN: usize = 1024;

/// Flags of `detect playground`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PlaygroundArgs {
    #[command(flatten)]
    model: ModelFlags,
    /// Score threshold as the page opens
    #[arg(long, value_name = "SCORE", default_value_t = 0.5)]
    score_threshold: f64,
    /// Annotation file in COCO's format to take the classes' names from, where the weights do
    /// not tell.
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    #[command(flatten)]
    feed: FeedFlags,
    #[command(flatten)]
    serve: ServeFlags,
}

/// Serves the page until the program is ended.
pub fn run(args: PlaygroundArgs) -> Result<()> {
    let threshold = args.score_threshold;
    ensure!(
        (0.0..=1.0).contains(&threshold),
        "score-threshold is {threshold}, but it must be in [0, 1]"
    );
    let loaded = args.model.options.load(&args.model.weights, Kind::Float, args.feed.table())?;
    let classes = classes(&loaded, args.classes.as_deref())?;
    let name = args.model.weights.display().to_string();
    let mut app = Playground { name, loaded, classes, threshold, seen: None };
    serve(&args.serve, PAGE, &mut app)
}

/// A detector behind a page.
struct Playground {
    name: String,
    loaded: LoadedModel,
    /// Id and name of every class.
    classes: Vec<(Id, String)>,
    threshold: f64,
    /// The picture that was asked about last.
    seen: Option<Seen>,
}

struct Seen {
    picture: u64,
    /// (height, width) of the file.
    size: (usize, usize),
    /// A smaller one where the file's is large.
    shown: Image,
    found: Found,
    seconds: f64,
}

impl Playground {
    fn see(&mut self, picture: &Picture) -> Result<&Seen> {
        if self.seen.as_ref().is_none_or(|seen| seen.picture != picture.id) {
            let (bytes, name) = picture.read()?;
            let image = decode(name, &bytes, 3)?;
            let size = (image.height(), image.width());
            let shown = image.resize(shown_size(size), Interpolation::Bilinear)?;
            let detector = &self.loaded.detector;
            let mode = detector.eval_mode(self.loaded.precision.compute());
            let transform = self.loaded.inference.transform();
            let began = std::time::Instant::now();
            let found = Found::in_image(&detector.model, &mode, &transform, image)?;
            let seconds = began.elapsed().as_secs_f64();
            self.seen = Some(Seen { picture: picture.id, size, shown, found, seconds });
        }
        match &self.seen {
            Some(seen) => Ok(seen),
            None => bail!("nothing was seen"),
        }
    }

    /// Everything that was found, in the pixels of the picture that is sent with it.
    fn detect(&mut self, question: &Question) -> Result<Value> {
        let seen = self.see(question.picture()?)?;
        let (height, width) = (seen.shown.height(), seen.shown.width());
        let objects = seen.found.in_pixels((height, width))?;
        Ok(json!({
            "picture": data_url("image/jpeg", &jpeg(&seen.shown)?),
            "width": width, "height": height,
            "size": [seen.size.0, seen.size.1],
            "seconds": seen.seconds,
            "objects": objects.iter().map(object).collect::<Vec<Value>>(),
        }))
    }

    /// What was found in the file's pixels, in COCO's format.
    fn coco(&mut self, question: &Question) -> Result<Value> {
        let threshold: f64 = question.field("threshold")?;
        let wanted: Vec<usize> = question.field("classes")?;
        let picture = question.picture()?;
        let seen = self.see(picture)?;
        let (size, mut found) = (seen.size, seen.found.in_pixels(seen.size)?);
        found.retain(|object| object.score >= threshold && wanted.contains(&object.class));
        let mut written = Predictions::new(&self.classes);
        written.add(&picture.name, (size.1 as u32, size.0 as u32), &found);
        Ok(written.json)
    }
}

impl App for Playground {
    fn about(&self) -> Value {
        let names: Vec<&str> = self.classes.iter().map(|(_, name)| name.as_str()).collect();
        json!({ "name": self.name, "classes": names, "threshold": self.threshold })
    }

    fn answer(&mut self, question: &Question) -> Result<Value> {
        match question.name.as_str() {
            "detect" => self.detect(question),
            "coco" => self.coco(question),
            other => bail!("there is no question {other:?}"),
        }
    }
}

/// (height, width) of a picture as the page shows it.
fn shown_size((height, width): (usize, usize)) -> (usize, usize) {
    let scale = (SHOWN as f64 / height.max(width) as f64).min(1.0);
    let side = |side: usize| ((side as f64 * scale).round() as usize).max(1);
    (side(height), side(width))
}

/// An object, its mask as runs row by row inside of the smallest box around it, the first of what
/// is outside.
fn object(found: &Detection) -> Value {
    let mask = found.mask.as_ref().map(|mask| {
        let bitmap = mask.decode();
        let [x, y, width, height] = mask.bounding_box().map(|side| side as usize);
        let rows = bitmap.pixels.chunks(bitmap.width.max(1)).skip(y).take(height);
        let inside = rows.flat_map(|row| row[x..x + width].iter().map(|&pixel| pixel != 0));
        json!({ "x": x, "y": y, "width": width, "height": height, "runs": runs(inside) })
    });
    json!({ "class": found.class, "score": found.score, "box": found.bbox, "mask": mask })
}

/// Lengths of what is alike, beginning with what is false.
fn runs(values: impl Iterator<Item = bool>) -> Vec<u32> {
    let mut runs = vec![0];
    let mut last = false;
    for value in values {
        if value != last {
            runs.push(0);
            last = value;
        }
        if let Some(run) = runs.last_mut() {
            *run += 1;
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_begin_with_what_is_outside() {
        assert_eq!(runs([true, true, false, true].into_iter()), [0, 2, 1, 1]);
        assert_eq!(runs([false, true].into_iter()), [1, 1]);
        assert_eq!(runs(std::iter::empty()), [0]);
    }

    #[test]
    fn large_pictures_are_shown_smaller_and_small_ones_as_they_are() {
        assert_eq!(shown_size((3000, 4000)), (768, 1024));
        assert_eq!(shown_size((20, 5000)), (4, 1024));
        assert_eq!(shown_size((1, 9000)), (1, 1024));
        assert_eq!(shown_size((480, 640)), (480, 640));
    }
}
