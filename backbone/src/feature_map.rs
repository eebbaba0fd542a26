//! The kinds of feature map a layer computes on.

use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use crate::mask::{PatchMask, Size};
use crate::{Error, Result};

/// A batch of feature maps, all images of one size.
#[derive(Debug)]
pub enum FeatureMap {
    /// The whole grid, `[N, C, H, W]`: detection, classification, embedding.
    Grid(Tensor),
    /// The visible patches alone: pretraining without the masked work.
    Patches {
        /// `[V, C, p, q]` for V visible patches of p×q positions, preferably
        /// in channels-last memory.
        packed: Tensor,
        /// Where the patches lie.
        mask: Rc<PatchMask>,
    },
    /// The whole grid, `[N, C, H, W]`, kept zero where masked. Every layer
    /// computes densely and masks its result, as the official SparK code does:
    /// the reference that `Patches` is checked and timed against.
    Masked {
        /// `[N, C, H, W]`, zero where masked.
        grid: Tensor,
        /// Which patches are visible.
        mask: Rc<PatchMask>,
    },
}

impl Clone for FeatureMap {
    /// Shares the tensors.
    fn clone(&self) -> Self {
        self.with(self.tensor().shallow_clone())
    }
}

impl FeatureMap {
    /// The visible patches of `grid`, `[N, C, H, W]`.
    ///
    /// # Errors
    /// The grid's batch differs from the mask's or its sides do not divide
    /// into the mask's patches.
    pub fn patches(grid: &Tensor, mask: &Rc<PatchMask>) -> Result<Self> {
        check_fit(grid, mask)?;
        Ok(Self::Patches { packed: mask.pack(grid), mask: Rc::clone(mask) })
    }

    /// The reference execution on `grid`, `[N, C, H, W]`, under `mask`.
    ///
    /// # Errors
    /// As [`FeatureMap::patches`].
    pub fn masked(grid: &Tensor, mask: &Rc<PatchMask>) -> Result<Self> {
        check_fit(grid, mask)?;
        Ok(Self::remask(grid.shallow_clone(), mask))
    }

    /// The tensor as it is stored, whichever kind this is.
    pub fn tensor(&self) -> &Tensor {
        match self {
            Self::Grid(tensor)
            | Self::Patches { packed: tensor, .. }
            | Self::Masked { grid: tensor, .. } => tensor,
        }
    }

    /// The patch mask, unless this is the whole grid.
    pub fn mask(&self) -> Option<&Rc<PatchMask>> {
        match self {
            Self::Grid(_) => None,
            Self::Patches { mask, .. } | Self::Masked { mask, .. } => Some(mask),
        }
    }

    /// The map on the grid, `[N, C, H, W]`, zero where masked.
    pub fn to_grid(&self) -> Tensor {
        match self {
            Self::Grid(tensor) | Self::Masked { grid: tensor, .. } => tensor.shallow_clone(),
            Self::Patches { packed, mask } => mask.unpack(packed),
        }
    }

    /// Number of channels, C.
    pub fn channels(&self) -> i64 {
        self.tensor().size()[1]
    }

    /// Number of images, N.
    pub fn batch(&self) -> i64 {
        self.mask().map_or_else(|| self.tensor().size()[0], |mask| mask.batch())
    }

    /// Height and width of the grid in positions.
    pub fn grid_size(&self) -> Size {
        let size = self.tensor().size();
        match self {
            Self::Patches { mask, .. } => (size[2] * mask.patches().0, size[3] * mask.patches().1),
            _ => (size[2], size[3]),
        }
    }

    /// Element type.
    pub fn kind(&self) -> Kind {
        self.tensor().kind()
    }

    /// Device of the tensor.
    pub fn device(&self) -> Device {
        self.tensor().device()
    }

    /// Applies `f`, which must treat every position alike and may change the
    /// number of channels.
    pub fn map(&self, f: impl FnOnce(&Tensor) -> Tensor) -> Self {
        self.with(f(self.tensor()))
    }

    /// Adds two maps of one kind, size and mask.
    pub fn add(&self, other: &Self) -> Self {
        self.with(self.tensor() + other.tensor())
    }

    /// Applies `f` to the visible positions only, gathered as `[V, C, p, q]`
    /// (the grid itself where nothing is masked): for what mixes positions,
    /// such as normalisation statistics.
    pub fn map_visible(&self, f: impl FnOnce(&Tensor) -> Tensor) -> Self {
        match self {
            Self::Grid(_) | Self::Patches { .. } => self.map(f),
            Self::Masked { grid, mask } => {
                let grid = mask.unpack(&f(&mask.pack(grid)));
                Self::Masked { grid, mask: Rc::clone(mask) }
            }
        }
    }

    /// Shape of the tensor that [`FeatureMap::map_visible`] passes on.
    pub(crate) fn visible_size(&self) -> Vec<i64> {
        let mut size = self.tensor().size();
        if let Self::Masked { mask, .. } = self {
            let (rows, cols) = mask.patches();
            size = vec![mask.visible_count(), size[1], size[2] / rows, size[3] / cols];
        }
        size
    }

    /// Multiplies every position of image n by `scale[n]`; `scale` is `[N]` or
    /// `[N, C]`.
    pub fn scale_images(&self, scale: &Tensor) -> Self {
        let scale = self.beside_images(scale);
        self.map(|tensor| tensor * scale)
    }

    /// `values` of every image, `[N]` or `[N, C]`, to be broadcast over the stored
    /// tensor: `[V or N, 1 or C, 1, 1]`.
    pub(crate) fn beside_images(&self, values: &Tensor) -> Tensor {
        let channels = if values.dim() == 1 { 1 } else { values.size()[1] };
        let values = match self {
            Self::Patches { mask, .. } => values.index_select(0, mask.image_of_patch()),
            _ => values.shallow_clone(),
        };
        values.view([-1, channels, 1, 1])
    }

    /// Sums `[V or N, …]`, one row a patch (or image), to `[N, …]`, one row an
    /// image.
    pub(crate) fn sum_images(&self, rows: &Tensor) -> Tensor {
        match self {
            Self::Patches { mask, .. } => {
                let mut size = rows.size();
                size[0] = mask.batch();
                Tensor::zeros(&size, (rows.kind(), rows.device())).index_add(
                    0,
                    mask.image_of_patch(),
                    rows,
                )
            }
            _ => rows.shallow_clone(),
        }
    }

    /// Visible positions of every image, `[N]`, at least one, so that an image
    /// without visible patches divides to zero. In `kind`, which must count
    /// exactly: bfloat16 rounds above 256, float16 ends at 65504.
    pub(crate) fn positions_per_image(&self, kind: Kind) -> Tensor {
        let (height, width) = self.grid_size();
        match self.mask() {
            None => Tensor::full([self.batch()], height * width, (kind, self.device())),
            Some(mask) => {
                let per_patch = height * width / (mask.patches().0 * mask.patches().1);
                (mask.visible_per_image() * per_patch).clamp_min(1).to_kind(kind)
            }
        }
    }

    /// A map of the same kind around another tensor; masks it again where the
    /// kind needs that.
    fn with(&self, tensor: Tensor) -> Self {
        match self {
            Self::Grid(_) => Self::Grid(tensor),
            Self::Patches { mask, .. } => Self::Patches { packed: tensor, mask: Rc::clone(mask) },
            Self::Masked { mask, .. } => Self::remask(tensor, mask),
        }
    }

    /// `grid` with zeros where masked.
    pub(crate) fn remask(grid: Tensor, mask: &Rc<PatchMask>) -> Self {
        let (rows, cols) = mask.patches();
        let patch = (grid.size()[2] / rows, grid.size()[3] / cols);
        let grid = grid.masked_fill(&mask.active(patch).logical_not(), 0);
        Self::Masked { grid, mask: Rc::clone(mask) }
    }
}

fn check_fit(grid: &Tensor, mask: &PatchMask) -> Result<()> {
    let (rows, cols) = mask.patches();
    match grid.size()[..] {
        [n, _, h, w] if n == mask.batch() && h > 0 && h % rows == 0 && w > 0 && w % cols == 0 => {}
        _ => {
            let rule = format!(
                "it must be [N, C, H, W] with N = {} and sides that are multiples of the mask's \
                 {rows}×{cols} patches",
                mask.batch()
            );
            return Err(Error::invalid("input", format!("{:?}", grid.size()), rule));
        }
    }
    if grid.device() != mask.device() {
        let rule = format!("the mask is on {:?}", mask.device());
        return Err(Error::invalid("input's device", format!("{:?}", grid.device()), rule));
    }
    Ok(())
}
