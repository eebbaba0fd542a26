//! What a convnet must offer to be pretrained, fine-tuned, embedded and
//! detected with.

use std::fmt::Debug;

use crate::layers::check_values;
use crate::mode::Mode;
use crate::{Error, FeatureMap, Module, PatchMask, Result};

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

    /// Whether every stage has batch norms. In training they need more than one
    /// value a channel, which [`Backbone::forward`] checks before any running
    /// statistic changes.
    fn has_batch_norms(&self) -> bool {
        false
    }

    /// Number of residual blocks that drop-path draws for, see
    /// [`DropPathDraws::Table`](crate::DropPathDraws::Table); 0 where none is ever dropped.
    fn drop_path_blocks(&self) -> usize {
        0
    }

    /// Index of the stage that the parameter or buffer `name` belongs to, as
    /// [`Mode::freeze_at`] counts: 0 the stem, 1 the first of
    /// [`Backbone::stages`], … `None`: unknown, so that it is never frozen.
    fn stage_index(&self, _name: &str) -> Option<usize> {
        None
    }

    /// Layer of layer-wise learning rates that the parameter `name` belongs to, 0 the nearest to
    /// the image. `None` for all: the network does not say, and its stages and blocks decide; for
    /// some: they stand behind it.
    fn layer_index(&self, _name: &str) -> Option<usize> {
        None
    }

    /// Whether the maps of the first `stages` stages depend on the parameter or buffer
    /// `name`.
    fn is_used(&self, name: &str, stages: usize) -> bool {
        self.stage_index(name).is_none_or(|index| index <= stages)
    }

    /// The layers with parameters, by name, for hosts that look for PyTorch's modules.
    /// Those left out are modules of no particular kind to a host.
    fn modules(&self) -> Vec<(String, Module)> {
        Vec::new()
    }

    /// The pyramid of `x`, finest first, as far as [`Mode::stages`]. `x` has
    /// been checked: call [`Backbone::forward`] unless you have done so.
    fn forward_features(&self, x: &FeatureMap, mode: &Mode) -> Vec<FeatureMap>;

    /// The pyramid of `x`, finest first: one map a stage, of the same kind as
    /// `x`.
    ///
    /// # Errors
    /// `x` is not `[N, in_chans, H, W]` (or its packed form) of a floating
    /// type with sides of at least the total stride, or, under a mask, that are
    /// no multiples of it; or its mask has another size or patches that are not
    /// multiples of that stride; or it leaves batch norms one value a channel
    /// to learn from.
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> Result<Vec<FeatureMap>> {
        check_input(x, self.in_chans(), self.total_stride())?;
        if self.has_batch_norms() {
            check_statistics(self, x, mode)?;
        }
        Ok(self.forward_features(x, mode))
    }

    /// Stride of the coarsest level: the side of a mask patch in pixels.
    fn total_stride(&self) -> i64 {
        self.stages().last().map_or(1, |stage| stage.stride)
    }
}

pub(crate) fn check_input(x: &FeatureMap, in_chans: i64, stride: i64) -> Result<()> {
    let size = x.tensor().size();
    if size.len() != 4 || size[1] != in_chans {
        let rule = format!("the backbone takes [N, {in_chans}, H, W]");
        return Err(Error::invalid("input", format!("{size:?}"), rule));
    }
    if !x.tensor().is_floating_point() {
        let rule = "the backbone takes floating-point images (already normalised)";
        return Err(Error::invalid("input's kind", format!("{:?}", x.kind()), rule));
    }
    if size[0] == 0 {
        return Err(Error::invalid(
            "input",
            format!("{size:?}"),
            "it must hold at least one image",
        ));
    }
    let (height, width) = x.grid_size();
    if height < stride || width < stride {
        let rule = format!("its sides must be at least the total stride {stride}");
        return Err(Error::invalid("input", format!("{size:?}"), rule));
    }
    if let Some(mask) = x.mask() {
        check_mask(x, mask, stride)?;
    }
    Ok(())
}

/// Batch norms of the coarsest stage that is computed have the fewest values.
pub(crate) fn check_statistics(
    backbone: &(impl Backbone + ?Sized),
    x: &FeatureMap,
    mode: &Mode,
) -> Result<()> {
    let stages = backbone.stages();
    let computed = &stages[..mode.stages.min(stages.len())];
    let Some(&Stage { channels, stride }) = computed.last() else { return Ok(()) };
    if computed.len() < mode.freeze_at {
        return Ok(());
    }
    let (height, width) = x.grid_size();
    let (images, height, width) = match x.mask() {
        None => (x.batch(), height, width),
        Some(mask) => {
            let (rows, cols) = mask.patches();
            (mask.visible_count(), height / rows, width / cols)
        }
    };
    let positions = |side: i64| (side + stride - 1) / stride;
    let size = [images, channels, positions(height), positions(width)];
    let checked = check_values(&format!("{:?}", x.tensor().size()), &size);
    let shared = mode.sync_batch_norm.is_some();
    if checked.is_err() && !shared && learns_statistics(backbone, computed.len(), mode) {
        return checked;
    }
    Ok(())
}

/// Whether a batch norm of the stage uses the batch's statistics.
fn learns_statistics(backbone: &(impl Backbone + ?Sized), stage_index: usize, mode: &Mode) -> bool {
    let modules = backbone.modules().into_iter();
    let mut of_stage = modules
        .filter(|(name, _)| backbone.stage_index(&format!("{name}.weight")) == Some(stage_index))
        .filter_map(|(_, module)| match module {
            Module::BatchNorm2d { control, .. } => Some(control),
            _ => None,
        })
        .peekable();
    // Where layers are not told, all run as the pass does.
    match of_stage.peek() {
        None => mode.uses_batch_statistics(),
        Some(_) => of_stage.any(|control| control.uses_batch_statistics(mode)),
    }
}

/// A mask must belong to `x`, and its patches must still be whole positions at
/// the coarsest level.
fn check_mask(x: &FeatureMap, mask: &PatchMask, stride: i64) -> Result<()> {
    let (rows, cols) = mask.patches();
    let (height, width) = x.grid_size();
    let first = x.tensor().size()[0];
    let fits = match x {
        FeatureMap::Patches { .. } => first == mask.visible_count(),
        _ => first == mask.batch() && height % rows == 0 && width % cols == 0,
    };
    if !fits {
        let rule = format!("it must be the map that {mask:?} was made for");
        return Err(Error::invalid("masked input", format!("{:?}", x.tensor().size()), rule));
    }
    if height % stride != 0 || width % stride != 0 {
        let value = format!("{height}×{width} pixels");
        let rule = format!("its sides must be multiples of the total stride {stride}");
        return Err(Error::invalid("masked input", value, rule));
    }
    let patch = (height / rows, width / cols);
    if patch.0 % stride != 0 || patch.1 % stride != 0 {
        let value = format!("{}×{} pixels", patch.0, patch.1);
        let rule = format!("its sides must be multiples of the total stride {stride}");
        return Err(Error::invalid("mask patch", value, rule));
    }
    Ok(())
}
