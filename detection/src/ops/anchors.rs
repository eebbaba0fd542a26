//! Anchors: the boxes that region proposals start from, the same at every
//! position of a map.
//!
//! detectron2 `modeling/anchor_generator.py`, torchvision
//! `models/detection/anchor_utils.py`.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// How the anchors of one position are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnchorStyle {
    /// Sizes outside, aspect ratios inside; exact sides. Levels step by their stride.
    Detectron2,
    /// Aspect ratios outside, sizes inside; corners rounded to whole pixels
    /// (halves to the even neighbour), computed in float32. Levels step by the padded image's side
    /// over the map's, rounded down.
    Torchvision,
}

/// The anchors of every level of a feature pyramid.
#[derive(Debug, Clone, PartialEq)]
pub struct AnchorGenerator {
    /// Sides of the square anchors in pixels of the image, level by level.
    pub sizes: Vec<Vec<f64>>,
    /// Height over width, the same at every level.
    pub aspect_ratios: Vec<f64>,
    /// Pixels of the image per position of the map, level by level.
    pub strides: Vec<i64>,
    /// Where in its cell an anchor's centre lies, as a fraction of the stride:
    /// 0 the upper left corner (detectron2's and torchvision's default), 0.5 the
    /// middle.
    pub offset: f64,
    /// Order and rounding.
    pub style: AnchorStyle,
}

impl AnchorGenerator {
    /// How many anchors a position of `level` has.
    pub fn per_position(&self, level: usize) -> i64 {
        (self.sizes[level].len() * self.aspect_ratios.len()) as i64
    }

    /// The anchors of a map of `(height, width)` at `level`, `[height · width ·
    /// A, 4]`: row by row, the anchors of one position together.
    pub fn grid(&self, level: usize, size: (i64, i64), kind: Kind, device: Device) -> Tensor {
        let stride = self.strides[level];
        self.grid_with_strides(level, size, (stride, stride), kind, device)
    }

    /// [`AnchorGenerator::grid`] with strides (vertical, horizontal) that this
    /// image has: torchvision divides the padded image's sides by the map's.
    pub fn grid_with_strides(
        &self,
        level: usize,
        (height, width): (i64, i64),
        strides: (i64, i64),
        kind: Kind,
        device: Device,
    ) -> Tensor {
        let options = (kind, device);
        let shifts = |count: i64, stride: i64| {
            (Tensor::arange(count, (Kind::Float, device)) + self.offset) * stride as f64
        };
        let y = shifts(height, strides.0).view([-1, 1, 1]).expand([height, width, 1], false);
        let x = shifts(width, strides.1).view([1, -1, 1]).expand([height, width, 1], false);
        let shifts = Tensor::cat(&[&x, &y, &x, &y], 2).view([-1, 1, 4]);
        let cell = Tensor::from_slice(&self.cell(level).concat()).view([1, -1, 4]);
        // Both references add in float32 (or in the maps' coarser kind) and
        // convert afterwards.
        (shifts + cell.to_device(device)).view([-1, 4]).to_kind(options.0)
    }

    /// The anchors around the origin, rows (x1, y1, x2, y2).
    fn cell(&self, level: usize) -> Vec<[f32; 4]> {
        match self.style {
            AnchorStyle::Detectron2 => self.sizes[level]
                .iter()
                .flat_map(|size| self.aspect_ratios.iter().map(move |ratio| (size, ratio)))
                .map(|(size, ratio)| {
                    let width = (size * size / ratio).sqrt();
                    let height = ratio * width;
                    corners(width as f32, height as f32)
                })
                .collect(),
            AnchorStyle::Torchvision => self
                .aspect_ratios
                .iter()
                .flat_map(|ratio| self.sizes[level].iter().map(move |size| (size, ratio)))
                .map(|(&size, &ratio)| {
                    let height_ratio = (ratio as f32).sqrt();
                    let width_ratio = 1.0 / height_ratio;
                    corners(width_ratio * size as f32, height_ratio * size as f32)
                        .map(f32::round_ties_even)
                })
                .collect(),
        }
    }
}

/// The box of these sides around the origin.
fn corners(width: f32, height: f32) -> [f32; 4] {
    [-width / 2.0, -height / 2.0, width / 2.0, height / 2.0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generator(style: AnchorStyle) -> AnchorGenerator {
        AnchorGenerator {
            sizes: vec![vec![32.0, 64.0]],
            aspect_ratios: vec![0.5, 1.0],
            strides: vec![4],
            offset: 0.0,
            style,
        }
    }

    fn rows(anchors: &Tensor) -> Vec<Vec<f32>> {
        anchors.try_into().unwrap()
    }

    #[test]
    fn detectron2_keeps_sides_exact_and_sizes_outside() {
        let anchors = generator(AnchorStyle::Detectron2).grid(0, (1, 2), Kind::Float, Device::Cpu);
        let anchors = rows(&anchors);
        assert_eq!(anchors.len(), 8);
        // 32² = w · w/2: w = 32·√2 = 45.2548.
        let (w, h) = (2f32.sqrt() * 16.0, 2f32.sqrt() * 8.0);
        assert_eq!(anchors[0], [-w, -h, w, h]);
        assert_eq!(anchors[1], [-16.0, -16.0, 16.0, 16.0]);
        assert_eq!(anchors[3], [-32.0, -32.0, 32.0, 32.0]);
        // The next position lies one stride to the right.
        assert_eq!(anchors[5], [-12.0, -16.0, 20.0, 16.0]);
    }

    #[test]
    fn torchvision_rounds_and_puts_ratios_outside() {
        let anchors =
            generator(AnchorStyle::Torchvision).grid(0, (2, 1), Kind::Double, Device::Cpu);
        let anchors = rows(&anchors);
        assert_eq!(anchors[0], [-23.0, -11.0, 23.0, 11.0]);
        assert_eq!(anchors[1], [-45.0, -23.0, 45.0, 23.0]);
        assert_eq!(anchors[2], [-16.0, -16.0, 16.0, 16.0]);
        // The next position lies one stride below.
        assert_eq!(anchors[6], [-16.0, -12.0, 16.0, 20.0]);
    }

    #[test]
    fn offset_moves_centres_by_its_share_of_the_stride() {
        let generator = AnchorGenerator { offset: 0.5, ..generator(AnchorStyle::Detectron2) };
        let anchors = generator.grid(0, (1, 1), Kind::Float, Device::Cpu);
        assert_eq!(rows(&anchors)[1], [-14.0, -14.0, 18.0, 18.0]);
    }
}
