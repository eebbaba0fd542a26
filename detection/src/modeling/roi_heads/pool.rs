//! The features of regions, each from the level that suits its size.
//! Reference: detectron2 `modeling/poolers.py`, torchvision `ops/poolers.py`.

use tch::{Kind, Tensor};

use crate::modeling::config::{LevelRule, PoolConfig, RoiConfig};
use crate::ops::roi_align;

/// The level, as a logarithm of its stride, that canonical regions are read
/// from.
const CANONICAL_LEVEL: f64 = 4.0;

/// RoIAlign over the levels of a pyramid.
#[derive(Debug)]
pub(super) struct Pooler {
    config: PoolConfig,
    rule: LevelRule,
    canonical_size: f64,
    /// Of the levels regions are read from, finest first.
    strides: Vec<i64>,
}

impl Pooler {
    pub(super) fn new(config: PoolConfig, roi: &RoiConfig, strides: &[i64]) -> Self {
        let (rule, canonical_size) = (roi.level, roi.canonical_size);
        Self { config, rule, canonical_size, strides: strides.to_vec() }
    }

    /// Features `[R, C, size, size]` of the regions `boxes`, one `[r, 4]` an
    /// image, image after image, from `maps`, finest first.
    pub(super) fn pool(&self, maps: &[Tensor], boxes: &[&Tensor]) -> Tensor {
        let regions = Tensor::cat(boxes, 0);
        let numbers: Vec<Tensor> = (0i64..)
            .zip(boxes)
            .map(|(image, boxes)| boxes.narrow(1, 0, 1).full_like(image))
            .collect();
        let regions = Tensor::cat(&[Tensor::cat(&numbers, 0), regions], 1);
        let levels = self.levels(&regions.narrow(1, 1, 4));
        let (mut pooled, mut order) = (Vec::new(), Vec::new());
        for (level, (map, stride)) in (0i64..).zip(maps.iter().zip(&self.strides)) {
            let index = levels.eq(level).nonzero().squeeze_dim(1);
            if index.size()[0] > 0 || (level == 0 && levels.size()[0] == 0) {
                let PoolConfig { size, sampling_ratio, aligned } = self.config;
                let regions = regions.index_select(0, &index);
                let scale = 1.0 / *stride as f64;
                pooled.push(roi_align(map, &regions, (size, size), scale, sampling_ratio, aligned));
                order.push(index);
            }
        }
        if pooled.len() == 1 {
            return pooled.remove(0);
        }
        Tensor::cat(&pooled, 0).index_select(0, &Tensor::cat(&order, 0).argsort(0, false))
    }

    /// Which of the levels each of `boxes` (`[R, 4]`) is read from, `[R]`.
    fn levels(&self, boxes: &Tensor) -> Tensor {
        let side = |axis: i64| boxes.select(1, axis + 2) - boxes.select(1, axis);
        let size = (side(0) * side(1)).sqrt() / self.canonical_size;
        let level = match self.rule {
            LevelRule::Detectron2 => (size + 1e-8).log2() + CANONICAL_LEVEL,
            LevelRule::Torchvision => (size.log2() + CANONICAL_LEVEL) + 1e-6,
        };
        let finest = f64::from(self.strides.first().map_or(0, |stride| stride.ilog2()));
        let coarsest = f64::from(self.strides.last().map_or(0, |stride| stride.ilog2()));
        (level.floor().clamp(finest, coarsest) - finest).to_kind(Kind::Int64)
    }
}
