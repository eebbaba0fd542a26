//! RoIAlign: the features of a region, resampled to a fixed grid.
//!
//! "Mask R-CNN" (He et al. 2017), section 3; torchvision `ops/roi_align.py`.
//!
//! A pooled bin is linear in the features: a sum of cells whose weights are
//! products of a vertical and a horizontal one. So the weights are computed here,
//! in float64, samples that share a cell merged, and libtorch's `embedding_bag`
//! sums the rows of the channels-last map: on every device, in every kind, with
//! its gradient.

mod axis;

use tch::{Device, Kind, Tensor};

pub(crate) use axis::{Axis, CoordinatePrecision, Sampling};

/// Pools each of `rois` (`[K, 5]`: index of the image, x1, y1, x2, y2 in pixels)
/// from `features` (`[N, C, H, W]`) to `[K, C, height, width]`, channels last in
/// memory. Differentiable in the features.
///
/// - `spatial_scale`: cells of the map per pixel.
/// - `sampling_ratio`: samples a bin and axis; where it is not positive, about one
///   a cell.
/// - `aligned`: whether pixel centres lie at half coordinates (detectron2, mmdet);
///   torchvision's detectors have them at whole ones, and regions of at least one
///   cell.
///
/// Half-precision features are pooled in float32, as under torch's autocast. A
/// region whose sides aren't finite, or (adaptive and aligned) not positive, is 0.
///
/// # Panics
/// When a region names an image that isn't there.
pub fn roi_align(
    features: &Tensor,
    rois: &Tensor,
    output: (i64, i64),
    spatial_scale: f64,
    sampling_ratio: i64,
    aligned: bool,
) -> Tensor {
    let kind = features.kind();
    if matches!(kind, Kind::Half | Kind::BFloat16) {
        let features = features.to_kind(Kind::Float);
        let pooled = roi_align(&features, rois, output, spatial_scale, sampling_ratio, aligned);
        return pooled.to_kind(kind);
    }
    let (images, channels, height, width) = features.size4().expect("a batch of maps");
    let rows = features.permute([0, 2, 3, 1]).reshape([-1, channels]);
    let precision = CoordinatePrecision::of(kind);
    let sampling = Sampling { scale: spatial_scale, ratio: sampling_ratio, aligned, precision };
    let map = [images, height, width].map(|side| side as usize);
    let grid = (output.0 as usize, output.1 as usize);
    let regions = rois.size()[0];
    let pooled = if regions == 0 {
        // Part of the graph, like any other result.
        rows.narrow(0, 0, 0).view([0, 1, 1, channels])
    } else {
        Bags::new(rois, map, grid, &sampling).sum(&rows).view([-1, output.0, output.1, channels])
    };
    pooled.expand([regions, output.0, output.1, channels], false).permute([0, 3, 1, 2])
}

/// The cells and weights of every bin of every region.
struct Bags {
    /// Rows of the channels-last map.
    cells: Vec<i32>,
    weights: Vec<f64>,
    /// Where each bin begins in the two above, and where the last ends.
    starts: Vec<i32>,
}

impl Bags {
    fn new(
        rois: &Tensor,
        [images, height, width]: [usize; 3],
        (rows, columns): (usize, usize),
        sampling: &Sampling,
    ) -> Self {
        let rois =
            Vec::<f64>::try_from(rois.to_device(Device::Cpu).flatten(0, -1)).expect("numbers");
        let mut bags = Bags { cells: Vec::new(), weights: Vec::new(), starts: vec![0] };
        for roi in rois.chunks_exact(5) {
            let image = roi[0] as usize;
            assert!(image < images, "RoIAlign: image {} of a batch of {images}", roi[0]);
            let vertical = Axis::new(roi[2], roi[4], rows, height, sampling);
            let horizontal = Axis::new(roi[1], roi[3], columns, width, sampling);
            bags.add_region(image * height * width, width, [rows, columns], &vertical, &horizontal);
        }
        bags
    }

    /// Adds the bins of a region, row by row; `first` is its image's first cell.
    fn add_region(
        &mut self,
        first: usize,
        width: usize,
        [rows, columns]: [usize; 2],
        vertical: &Axis,
        horizontal: &Axis,
    ) {
        self.cells.reserve(vertical.total() * horizontal.total());
        self.weights.reserve(vertical.total() * horizontal.total());
        for row in 0..rows {
            for column in 0..columns {
                for &(y, wy) in vertical.bin(row) {
                    let line = first + y * width;
                    for &(x, wx) in horizontal.bin(column) {
                        self.cells.push((line + x) as i32);
                        self.weights.push(wy * wx);
                    }
                }
                let end = i32::try_from(self.cells.len()).expect("fewer than 2³¹ weights");
                self.starts.push(end);
            }
        }
    }

    /// The weighted sums of `map`'s rows (`[N · H · W, C]`): `[bins, C]`.
    fn sum(&self, map: &Tensor) -> Tensor {
        let device = map.device();
        let weights = Tensor::from_slice(&self.weights).to_kind(map.kind()).to_device(device);
        let cells = Tensor::from_slice(&self.cells).to_device(device);
        let starts = Tensor::from_slice(&self.starts).to_device(device);
        const SUM: i64 = 0;
        Tensor::embedding_bag(map, &cells, &starts, false, SUM, false, Some(weights), true).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: (Kind, Device) = (Kind::Double, Device::Cpu);

    /// A map that rises by 1 a column and by 10 a row, in two channels of which the
    /// second is the negative.
    fn slope() -> Tensor {
        let rows = Tensor::arange(6, OPTIONS).view([6, 1]) * 10.0;
        let map = rows + Tensor::arange(8, OPTIONS).view([1, 8]);
        Tensor::stack(&[&map, &-&map], 0).unsqueeze(0)
    }

    fn pool(features: &Tensor, roi: [f64; 5]) -> Tensor {
        let rois = Tensor::from_slice(&roi).view([1, 5]);
        roi_align(features, &rois, (1, 2), 1.0, 0, true)
    }

    #[test]
    fn a_slope_is_averaged_to_its_value_at_the_bins_centres() {
        // Columns 1 to 5, rows 2 to 4; bins are centred at x = 2 and 4, y = 3, and
        // cell (y, x) has its centre half a cell further.
        let pooled = pool(&slope(), [0.0, 1.0, 2.0, 5.0, 4.0]);
        assert_eq!(pooled.size(), [1, 2, 1, 2]);
        let values = Vec::<f64>::try_from(pooled.flatten(0, -1)).unwrap();
        let exact = [26.5, 28.5, -26.5, -28.5];
        // A few roundings of weights that are quarters.
        assert!(values.iter().zip(exact).all(|(a, b)| (a - b).abs() < 1e-12), "{values:?}");
    }

    #[test]
    fn the_gradient_is_the_weights() {
        let features = slope().set_requires_grad(true);
        pool(&features, [0.0, 1.0, 2.0, 5.0, 4.0]).sum(Kind::Double).backward();
        let gradient = features.grad();
        // Eight samples a channel at cells' centres, each a quarter of its bin.
        let expected = gradient.zeros_like();
        let _ = expected.slice(2, 2, 4, 1).slice(3, 1, 5, 1).fill_(0.25);
        assert!(gradient.allclose(&expected, 0.0, 1e-12, false), "{gradient}");
    }

    #[test]
    fn regions_without_cells_are_zero_and_have_no_gradient() {
        let features = slope().set_requires_grad(true);
        for roi in [
            [0.0, 2.0, 2.0, 2.0, 2.0],
            [0.0, 30.0, 30.0, 40.0, 40.0],
            [0.0, f64::NAN, 0.0, 1.0, 1.0],
        ] {
            let pooled = pool(&features, roi);
            assert_eq!(f64::try_from(pooled.abs().sum(Kind::Double)).unwrap(), 0.0);
            pooled.sum(Kind::Double).backward();
        }
        assert_eq!(f64::try_from(features.grad().abs().sum(Kind::Double)).unwrap(), 0.0);
    }

    #[test]
    fn no_regions_are_part_of_the_graph() {
        let features = slope().set_requires_grad(true);
        let pooled = roi_align(&features, &Tensor::zeros([0, 5], OPTIONS), (7, 7), 0.25, 0, true);
        assert_eq!(pooled.size(), [0, 2, 7, 7]);
        pooled.sum(Kind::Double).backward();
        assert_eq!(features.grad().size(), features.size());
    }

    #[test]
    fn half_precision_pools_in_float32() {
        let features = slope().to_kind(Kind::BFloat16);
        let roi = [0.0, 1.3, 2.1, 5.2, 4.9];
        let pooled = pool(&features, roi);
        assert_eq!(pooled.kind(), Kind::BFloat16);
        let exact = pool(&features.to_kind(Kind::Float), roi).to_kind(Kind::BFloat16);
        assert!(pooled.equal(&exact));
    }

    #[test]
    #[should_panic(expected = "image 1 of a batch of 1")]
    fn an_image_that_is_not_there() {
        let _ = pool(&slope(), [1.0, 0.0, 0.0, 2.0, 2.0]);
    }
}
