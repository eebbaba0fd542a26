//! Masks as run lengths, cut out, mirrored and scaled run by run: a mask costs what its outline
//! has, however large its image is.

use hotcoco::Rle;

use super::Bitmap;

/// Set pixels of one column without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    column: usize,
    /// The first row.
    top: usize,
    /// The row after the last.
    bottom: usize,
}

/// The part of a mask that has all its set pixels.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cutout {
    /// Columns of the mask before it.
    pub left: usize,
    /// Rows of the mask before it.
    pub top: usize,
    /// Its pixels.
    pub pixels: Bitmap,
}

/// Mirrored left to right.
pub(crate) fn flip_horizontal(mask: &Rle) -> Rle {
    let mut flipped = Runs::new(mask.h as usize, mask.w as usize);
    let segments = segments(mask);
    for column in segments.chunk_by(|a, b| a.column == b.column).rev() {
        for &segment in column {
            flipped.push(Segment { column: mask.w as usize - 1 - segment.column, ..segment });
        }
    }
    flipped.finish()
}

/// The rectangle from `(left, top)`; nothing beyond the mask.
pub(crate) fn crop(mask: &Rle, left: usize, top: usize, height: usize, width: usize) -> Rle {
    let mut cropped = Runs::new(height, width);
    let bottom = top.saturating_add(height);
    for segment in segments(mask) {
        let (first, last) = (segment.top.max(top), segment.bottom.min(bottom));
        if (left..left.saturating_add(width)).contains(&segment.column) && first < last {
            let column = segment.column - left;
            cropped.push(Segment { column, top: first - top, bottom: last - top });
        }
    }
    cropped.finish()
}

/// Every pixel takes the value of the one that its centre falls into, as
/// [`nearest_source`] has it.
pub(crate) fn resize_nearest(mask: &Rle, height: usize, width: usize) -> Rle {
    let mut resized = Runs::new(height, width);
    let (rows, columns) =
        (first_targets(mask.h as usize, height), first_targets(mask.w as usize, width));
    for column in segments(mask).chunk_by(|a, b| a.column == b.column) {
        let source = column[0].column;
        for target in columns[source]..columns[source + 1] {
            for segment in column {
                let (top, bottom) = (rows[segment.top], rows[segment.bottom]);
                resized.push(Segment { column: target, top, bottom });
            }
        }
    }
    resized.finish()
}

/// Of `from` pixels, the one that pixel `at` of `to` takes its value from (Pillow's and torch's
/// `nearest-exact`).
pub(crate) fn nearest_source(at: usize, from: usize, to: usize) -> usize {
    (((at as f64 + 0.5) * from as f64 / to as f64) as usize).min(from - 1)
}

/// For each of `from` pixels, and the end, the first of `to` pixels that takes its value from it
/// or a later one.
fn first_targets(from: usize, to: usize) -> Vec<usize> {
    let mut firsts = Vec::with_capacity(from + 1);
    for target in 0..if from == 0 { 0 } else { to } {
        let reached = nearest_source(target, from, to) + 1;
        firsts.resize(reached.max(firsts.len()), target);
    }
    firsts.resize(from + 1, to);
    firsts
}

/// The smallest rectangle around the set pixels; one without area if there are none.
pub(crate) fn cut_out(mask: &Rle) -> Cutout {
    let segments = segments(mask);
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
        return Cutout { left: 0, top: 0, pixels: Bitmap::empty(0, 0) };
    };
    let (left, right) = (first.column, last.column + 1);
    let top = segments.iter().map(|segment| segment.top).min().unwrap_or(0);
    let bottom = segments.iter().map(|segment| segment.bottom).max().unwrap_or(0);
    let pixels = paint(&segments, (left, top), (bottom - top, right - left));
    Cutout { left, top, pixels }
}

/// All pixels.
pub(crate) fn decode(mask: &Rle) -> Bitmap {
    paint(&segments(mask), (0, 0), (mask.h as usize, mask.w as usize))
}

/// A mask of (height, width) from a rectangle of its pixels, given column by column, `rows` each,
/// from `(left, top)` on; nothing is set outside.
pub(crate) fn from_columns(
    pixels: &[u8],
    rows: usize,
    (left, top): (usize, usize),
    (height, width): (usize, usize),
) -> Rle {
    let mut runs = Runs::new(height, width);
    for (at, column) in pixels.chunks_exact(rows.max(1)).enumerate() {
        let mut row = 0;
        for run in column.chunk_by(|a, b| (*a != 0) == (*b != 0)) {
            if run[0] != 0 {
                let first = top + row;
                runs.push(Segment { column: left + at, top: first, bottom: first + run.len() });
            }
            row += run.len();
        }
    }
    runs.finish()
}

fn paint(
    segments: &[Segment],
    (left, top): (usize, usize),
    (height, width): (usize, usize),
) -> Bitmap {
    let mut bitmap = Bitmap::empty(height, width);
    for segment in segments {
        let first = (segment.top - top) * width + segment.column - left;
        let rows = bitmap.pixels[first..].iter_mut().step_by(width);
        rows.take(segment.bottom - segment.top).for_each(|pixel| *pixel = 1);
    }
    bitmap
}

/// The set pixels, column by column, top down. Runs beyond the mask's last pixel count for
/// nothing, and so do pixels that no run reaches.
fn segments(mask: &Rle) -> Vec<Segment> {
    let (height, pixels) = (mask.h as usize, mask.h as usize * mask.w as usize);
    let mut segments = Vec::with_capacity(mask.counts.len());
    let mut at = 0usize;
    for (number, &run) in mask.counts.iter().enumerate() {
        let end = at.saturating_add(run as usize).min(pixels);
        while number % 2 == 1 && at < end {
            let (column, top) = (at / height, at % height);
            let bottom = height.min(top + end - at);
            segments.push(Segment { column, top, bottom });
            at += bottom - top;
        }
        at = end;
    }
    segments
}

/// Run lengths as they grow.
struct Runs {
    height: usize,
    width: usize,
    counts: Vec<u32>,
    /// The pixel after the last run, in the order of the columns.
    end: usize,
}

impl Runs {
    fn new(height: usize, width: usize) -> Self {
        Self { height, width, counts: Vec::new(), end: 0 }
    }

    /// Adds pixels that come after all those added before.
    fn push(&mut self, segment: Segment) {
        if segment.top >= segment.bottom {
            return;
        }
        let start = segment.column * self.height + segment.top;
        let length = (segment.bottom - segment.top) as u32;
        match self.counts.last_mut() {
            Some(last) if start == self.end => *last += length,
            _ => self.counts.extend([(start - self.end) as u32, length]),
        }
        self.end = start + length as usize;
    }

    /// With the pixels after the last run, as COCO's encoder writes them.
    fn finish(mut self) -> Rle {
        let rest = self.height * self.width - self.end;
        if rest > 0 || self.counts.is_empty() {
            self.counts.push(rest as u32);
        }
        Rle { h: self.height as u32, w: self.width as u32, counts: self.counts }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::structures::InstanceMask;

    /// Bitmaps of every density, in all proportions.
    fn bitmaps() -> impl Strategy<Value = Bitmap> {
        (1usize..14, 1usize..14, 0u8..=10).prop_flat_map(|(height, width, density)| {
            let pixel = (0u8..10).prop_map(move |drawn| u8::from(drawn < density));
            let pixels = prop::collection::vec(pixel, height * width);
            pixels.prop_map(move |pixels| Bitmap { height, width, pixels })
        })
    }

    /// Both forms of one mask.
    fn both(bitmap: &Bitmap) -> (InstanceMask, InstanceMask) {
        (InstanceMask::Bitmap(bitmap.clone()), InstanceMask::Rle(bitmap.to_rle().unwrap()))
    }

    /// The same pixels, and run lengths as COCO's encoder writes them.
    fn assert_same(dense: &InstanceMask, runs: &InstanceMask) {
        let (InstanceMask::Bitmap(bitmap), InstanceMask::Rle(rle)) = (dense, runs) else {
            panic!("{dense:?} {runs:?}");
        };
        assert_eq!(&Bitmap::from_rle(rle), bitmap);
        assert_eq!(rle, &bitmap.to_rle().unwrap());
        assert_eq!(runs.bounding_box(), dense.bounding_box());
    }

    proptest! {
        /// Whatever is done to run lengths gives what it gives pixel by pixel.
        #[test]
        fn runs_are_what_pixels_are(
            bitmap in bitmaps(),
            (height, width) in (1usize..30, 1usize..30),
            (left, top) in (0usize..16, 0usize..16),
            area in prop::array::uniform4(-4.0f64..18.0),
            side in 1usize..8,
        ) {
            let (dense, runs) = both(&bitmap);
            let flipped = (dense.flip_horizontal(1.0), runs.flip_horizontal(1.0));
            let size = (height, width);
            let scaled = (dense.scale(1.0, 1.0, size), runs.scale(1.0, 1.0, size));
            let cropped =
                (dense.crop(left, top, height, width), runs.crop(left, top, height, width));
            for (dense, runs) in [flipped, scaled, cropped] {
                assert_same(&dense, &runs);
                prop_assert_eq!(
                    dense.crop_and_resize(area, side),
                    runs.crop_and_resize(area, side)
                );
            }
            prop_assert_eq!(from_columns(&columns(&bitmap), bitmap.height, (0, 0),
                (bitmap.height, bitmap.width)), bitmap.to_rle().unwrap());
        }

        /// Runs that no encoder writes are read as pycocotools reads them: empty ones join their
        /// neighbours, missing ones are background.
        #[test]
        fn any_run_lengths_are_read(
            counts in prop::collection::vec(prop::sample::select(vec![0u32, 1, 2, 5, 60, u32::MAX]), 0..9),
            (h, w) in (0u32..9, 0u32..9),
        ) {
            let mask = Rle { h, w, counts };
            let expected = hotcoco::mask::decode(&mask);
            prop_assert_eq!(columns(&decode(&mask)), expected);
            let cutout = cut_out(&mask);
            prop_assert_eq!(cutout.pixels.area(), decode(&mask).area());
            resize_nearest(&mask, 3, 5);
            flip_horizontal(&mask);
            crop(&mask, 1, 2, 3, 4);
        }
    }

    fn columns(bitmap: &Bitmap) -> Vec<u8> {
        let column =
            |x: usize| (0..bitmap.height).map(move |y| bitmap.pixels[y * bitmap.width + x]);
        (0..bitmap.width).flat_map(column).collect()
    }

    #[test]
    fn a_part_of_the_mask_has_all_of_its_pixels() {
        let mut bitmap = Bitmap::empty(5, 7);
        for (x, y) in [(2, 1), (3, 1), (3, 2), (4, 3)] {
            bitmap.pixels[y * 7 + x] = 1;
        }
        let cutout = cut_out(&bitmap.to_rle().unwrap());
        let pixels = vec![1, 1, 0, 0, 1, 0, 0, 0, 1];
        let expected = Bitmap { height: 3, width: 3, pixels };
        assert_eq!(cutout, Cutout { left: 2, top: 1, pixels: expected });
    }
}
