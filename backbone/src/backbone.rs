//! What a convnet must offer to be pretrained, fine-tuned, embedded and
//! detected with.

use std::fmt::Debug;

use crate::mode::Mode;
use crate::{Error, FeatureMap, Result};

/// One level of the feature pyramid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// Channels of the level's map.
    pub channels: i64,
    /// Input positions per position of the map, along each side.
    pub stride: i64,
}

/// The normalisation a network is built with, which SparK's densification
/// follows (official `densify_norm_str`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Batch norm over visible positions.
    Batch,
    /// Layer norm over the channels of a position, eps 1e-6.
    Layer,
}

/// A convnet with a pyramid of feature maps. Written with [`crate::layers`] it
/// runs on every kind of [`FeatureMap`] without further work.
pub trait Backbone: Debug {
    /// The pyramid's levels, finest first; strides ascend.
    fn stages(&self) -> &[Stage];

    /// Channels of the input image.
    fn in_chans(&self) -> i64;

    /// The norm that pretraining puts between encoder and decoder.
    fn norm(&self) -> NormKind {
        NormKind::Batch
    }

    /// Number of blocks that drop-path draws for, see
    /// [`DropPathDraws::Table`](crate::DropPathDraws::Table).
    fn blocks(&self) -> usize {
        0
    }

    /// The pyramid of `x`, finest first. `x` has been checked: call
    /// [`Backbone::forward`] unless you have done so.
    fn forward_features(&self, x: &FeatureMap, mode: &Mode) -> Vec<FeatureMap>;

    /// The pyramid of `x`, finest first: one map a stage, of the same kind as
    /// `x`.
    ///
    /// # Errors
    /// `x` is not `[N, in_chans, H, W]` (or its packed form) of a floating
    /// type with sides that are positive multiples of the total stride.
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> Result<Vec<FeatureMap>> {
        check_input(x, self.in_chans(), self.total_stride())?;
        Ok(self.forward_features(x, mode))
    }

    /// Stride of the coarsest level: the side of a mask patch in pixels.
    fn total_stride(&self) -> i64 {
        self.stages().last().map_or(1, |stage| stage.stride)
    }
}

fn check_input(x: &FeatureMap, in_chans: i64, stride: i64) -> Result<()> {
    let size = x.tensor().size();
    if size.len() != 4 || size[1] != in_chans {
        let rule = format!("the backbone takes [N, {in_chans}, H, W]");
        return Err(Error::invalid("input", format!("{size:?}"), rule));
    }
    if !x.tensor().is_floating_point() {
        let rule = "the backbone takes floating-point images (already normalised)";
        return Err(Error::invalid("input's kind", format!("{:?}", x.kind()), rule));
    }
    let (height, width) = x.grid_size();
    if size[0] == 0 || height == 0 || width == 0 || height % stride != 0 || width % stride != 0 {
        let rule = format!("its sides must be positive multiples of the total stride {stride}");
        return Err(Error::invalid("input", format!("{size:?}"), rule));
    }
    if let FeatureMap::Patches { mask, .. } = x {
        let patch = (size[2], size[3]);
        if size[0] != mask.visible_count() || patch.0 % stride != 0 || patch.1 % stride != 0 {
            let rule = format!(
                "{mask:?} needs that many patches, with sides that are multiples of the total \
                 stride {stride}"
            );
            return Err(Error::invalid("packed input", format!("{size:?}"), rule));
        }
    }
    Ok(())
}
