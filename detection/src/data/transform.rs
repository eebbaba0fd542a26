//! Augmentation as data: what is done to an image and its objects together.

use data::rng::Rng;
use data::{CropBox, Image, Interpolation};
use serde::{Deserialize, Serialize};

use super::objects::Objects;
use crate::{Error, Result};

/// One step of an augmentation. Images are resized with the triangle filter, widened when
/// shrinking, as Pillow does for detectron2; mmdet's OpenCV takes the four nearest pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Augmentation {
    /// detectron2's `ResizeShortestEdge`, mmdet's `RandomChoiceResize`: the short side becomes one
    /// of `short`, or less where the long side would exceed `max`.
    ResizeShortestEdge {
        /// Short sides to draw from, in pixels.
        short: Vec<usize>,
        /// The longest long side, in pixels.
        max: usize,
    },
    /// detectron2's `RandomFlip`: left and right change places.
    Flip {
        /// How often, 0 to 1.
        probability: f64,
    },
    /// mmdet's `RandomCrop` of the kind `absolute_range`: a part with each side drawn from
    /// `low..=high`, or the image's side where that is less, anywhere in the image.
    Crop {
        /// The smallest side, in pixels.
        low: usize,
        /// The largest side, in pixels.
        high: usize,
    },
    /// detectron2's `ResizeScale` and `FixedSizeCrop` (large-scale jitter of "Simple copy-paste",
    /// Ghiasi et al. 2021): the image is scaled to fit `height` × `width` times a factor from
    /// `low..high`, and what exceeds `height` × `width` is cut off anywhere.
    ScaleJitter {
        /// The smallest factor.
        low: f64,
        /// The largest factor.
        high: f64,
        /// Rows, at most.
        height: usize,
        /// Columns, at most.
        width: usize,
    },
    /// mmdet's `RandomChoice`: one of several lists of steps, each as likely as the others.
    OneOf(Vec<Vec<Augmentation>>),
}

/// An image under way.
struct Scene {
    image: Image,
    objects: Objects,
}

impl Augmentation {
    fn check(&self) -> Result<()> {
        let refuse = |operand: &str, value: String, rule: &str| {
            Err(Error::invalid(format!("augmentation: {operand}"), value, rule))
        };
        match self {
            Self::ResizeShortestEdge { short, max } => {
                if short.is_empty() || short.iter().any(|&side| side == 0 || side > *max) {
                    let rule = format!("sides from 1 to the long side's limit of {max} are needed");
                    return refuse("short sides", format!("{short:?}"), &rule);
                }
            }
            Self::Flip { probability } => {
                if !(0.0..=1.0).contains(probability) {
                    return refuse("flip probability", probability.to_string(), "it is in 0..=1");
                }
            }
            Self::Crop { low, high } => {
                if *low == 0 || low > high {
                    let rule = "0 < low <= high is needed";
                    return refuse("crop sides (low, high)", format!("({low}, {high})"), rule);
                }
            }
            Self::ScaleJitter { low, high, height, width } => {
                if !(*low > 0.0 && low <= high && high.is_finite()) {
                    let rule = "0 < low <= high is needed";
                    return refuse("jitter (low, high)", format!("({low}, {high})"), rule);
                }
                if *height == 0 || *width == 0 {
                    let rule = "both sides must be at least 1";
                    return refuse("jitter size", format!("{height}×{width}"), rule);
                }
            }
            Self::OneOf(choices) => {
                if choices.is_empty() {
                    return refuse("choices", "[]".into(), "at least one is needed");
                }
                choices.iter().flatten().try_for_each(Augmentation::check)?;
            }
        }
        Ok(())
    }

    /// The smallest that an image of `size` (height, width) may come out.
    fn smallest(&self, size: (usize, usize)) -> (usize, usize) {
        let (rows, columns) = size;
        match self {
            Self::ResizeShortestEdge { short, max } => {
                shortest_edge(size, short.iter().copied().min().unwrap_or(*max), *max)
            }
            Self::Flip { .. } => size,
            Self::Crop { low, .. } => (rows.min(*low), columns.min(*low)),
            Self::ScaleJitter { low, height, width, .. } => {
                let (rows, columns) = jittered(size, *low, (*height, *width));
                (rows.min(*height), columns.min(*width))
            }
            Self::OneOf(choices) => {
                let after = |steps: &Vec<Self>| steps.iter().fold(size, |s, step| step.smallest(s));
                let sizes = choices.iter().map(after);
                sizes.min_by_key(|(rows, columns)| *rows.max(columns)).unwrap_or(size)
            }
        }
    }

    fn apply(&self, scene: &mut Scene, rng: &mut Rng) -> Result<()> {
        match self {
            Self::ResizeShortestEdge { short, max } => {
                let short = short[rng.below(short.len())];
                scene.resize(shortest_edge(scene.size(), short, *max))
            }
            Self::Flip { probability } => {
                if rng.uniform() < *probability {
                    scene.image = scene.image.flip_horizontal();
                    scene.objects.flip_horizontal(scene.image.width());
                }
                Ok(())
            }
            Self::Crop { low, high } => {
                let (height, width) = scene.size();
                let mut draw = |side: usize| {
                    let (low, high) = (side.min(*low), side.min(*high));
                    low + rng.below(high - low + 1)
                };
                let (rows, columns) = (draw(height), draw(width));
                let top = rng.below(height - rows + 1);
                let left = rng.below(width - columns + 1);
                scene.crop(CropBox { top, left, height: rows, width: columns })
            }
            Self::ScaleJitter { low, high, height, width } => {
                let factor = rng.between(*low, *high);
                scene.resize(jittered(scene.size(), factor, (*height, *width)))?;
                let (rows, columns) = scene.size();
                let area = (rows.min(*height), columns.min(*width));
                let top = rng.below(rows - area.0 + 1);
                let left = rng.below(columns - area.1 + 1);
                scene.crop(CropBox { top, left, height: area.0, width: area.1 })
            }
            Self::OneOf(choices) => {
                let steps = &choices[rng.below(choices.len())];
                steps.iter().try_for_each(|step| step.apply(scene, rng))
            }
        }
    }
}

/// `size` scaled to fit `into` times `factor`; all are (height, width).
fn jittered(size: (usize, usize), factor: f64, into: (usize, usize)) -> (usize, usize) {
    let scale = factor * (into.0 as f64 / size.0 as f64).min(into.1 as f64 / size.1 as f64);
    let scaled = |side: usize| ((side as f64 * scale).round() as usize).max(1);
    (scaled(size.0), scaled(size.1))
}

impl Scene {
    /// (height, width).
    fn size(&self) -> (usize, usize) {
        (self.image.height(), self.image.width())
    }

    fn resize(&mut self, size: (usize, usize)) -> Result<()> {
        let from = self.size();
        if size != from {
            self.image = self.image.resize(size, Interpolation::Bilinear)?;
            self.objects.resize(from, size);
        }
        Ok(())
    }

    fn crop(&mut self, area: CropBox) -> Result<()> {
        if (area.height, area.width) != self.size() {
            self.image = self.image.crop(area)?;
            self.objects.crop(area);
        }
        Ok(())
    }
}

/// detectron2's `ResizeShortestEdge.get_output_shape`: of an image of (height, width), its short
/// side becoming `short` unless its long side would exceed `max`. Halves round up.
pub(super) fn shortest_edge(
    (height, width): (usize, usize),
    short: usize,
    max: usize,
) -> (usize, usize) {
    let (short, max) = (short as f64, max as f64);
    let (height, width) = (height as f64, width as f64);
    let scale = short / height.min(width);
    // The short side is set, not computed, so that it can't miss by a rounding.
    let (mut height, mut width) =
        if height < width { (short, scale * width) } else { (scale * height, short) };
    if height.max(width) > max {
        let scale = max / height.max(width);
        (height, width) = (height * scale, width * scale);
    }
    let whole = |side: f64| ((side + 0.5) as usize).max(1);
    (whole(height), whole(width))
}

/// What training images go through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Augmentation>", into = "Vec<Augmentation>")]
pub struct TrainTransform {
    steps: Vec<Augmentation>,
}

impl TrainTransform {
    /// `steps`, one after the other.
    ///
    /// # Errors
    /// [`Error::Input`] for a step whose numbers make no sense.
    pub fn new(steps: Vec<Augmentation>) -> Result<Self> {
        steps.iter().try_for_each(Augmentation::check)?;
        Ok(Self { steps })
    }

    /// detectron2's: the short side one of `short`, the long side at most `max`; then a flip half
    /// of the times.
    ///
    /// # Errors
    /// [`Error::Input`] when there is no short side, or one is 0 or above `max`.
    pub fn multi_scale(short: Vec<usize>, max: usize) -> Result<Self> {
        let resize = Augmentation::ResizeShortestEdge { short, max };
        Self::new(vec![resize, Augmentation::Flip { probability: 0.5 }])
    }

    /// SparK's recipe for ResNet in detectron2: short side 480, 512, …, 896, long side at most
    /// 1333, flip.
    pub fn detectron2() -> Self {
        Self {
            steps: vec![
                Augmentation::ResizeShortestEdge {
                    short: (480..=896).step_by(32).collect(),
                    max: 1333,
                },
                Augmentation::Flip { probability: 0.5 },
            ],
        }
    }

    /// SparK's recipe for ConvNeXt in mmdet: flip, then the short side to one of 480, 512, …, 800,
    /// or to 400, 500 or 600, a crop of 384 to 600 pixels a side, and the first resize.
    pub fn mmdet() -> Self {
        let resize = Augmentation::ResizeShortestEdge {
            short: (480..=800).step_by(32).collect(),
            max: 1333,
        };
        let first = Augmentation::ResizeShortestEdge { short: vec![400, 500, 600], max: 1333 };
        let crop = Augmentation::Crop { low: 384, high: 600 };
        Self {
            steps: vec![
                Augmentation::Flip { probability: 0.5 },
                Augmentation::OneOf(vec![vec![resize.clone()], vec![first, crop, resize]]),
            ],
        }
    }

    /// The steps.
    pub fn steps(&self) -> &[Augmentation] {
        &self.steps
    }

    /// The smallest that an image of `size` (height, width) may come out.
    pub fn smallest(&self, size: (usize, usize)) -> (usize, usize) {
        self.steps.iter().fold(size, |size, step| step.smallest(size))
    }

    /// Applies them to an image and its objects, with all randomness from `rng`. Boxes end at the
    /// image's edges, and objects of which nothing is left are dropped.
    ///
    /// # Errors
    /// [`Error::Engine`] when a resize is refused: the image's size is beyond 2³².
    pub fn apply(&self, image: Image, objects: Objects, rng: &mut Rng) -> Result<(Image, Objects)> {
        let mut scene = Scene { image, objects };
        self.steps.iter().try_for_each(|step| step.apply(&mut scene, rng))?;
        let size = scene.size();
        scene.objects.clip(size);
        Ok((scene.image, scene.objects))
    }
}

impl TryFrom<Vec<Augmentation>> for TrainTransform {
    type Error = Error;

    fn try_from(steps: Vec<Augmentation>) -> Result<Self> {
        Self::new(steps)
    }
}

impl From<TrainTransform> for Vec<Augmentation> {
    fn from(transform: TrainTransform) -> Self {
        transform.steps
    }
}

/// What images go through for evaluation and prediction: detectron2's `ResizeShortestEdge` of
/// one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalTransform {
    /// The short side, in pixels.
    pub short: usize,
    /// The longest long side, in pixels.
    pub max: usize,
}

impl EvalTransform {
    /// COCO's usual size, 800 and 1333.
    pub fn coco() -> Self {
        Self { short: 800, max: 1333 }
    }

    /// Resizes `image`.
    ///
    /// # Errors
    /// [`Error::Input`] when a side is 0 or `short` above `max`, and what the resize refuses.
    pub fn apply(&self, image: Image) -> Result<Image> {
        Ok(self.apply_with(image, Objects::default())?.0)
    }

    /// Resizes `image` and its objects.
    ///
    /// # Errors
    /// As [`EvalTransform::apply`].
    pub fn apply_with(&self, image: Image, objects: Objects) -> Result<(Image, Objects)> {
        let steps =
            vec![Augmentation::ResizeShortestEdge { short: vec![self.short], max: self.max }];
        TrainTransform::new(steps)?.apply(image, objects, &mut Rng::new(0, &[]))
    }
}

#[cfg(test)]
mod tests;
