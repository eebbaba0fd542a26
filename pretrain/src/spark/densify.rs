//! From sparse maps to dense ones: normalise the visible positions, fill the
//! masked ones with a learned token, project to the decoder's width (paper,
//! section 3.2; official `densify_norms`, `mask_tokens`, `densify_projs`).

use backbone::layers::{Conv2d, Conv2dConfig, Layer, Norm, fill_masked};
use backbone::{Backbone, FeatureMap, Init, Mode};
use tch::Tensor;
use tch::nn::Path;

use super::LightDecoder;

/// Start of the mask tokens: trunc-normal, std 0.02 cut at ±0.02.
const TOKEN_INIT: Init = Init::TruncatedNormal { std: 0.02, bound: 0.02 };

/// Densification of every level of a pyramid.
#[derive(Debug)]
pub(super) struct Densify {
    /// Coarsest first, as the official code counts.
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    stride: i64,
    norm: Norm,
    /// `[1, C, 1, 1]`.
    token: Tensor,
    projection: Option<Conv2d>,
}

impl Densify {
    /// Parameters `densify_norms.{i}`, `mask_tokens.{i}` and
    /// `densify_projs.{i}` under `path`.
    pub fn new(path: &Path, encoder: &dyn Backbone, decoder: &LightDecoder) -> Self {
        let level = |(i, stage): (usize, &backbone::Stage)| {
            let norm = Norm::new(&(path / "densify_norms" / i), encoder.norm(), stage.channels);
            let token_path = path / "mask_tokens";
            let token =
                TOKEN_INIT.parameter(&token_path, &i.to_string(), &[1, stage.channels, 1, 1]);
            // The coarsest level is only projected if the widths differ, and
            // without looking at neighbours.
            let width = decoder.width_at(stage.stride);
            let config = Conv2dConfig::square(if i == 0 { 1 } else { 3 });
            let projection = (i > 0 || stage.channels != width).then(|| {
                let path = path / "densify_projs" / i;
                Conv2d::new(&path, stage.channels, width, config.bias().init(Init::Default))
            });
            Level { stride: stage.stride, norm, token, projection }
        };
        Self { levels: encoder.stages().iter().rev().enumerate().map(level).collect() }
    }

    /// Dense maps `[N, width, H/stride, W/stride]` with their strides, coarsest
    /// first, from the encoder's pyramid (finest first).
    pub fn forward(&self, features: &[FeatureMap], mode: &Mode) -> Vec<(i64, Tensor)> {
        let dense = |(level, feature): (&Level, &FeatureMap)| {
            let Level { norm, token, .. } = level;
            let projected = match &level.projection {
                None => fill_masked(&norm.forward(feature, mode), token),
                Some(projection) => {
                    projection.forward_normed_with_mask_token(norm, feature, token, mode)
                }
            };
            (level.stride, projected)
        };
        self.levels.iter().zip(features.iter().rev()).map(dense).collect()
    }
}
