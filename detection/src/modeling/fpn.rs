//! Feature pyramid on top of any backbone.
//!
//! "Feature Pyramid Networks for Object Detection" (Lin et al. 2017).
//! Reference: detectron2 `modeling/backbone/fpn.py`.

use std::ops::Range;

use backbone::layers::{Layer, LayerNorm2d, check_batch_statistics};
use backbone::{Backbone, FeatureMap, Mode, Stage};
use tch::Tensor;
use tch::nn::Path;

use super::config::{BackboneNorm, HeadNorm, ModelConfig};
use super::layers::{NormConv, on_running_statistics, xavier};
use crate::{Error, Result};

/// Stride of the pyramid's finest map, where a backbone has finer ones.
const FINEST: i64 = 4;
/// And of the coarsest.
const COARSEST: i64 = 32;
/// Epsilon of the norms on the backbone's outputs (mmdet's ConvNeXt).
const OUTPUT_NORM_EPS: f64 = 1e-6;

/// One stage's way into the pyramid.
#[derive(Debug)]
struct Level {
    output_norm: Option<LayerNorm2d>,
    /// 1×1, to the pyramid's width.
    lateral: NormConv,
    /// 3×3, after the coarser level was added.
    output: NormConv,
}

/// The backbone and its pyramid: one map a stage, and a pooled one.
#[derive(Debug)]
pub struct Fpn {
    bottom_up: Box<dyn Backbone>,
    /// The backbone's stages that the levels are built on.
    stages: Range<usize>,
    levels: Vec<Level>,
    strides: Vec<i64>,
    frozen_norms: bool,
    batch_norms: bool,
}

impl Fpn {
    /// `fpn_lateral{n}` and `fpn_output{n}` under `path`, n the logarithm of
    /// the stage's stride, and `bottom_up.norm{i}` where outputs are normed.
    ///
    /// # Errors
    /// Strides that don't double from stage to stage.
    pub fn new(path: &Path, config: &ModelConfig, bottom_up: Box<dyn Backbone>) -> Result<Self> {
        let stages = pyramid_stages(bottom_up.stages(), config.anchors.sizes.len());
        let used = bottom_up.stages()[stages.clone()].to_vec();
        let mut strides: Vec<i64> = used.iter().map(|stage| stage.stride).collect();
        let doubling = strides.windows(2).all(|pair| pair[1] == 2 * pair[0]);
        match strides.first() {
            Some(first) if doubling && first.count_ones() == 1 => {}
            _ => {
                let rule = "a feature pyramid needs powers of two that double from stage to stage";
                return Err(Error::invalid("the backbone's strides", format!("{strides:?}"), rule));
            }
        }
        let width = config.fpn_channels;
        let levels = used.iter().enumerate().map(|(index, stage)| {
            let number = stage.stride.ilog2();
            let conv = |name: &str, from: i64, kernel: i64| {
                let path = path / format!("fpn_{name}{number}");
                let init = xavier(from * kernel * kernel);
                NormConv::new(&path, (from, width), kernel, config.fpn_norm, init)
            };
            Level {
                output_norm: config.output_norm.then(|| {
                    let path = path / "bottom_up" / format!("norm{index}");
                    LayerNorm2d::new(&path, stage.channels, OUTPUT_NORM_EPS)
                }),
                lateral: conv("lateral", stage.channels, 1),
                output: conv("output", width, 3),
            }
        });
        let levels = levels.collect();
        strides.extend(strides.last().map(|stride| 2 * stride));
        let frozen_norms = config.backbone_norm == BackboneNorm::Frozen;
        let batch_norms = config.fpn_norm == HeadNorm::Batch;
        Ok(Self { bottom_up, stages, levels, strides, frozen_norms, batch_norms })
    }

    /// Strides of the maps, finest first; the last one's is of the pooled map.
    pub fn strides(&self) -> &[i64] {
        &self.strides
    }

    /// What the padded images' sides must be multiples of.
    pub fn divisor(&self) -> i64 {
        self.bottom_up.total_stride()
    }

    /// The network under the pyramid.
    pub fn bottom_up(&self) -> &dyn Backbone {
        self.bottom_up.as_ref()
    }

    /// The maps of `images`, `[N, 3, H, W]` with sides that are multiples of
    /// [`Fpn::divisor`]: each `[N, C, h, w]`, finest first.
    ///
    /// # Errors
    /// Images that the backbone doesn't take.
    pub fn forward(&self, images: &Tensor, mode: &Mode) -> Result<Vec<Tensor>> {
        let images = FeatureMap::Grid(images.shallow_clone());
        let features = if self.frozen_norms {
            self.bottom_up.forward(&images, &on_running_statistics(mode))?
        } else {
            self.bottom_up.forward(&images, mode)?
        };
        let features = &features[self.stages.clone()];
        if let Some(coarsest) = features.last().filter(|_| self.batch_norms) {
            let input = format!("{:?}", images.tensor().size());
            check_batch_statistics(&input, &coarsest.tensor().size(), mode)?;
        }
        let mut maps = Vec::with_capacity(self.strides.len());
        let mut coarser: Option<Tensor> = None;
        for (level, feature) in self.levels.iter().zip(features).rev() {
            let feature = match &level.output_norm {
                Some(norm) => norm.forward(feature, mode).to_grid(),
                None => feature.to_grid(),
            };
            let mut merged = level.lateral.forward(&feature, mode);
            if let Some(coarser) = coarser {
                merged += doubled_to(&coarser, &merged);
            }
            maps.push(level.output.forward(&merged, mode));
            coarser = Some(merged);
        }
        maps.reverse();
        let pooled = maps.last().map(|coarsest| coarsest.max_pool2d([1], [2], [0], [1], false));
        maps.extend(pooled);
        Ok(maps)
    }
}

/// The stages of a backbone that a pyramid of so many maps, the pooled one among them, is built on:
/// all, or, where it has more, those of strides 4 to 32.
fn pyramid_stages(stages: &[Stage], maps: usize) -> Range<usize> {
    if stages.len() < maps {
        return 0..stages.len();
    }
    let first = stages.iter().position(|stage| stage.stride >= FINEST).unwrap_or(0);
    let coarser = stages.iter().position(|stage| stage.stride > COARSEST);
    first..coarser.unwrap_or(stages.len()).max(first)
}

/// `map` by nearest neighbour in the size of `like`: twice its own, or one less
/// where halving had rounded up.
fn doubled_to(map: &Tensor, like: &Tensor) -> Tensor {
    let size = like.size();
    map.upsample_nearest2d([size[2], size[3]], None, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finer_stages_than_anchors_are_for_are_left_out() {
        let strides = |strides: &[i64], maps: usize| {
            let stages: Vec<Stage> =
                strides.iter().map(|&stride| Stage { channels: 8, stride }).collect();
            strides[pyramid_stages(&stages, maps)].to_vec()
        };
        assert_eq!(strides(&[4, 8, 16, 32], 5), [4, 8, 16, 32]);
        assert_eq!(strides(&[2, 4, 8, 16, 32], 5), [4, 8, 16, 32]);
        assert_eq!(strides(&[2, 4, 8, 16, 32], 6), [2, 4, 8, 16, 32]);
        assert_eq!(strides(&[4, 8, 16, 32, 64], 5), [4, 8, 16, 32]);
        assert_eq!(strides(&[8, 16, 32], 5), [8, 16, 32]);
        // Too few sizes of anchors for what a detector takes are refused later.
        assert_eq!(strides(&[4, 8, 16, 32], 4), [4, 8, 16, 32]);
    }
}
