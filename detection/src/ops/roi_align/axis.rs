//! Where the bins of a region take their samples along one axis.

use std::cmp::Ordering;
use std::ops::Range;

use tch::Kind;

/// The arithmetic that places samples: rounding moves a sample across the border
/// of a map, or changes the number of samples of a bin, so it is part of the
/// definition. float64 operations rounded to float32 are float32 operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoordinatePrecision {
    /// float32.
    Single,
    /// float64.
    Double,
}

impl CoordinatePrecision {
    /// That of maps of `kind`.
    pub fn of(kind: Kind) -> Self {
        if kind == Kind::Double { CoordinatePrecision::Double } else { CoordinatePrecision::Single }
    }

    /// `value` as this arithmetic stores it.
    pub fn round(self, value: f64) -> f64 {
        match self {
            CoordinatePrecision::Single => f64::from(value as f32),
            CoordinatePrecision::Double => value,
        }
    }
}

/// What the axes of all regions of a call have in common.
#[derive(Debug, Clone, Copy)]
pub struct Sampling {
    /// Cells of the map per pixel of the image.
    pub scale: f64,
    /// Samples of a bin; adaptive (about one a cell) where it is not positive.
    pub ratio: i64,
    /// Whether pixel centres lie at half coordinates.
    pub aligned: bool,
    /// The arithmetic of the positions.
    pub precision: CoordinatePrecision,
}

/// The weights of cells in each bin of a region, along one axis: an average of
/// linear interpolations at evenly spaced samples.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Axis {
    /// Bin b consists of the cells from `starts[b]` to `starts[b + 1]`.
    starts: Vec<usize>,
    /// Cell and weight; each cell once a bin, in no particular order.
    cells: Vec<(usize, f64)>,
}

impl Axis {
    /// The axis of a region from `low` to `high` pixels, in `bins` bins, on a map
    /// of `size` cells. A sample more than one cell outside the map counts as 0.
    pub fn new(low: f64, high: f64, bins: usize, size: usize, sampling: &Sampling) -> Self {
        let mut axis = Self { starts: vec![0], cells: Vec::new() };
        let round = |value: f64| sampling.precision.round(value);
        let shift = if sampling.aligned { 0.5 } else { 0.0 };
        let scaled = |pixel: f64| round(round(round(pixel) * round(sampling.scale)) - shift);
        let (low, high) = (scaled(low), scaled(high));
        let mut length = round(high - low);
        if !sampling.aligned && length < 1.0 {
            length = 1.0;
        }
        let bin = round(length / bins as f64);
        // Saturates; 0 for a length that is no number.
        let samples = if sampling.ratio > 0 { sampling.ratio } else { bin.ceil() as i64 };
        for index in 0..bins {
            let start = round(low + round(index as f64 * bin));
            for sample in within_reach(start, bin, samples, size) {
                let step = round(round((sample as f64 + 0.5) * bin) / samples as f64);
                axis.add_sample(round(start + step), 1.0 / samples as f64, size);
            }
            axis.starts.push(axis.cells.len());
        }
        axis
    }

    /// Cells and weights of `bin`.
    pub fn bin(&self, bin: usize) -> &[(usize, f64)] {
        &self.cells[self.starts[bin]..self.starts[bin + 1]]
    }

    /// How many cells and weights all bins have together.
    pub fn total(&self) -> usize {
        self.cells.len()
    }

    /// Interpolates between the two cells around `position`.
    fn add_sample(&mut self, position: f64, weight: f64, size: usize) {
        // The comparison is also false for what is no number.
        if !(-1.0..=size as f64).contains(&position) {
            return;
        }
        let position = position.max(0.0);
        let low = position as usize;
        if low + 1 >= size {
            return self.add_cell(size - 1, weight);
        }
        let share = position - low as f64;
        self.add_cell(low, weight * (1.0 - share));
        self.add_cell(low + 1, weight * share);
    }

    /// Adds to a cell of the bin that is being built.
    fn add_cell(&mut self, cell: usize, weight: f64) {
        if weight == 0.0 {
            return;
        }
        let bin = *self.starts.last().expect("a start");
        // Positions rise, or fall where a region's sides are swapped: a cell
        // that is there already is one of the last four.
        match self.cells[bin..].iter_mut().rev().take(4).find(|(other, _)| *other == cell) {
            Some((_, sum)) => *sum += weight,
            None => self.cells.push((cell, weight)),
        }
    }
}

/// Samples that are looked at without asking which of them can matter.
const FEW: i64 = 64;

/// The samples of a bin that can lie on a map of `size` cells, and a few beside
/// them: a region may be much larger than the map.
fn within_reach(start: f64, bin: f64, samples: i64, size: usize) -> Range<i64> {
    let step = bin / samples as f64;
    if samples <= FEW || step.partial_cmp(&0.0) != Some(Ordering::Greater) {
        return 0..samples;
    }
    // Conversions saturate, additions too.
    let first = ((-1.0 - start) / step).floor() as i64;
    let last = ((size as f64 - start) / step).ceil() as i64;
    first.saturating_sub(2).max(0)..last.saturating_add(2).min(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOUBLE: Sampling =
        Sampling { scale: 1.0, ratio: 0, aligned: true, precision: CoordinatePrecision::Double };

    fn sorted(axis: &Axis, bin: usize) -> Vec<(usize, f64)> {
        let mut cells = axis.bin(bin).to_vec();
        cells.sort_by_key(|cell| cell.0);
        cells
    }

    #[test]
    fn whole_cells_average_by_hand() {
        // Cells 1 and 2 in one bin of two samples, at their centres.
        let axis = Axis::new(1.0, 3.0, 1, 8, &DOUBLE);
        assert_eq!(sorted(&axis, 0), [(1, 0.5), (2, 0.5)]);
        // Without the half-pixel shift the samples lie between cells 1 and 2, and
        // 2 and 3; the cell they share is merged.
        let axis = Axis::new(1.0, 3.0, 1, 8, &Sampling { aligned: false, ..DOUBLE });
        assert_eq!(sorted(&axis, 0), [(1, 0.25), (2, 0.5), (3, 0.25)]);
    }

    #[test]
    fn outside_counts_as_nothing_and_the_border_is_repeated() {
        // Samples at −3.25, −2.25, −1.25 and −0.25: the last is clamped to cell 0.
        assert_eq!(Axis::new(-3.25, 0.75, 1, 4, &DOUBLE).bin(0), [(0, 0.25)]);
        // One at −1 exactly counts too.
        assert_eq!(Axis::new(-3.0, 1.0, 1, 4, &DOUBLE).bin(0), [(0, 0.5)]);
        // Samples at 2.5, 3.5 and 4.5: the second is clamped to cell 3.
        let axis = Axis::new(2.5, 5.5, 1, 4, &DOUBLE);
        assert_eq!(sorted(&axis, 0), [(2, 0.5 / 3.0), (3, 0.5 / 3.0 + 1.0 / 3.0)]);
    }

    #[test]
    fn empty_and_swapped_sides() {
        assert_eq!(Axis::new(2.0, 2.0, 3, 8, &DOUBLE).total(), 0);
        assert_eq!(Axis::new(4.0, 2.0, 2, 8, &DOUBLE).total(), 0);
        let fixed = Sampling { ratio: 2, ..DOUBLE };
        let (rising, falling) =
            (Axis::new(2.0, 6.0, 2, 8, &fixed), Axis::new(6.0, 2.0, 2, 8, &fixed));
        assert_eq!(sorted(&rising, 0), sorted(&falling, 1));
        assert_eq!(sorted(&rising, 1), sorted(&falling, 0));
        assert_eq!(Axis::new(f64::NAN, 2.0, 2, 8, &DOUBLE).total(), 0);
        assert_eq!(Axis::new(0.0, f64::INFINITY, 2, 8, &DOUBLE).total(), 0);
    }

    #[test]
    fn a_region_far_larger_than_the_map_costs_what_the_map_costs() {
        let axis = Axis::new(-1e12, 1e12, 7, 8, &DOUBLE);
        // All cells fall into the middle bin.
        assert_eq!(axis.total(), axis.bin(3).len());
        assert_eq!(axis.total(), 8);
    }
}
