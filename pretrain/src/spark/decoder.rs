//! The light UNet decoder (official `decoder.py`).

use backbone::layers::{
    Activation, BatchNorm2d, Conv2d, Conv2dConfig, ConvTranspose4x4, Layer, Recomputed,
};
use backbone::{Error, FeatureMap, Init, Mode, PatchMask, Result};
use tch::Tensor;
use tch::nn::Path;

/// Doubles the resolution block by block, adding the densified map of each
/// level on the way, down to the input's resolution.
#[derive(Debug)]
pub struct LightDecoder {
    blocks: Vec<UpBlock>,
    projection: Conv2d,
    width: i64,
    total_stride: i64,
}

/// ×2 up-sampling, then two 3×3 convolutions, the second halving the width.
#[derive(Debug)]
struct UpBlock {
    up_sample: ConvTranspose4x4,
    conv0: Conv2d,
    norm1: BatchNorm2d,
    conv3: Conv2d,
    norm4: BatchNorm2d,
}

impl UpBlock {
    fn new(path: &Path, from: i64, to: i64) -> Self {
        let config = Conv2dConfig::square(3).init(Init::TRUNC_NORMAL_02);
        let conv = path / "conv";
        Self {
            up_sample: ConvTranspose4x4::new(&(path / "up_sample"), from),
            conv0: Conv2d::new(&(&conv / 0), from, from, config),
            norm1: BatchNorm2d::new(&(&conv / 1), from),
            conv3: Conv2d::new(&(&conv / 3), from, to, config),
            norm4: BatchNorm2d::new(&(&conv / 4), to),
        }
    }
}

impl UpBlock {
    /// The block's output, for the next one.
    fn between(&self, x: Recomputed, mode: &Mode) -> Recomputed {
        let x = self.up_sample.then(&self.conv0, x, mode);
        let x = self.norm1.then(Activation::Relu6, x.into(), mode);
        self.norm4.then(Activation::Identity, self.conv3.consume(x, mode).into(), mode)
    }
}

impl LightDecoder {
    /// Blocks `dec.{i}` and `proj` under `path`, from `width` channels at
    /// `total_stride` to `out_chans` at the input's resolution.
    ///
    /// # Errors
    /// `width` is not a positive multiple of `total_stride`, so that halving
    /// it at every doubling would leave a fraction.
    pub fn new(path: &Path, width: i64, total_stride: i64, out_chans: i64) -> Result<Self> {
        if width <= 0 || width % total_stride != 0 {
            let rule = format!(
                "it is halved at each of the decoder's levels and must be a positive multiple of \
                 {total_stride}"
            );
            return Err(Error::invalid("decoder width", width, rule));
        }
        let levels = i64::from(total_stride.ilog2());
        let block = |i: i64| UpBlock::new(&(path / "dec" / i), width >> i, width >> (i + 1));
        let config = Conv2dConfig::square(1).bias().init(Init::TRUNC_NORMAL_02);
        Ok(Self {
            blocks: (0..levels).map(block).collect(),
            projection: Conv2d::new(&(path / "proj"), width >> levels, out_chans, config),
            width,
            total_stride,
        })
    }

    /// Width of the level at this stride.
    pub fn width_at(&self, stride: i64) -> i64 {
        self.width * stride / self.total_stride
    }

    /// The prediction `[N, out_chans, H, W]` from dense maps and their strides.
    pub fn forward(&self, levels: &[(i64, Tensor)], mode: &Mode) -> Tensor {
        let map = FeatureMap::Grid(self.features(levels, mode));
        self.projection.forward(&map, mode).tensor().shallow_clone()
    }

    /// The prediction of the masked patches alone, `[M, out_chans, p, q]`.
    pub fn forward_masked(
        &self,
        levels: &[(i64, Tensor)],
        mask: &PatchMask,
        mode: &Mode,
    ) -> Tensor {
        let patches = FeatureMap::Grid(mask.pack_masked(&self.features(levels, mode)));
        self.projection.forward(&patches, mode).tensor().shallow_clone()
    }

    /// What the prediction is projected from, `[N, width, H, W]`.
    fn features(&self, levels: &[(i64, Tensor)], mode: &Mode) -> Tensor {
        let mut levels = levels.iter().peekable();
        let mut add_level = |x: Option<Recomputed>, stride: i64| {
            let level = levels.next_if(|(at, _)| *at == stride);
            let level = level.map(|(_, map)| FeatureMap::Grid(map.shallow_clone()));
            match (x, level) {
                (Some(x), Some(level)) => Some(x.into_map().add(&level).into()),
                (x, level) => x.or(level.map(Recomputed::from)),
            }
        };
        let mut stride = self.total_stride;
        let mut x = add_level(None, stride).expect("the coarsest level starts the decoder");
        for block in &self.blocks {
            x = block.between(x, mode);
            stride /= 2;
            x = add_level(Some(x), stride).expect("x goes on");
        }
        x.into_map().tensor().shallow_clone()
    }
}
