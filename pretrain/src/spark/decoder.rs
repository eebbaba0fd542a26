//! The light UNet decoder (official `decoder.py`).

use backbone::layers::{Conv2d, Conv2dConfig, Layer, UpBlock};
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
        let (&(mut stride, ref coarsest), finer) =
            levels.split_first().expect("the coarsest level starts the decoder");
        let mut x = FeatureMap::Grid(coarsest.shallow_clone());
        let mut blocks = self.blocks.as_slice();
        for (finer_stride, level) in finer {
            let doublings = (stride / finer_stride).ilog2() as usize;
            let (between, rest) = blocks.split_at(doublings);
            let level = FeatureMap::Grid(level.shallow_clone());
            x = UpBlock::forward_sequence(between, x, mode).add(&level);
            (stride, blocks) = (*finer_stride, rest);
        }
        UpBlock::forward_sequence(blocks, x, mode).tensor().shallow_clone()
    }
}
