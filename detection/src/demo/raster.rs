//! Outlines as pixels.

use super::shapes::Outline;
use crate::structures::{Bitmap, InstanceMask};
use crate::{Error, Result};

/// Samples along a pixel's side.
const FINE: usize = 4;

/// How much of each pixel of an image an outline covers, within its bounding box.
pub(super) struct Coverage {
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) width: usize,
    pub(super) height: usize,
    /// Covered samples of each pixel, of `FINE²`.
    samples: Vec<u8>,
}

impl Coverage {
    /// Of `outline` in an image of `size` = (height, width); none if it covers no pixel.
    pub(super) fn of(outline: &Outline, size: (usize, usize)) -> Result<Option<Coverage>> {
        let (xs, ys) = (outline.outer.iter().map(|p| p.0), outline.outer.iter().map(|p| p.1));
        let Some((left, right)) = span(xs, size.1) else { return Ok(None) };
        let Some((top, bottom)) = span(ys, size.0) else { return Ok(None) };
        let (width, height) = (right - left, bottom - top);
        let fine = |corners: &[(f64, f64)]| -> Result<Bitmap> {
            let flat = corners
                .iter()
                .flat_map(|&(x, y)| [(x - left as f64), (y - top as f64)])
                .map(|value| value * FINE as f64)
                .collect();
            InstanceMask::Polygons(vec![flat]).to_bitmap((height * FINE, width * FINE))
        };
        let mut covered = fine(&outline.outer)?;
        if !outline.hole.is_empty() {
            let hole = fine(&outline.hole)?;
            covered.pixels.iter_mut().zip(hole.pixels).for_each(|(pixel, hole)| {
                *pixel &= 1 - hole;
            });
        }
        let mut samples = vec![0u8; width * height];
        for (place, &sample) in covered.pixels.iter().enumerate() {
            let (row, column) = (place / (width * FINE), place % (width * FINE));
            samples[row / FINE * width + column / FINE] += sample;
        }
        Ok(Some(Coverage { left, top, width, height, samples }))
    }

    /// Column and row from the corner, and the share covered, of each pixel with any.
    pub(super) fn cells(&self) -> impl Iterator<Item = (usize, usize, f32)> {
        let all = (FINE * FINE) as f32;
        let cells = self.samples.iter().enumerate();
        cells.filter(|(_, samples)| **samples > 0).map(move |(place, &samples)| {
            (place % self.width, place / self.width, f32::from(samples) / all)
        })
    }

    /// The pixels of the image that are covered by half or more.
    pub(super) fn mask(&self, (height, width): (usize, usize)) -> Bitmap {
        let mut mask = Bitmap::empty(height, width);
        for (x, y, share) in self.cells() {
            if share >= 0.5 {
                mask.pixels[(y + self.top) * width + x + self.left] = 1;
            }
        }
        mask
    }
}

/// The whole pixels that `values` reach over, of those in 0..`most`.
fn span(values: impl Iterator<Item = f64>, most: usize) -> Option<(usize, usize)> {
    let (low, high) =
        values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    let (low, high) = (low.floor().max(0.0) as usize, (high.ceil().max(0.0) as usize).min(most));
    (low < high).then_some((low, high))
}

/// What of `mask` no other of `above` hides.
pub(super) fn visible<'a>(mask: &Bitmap, above: impl Iterator<Item = &'a Bitmap>) -> Bitmap {
    let mut seen = mask.clone();
    for other in above {
        seen.pixels.iter_mut().zip(&other.pixels).for_each(|(pixel, hidden)| *pixel &= 1 - hidden);
    }
    seen
}

/// The union of masks of one size.
pub(super) fn union(mut masks: impl Iterator<Item = Bitmap>) -> Result<Bitmap> {
    let first = masks.next();
    let mut all = first.ok_or_else(|| Error::invalid("masks to join", 0, "one is needed"))?;
    for mask in masks {
        all.pixels.iter_mut().zip(&mask.pixels).for_each(|(pixel, &other)| *pixel |= other);
    }
    Ok(all)
}
