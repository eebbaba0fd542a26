//! One picture: a background, things on it, and what can be seen of each.

use data::rng::Rng;
use image::RgbImage;

use super::paint::{self, Fill};
use super::photos::Photos;
use super::raster::{self, Coverage};
use super::shapes::{self, Outline, Shape};
use crate::Result;
use crate::structures::Bitmap;

/// At least this share of every object stays visible.
const VISIBLE: f64 = 0.55;
/// Places tried for a thing before it is left out.
const TRIES: usize = 30;
/// An object's radius as a share of the picture's short side.
const RADIUS: (f64, f64) = (0.13, 0.28);
/// A radius in a crowd, as a share of the picture's short side.
const CROWD_RADIUS: (f64, f64) = (0.03, 0.045);

/// What a picture shows.
pub(super) struct Plan {
    /// (height, width).
    pub(super) size: (usize, usize),
    /// The classes of its objects.
    pub(super) objects: Vec<Shape>,
    /// The class of a crowd.
    pub(super) crowd: Option<Shape>,
    /// Things of no class.
    pub(super) clutter: usize,
}

/// An object or a crowd that can be seen.
pub(super) struct Visible {
    pub(super) shape: Shape,
    pub(super) crowd: bool,
    /// What can be seen of it.
    pub(super) mask: Bitmap,
    /// Its edge, where all of it can be seen and it has no hole.
    pub(super) outline: Option<Outline>,
}

/// What lies on the background, the last on top.
struct Thing {
    /// Of no class if none.
    shape: Option<Shape>,
    crowd: bool,
    outline: Option<Outline>,
    /// Where it is, hidden or not.
    mask: Bitmap,
    /// Pixels it has, those outside the picture included.
    area: f64,
}

/// Paints what `plan` says.
pub(super) fn draw(
    plan: &Plan,
    photos: &Photos,
    rng: &mut Rng,
) -> Result<(RgbImage, Vec<Visible>)> {
    let (height, width) = plan.size;
    let mut scene =
        Scene { picture: photos.cut(width, height, rng)?, size: plan.size, things: Vec::new() };
    if let Some(shape) = plan.crowd {
        scene.add_crowd(shape, photos, rng)?;
    }
    let mut order: Vec<Option<Shape>> = plan.objects.iter().map(|&shape| Some(shape)).collect();
    order.extend(std::iter::repeat_n(None, plan.clutter));
    rng.shuffle(&mut order);
    for shape in order {
        scene.add(shape, photos, rng)?;
    }
    Ok((scene.picture, visible(&scene.things, plan.size)))
}

struct Scene {
    picture: RgbImage,
    size: (usize, usize),
    things: Vec<Thing>,
}

impl Scene {
    /// Puts a thing where it leaves enough of the others to be seen; leaves it out if no such
    /// place is found.
    fn add(&mut self, shape: Option<Shape>, photos: &Photos, rng: &mut Rng) -> Result<()> {
        for _ in 0..TRIES {
            let radius = rng.between(RADIUS.0, RADIUS.1) * self.short_side();
            let centre = self.place(rng, 0.08);
            let outline = match shape {
                Some(shape) => shape.draw(centre, radius, rng),
                None => shapes::clutter(centre, radius * 0.8, rng),
            };
            let Some(coverage) = Coverage::of(&outline, self.size)? else { continue };
            let mask = coverage.mask(self.size);
            let area = outline.area();
            let thing = Thing { shape, crowd: false, outline: Some(outline), mask, area };
            if (thing.mask.area() as f64) < VISIBLE * area || self.hides_too_much(&thing.mask) {
                continue;
            }
            self.paint(&coverage, shape.map(Shape::hue), photos, rng)?;
            self.things.push(thing);
            break;
        }
        Ok(())
    }

    /// Puts many small things of one class side by side.
    fn add_crowd(&mut self, shape: Shape, photos: &Photos, rng: &mut Rng) -> Result<()> {
        let short = self.short_side();
        let centre = self.place(rng, 0.25);
        let mut masks = Vec::new();
        for _ in 0..10 + rng.below(8) {
            let spread = 0.2 * short;
            let at = (
                centre.0 + rng.between(-1.4 * spread, 1.4 * spread),
                centre.1 + rng.between(-spread, spread),
            );
            let radius = rng.between(CROWD_RADIUS.0, CROWD_RADIUS.1) * short;
            let Some(coverage) = Coverage::of(&shape.draw(at, radius, rng), self.size)? else {
                continue;
            };
            self.paint(&coverage, Some(shape.hue()), photos, rng)?;
            masks.push(coverage.mask(self.size));
        }
        if !masks.is_empty() {
            let mask = raster::union(masks.into_iter())?;
            let area = mask.area() as f64;
            let shape = Some(shape);
            self.things.push(Thing { shape, crowd: true, outline: None, mask, area });
        }
        Ok(())
    }

    fn paint(
        &mut self,
        coverage: &Coverage,
        hue: Option<f64>,
        photos: &Photos,
        rng: &mut Rng,
    ) -> Result<()> {
        let behind = paint::mean_under(&self.picture, coverage);
        let fill = Fill::draw(behind, hue, (coverage.width, coverage.height), photos, rng)?;
        paint::paint(&mut self.picture, coverage, &fill);
        Ok(())
    }

    fn short_side(&self) -> f64 {
        self.size.0.min(self.size.1) as f64
    }

    /// A point at least `margin` of the sides away from the edges.
    fn place(&self, rng: &mut Rng, margin: f64) -> (f64, f64) {
        let (height, width) = (self.size.0 as f64, self.size.1 as f64);
        let x = rng.between(margin, 1.0 - margin) * width;
        (x, rng.between(margin, 1.0 - margin) * height)
    }

    /// Whether `mask` on top would leave too little of an object.
    fn hides_too_much(&self, mask: &Bitmap) -> bool {
        self.things.iter().enumerate().filter(|(_, thing)| thing.shape.is_some()).any(
            |(place, thing)| {
                let above = self.things[place + 1..].iter().map(|other| &other.mask);
                let seen = raster::visible(&thing.mask, above.chain([mask]));
                (seen.area() as f64) < VISIBLE * thing.area
            },
        )
    }
}

/// What can be seen of the objects and crowds.
fn visible(things: &[Thing], (height, width): (usize, usize)) -> Vec<Visible> {
    let objects = things.iter().enumerate().filter_map(|(place, thing)| {
        let above = things[place + 1..].iter().map(|other| &other.mask);
        let mask = raster::visible(&thing.mask, above);
        let is_whole = |outline: &&Outline| {
            outline.hole.is_empty() && outline.is_inside(width, height) && mask == thing.mask
        };
        let outline = thing.outline.as_ref().filter(is_whole).cloned();
        Some(Visible { shape: thing.shape?, crowd: thing.crowd, mask, outline })
    });
    objects.collect()
}
