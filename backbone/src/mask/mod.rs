//! Which patches of a batch are visible, and the index tables that let layers
//! work on those patches alone.
//!
//! Every table is computed once per mask with operations on the mask's device;
//! nothing here waits for the device after construction.

mod packing;
mod tables;
mod window;

use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use self::tables::{Table, Tables};
pub(crate) use self::window::{Axis, Border, Window};
use crate::{Error, Result, to_device_nonblocking};

/// Height and width of something, in positions.
pub type Size = (i64, i64);

/// The visible patches of a batch of `batch` images, each cut into
/// `rows × cols` patches. Any number of patches per image may be visible.
///
/// Source: "Designing BERT for Convolutional Networks" (SparK), section 3.1.
pub struct PatchMask {
    batch: i64,
    rows: i64,
    cols: i64,
    /// `[V]`, ascending: `(image · rows + row) · cols + col`.
    visible: Tensor,
    /// `[V]`: the image each visible patch belongs to.
    image: Tensor,
    /// `[N, rows, cols]`: index into `visible`, or V where masked.
    slots: Tensor,
    /// `[N]`: visible patches per image, float64.
    per_image: Tensor,
    count: i64,
    /// Whether every image has as many visible patches.
    equal_counts: bool,
    tables: Tables,
}

impl std::fmt::Debug for PatchMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { batch, rows, cols, count, .. } = self;
        write!(f, "PatchMask({count} visible of {batch}×{rows}×{cols})")
    }
}

impl PatchMask {
    /// A mask from the visible patches' flat indices,
    /// `(image · rows + row) · cols + col`, in ascending order.
    ///
    /// # Errors
    /// No patch visible, indices that are out of range or not ascending, or a
    /// batch or patch grid that is not positive.
    pub fn from_visible(
        batch: i64,
        (rows, cols): Size,
        visible: &[i64],
        device: Device,
    ) -> Result<Rc<Self>> {
        let total = patch_count(batch, (rows, cols))?;
        let ascending = visible.windows(2).all(|pair| pair[0] < pair[1]);
        let in_range = visible.iter().all(|&index| (0..total).contains(&index));
        if visible.is_empty() || !ascending || !in_range {
            let shown = &visible[..visible.len().min(4)];
            let value = format!("{} indices beginning with {shown:?}", visible.len());
            let rule = format!(
                "at least one patch must be visible and indices must ascend within 0..{total} \
                 ({batch} images of {rows}×{cols} patches)"
            );
            return Err(Error::invalid("visible", value, rule));
        }
        let count = visible.len() as i64;
        let mut slots = vec![count; total as usize];
        let mut image = Vec::with_capacity(visible.len());
        let mut per_image = vec![0f64; batch as usize];
        for (slot, &index) in visible.iter().enumerate() {
            let owner = index / (rows * cols);
            slots[index as usize] = slot as i64;
            image.push(owner);
            per_image[owner as usize] += 1.0;
        }
        let equal_counts = per_image.windows(2).all(|pair| pair[0] == pair[1]);
        Ok(Rc::new(Self {
            equal_counts,
            batch,
            rows,
            cols,
            visible: to_device_nonblocking(&Tensor::from_slice(visible), device),
            image: to_device_nonblocking(&Tensor::from_slice(&image), device),
            slots: to_device_nonblocking(
                &Tensor::from_slice(&slots).view([batch, rows, cols]),
                device,
            ),
            per_image: to_device_nonblocking(&Tensor::from_slice(&per_image), device),
            count,
            tables: Tables::default(),
        }))
    }

    /// A mask from `active`, bool `[N, 1, rows, cols]`, true where visible.
    /// Copies `active` to the host once.
    ///
    /// # Errors
    /// Another shape or kind, or no patch visible.
    pub fn from_active(active: &Tensor) -> Result<Rc<Self>> {
        let size = active.size();
        let (&[batch, 1, rows, cols], Kind::Bool) = (size.as_slice(), active.kind()) else {
            let value = format!("{:?} {size:?}", active.kind());
            return Err(Error::invalid("active", value, "it must be Bool [N, 1, rows, cols]"));
        };
        let flags = Vec::<bool>::try_from(active.to_device(Device::Cpu).reshape([-1]))?;
        let visible: Vec<i64> =
            flags.iter().enumerate().filter(|(_, on)| **on).map(|(i, _)| i as i64).collect();
        Self::from_visible(batch, (rows, cols), &visible, active.device())
    }

    /// A mask that hides nothing.
    ///
    /// # Errors
    /// A batch or patch grid that is not positive.
    pub fn all_visible(batch: i64, patches: Size, device: Device) -> Result<Rc<Self>> {
        let visible: Vec<i64> = (0..patch_count(batch, patches)?).collect();
        Self::from_visible(batch, patches, &visible, device)
    }

    /// Number of images, N.
    pub fn batch(&self) -> i64 {
        self.batch
    }

    /// Patches per image, (rows, columns).
    pub fn patches(&self) -> Size {
        (self.rows, self.cols)
    }

    /// Number of visible patches of the whole batch, V.
    pub fn visible_count(&self) -> i64 {
        self.count
    }

    /// Whether every image has as many visible patches.
    pub(crate) fn has_equal_counts(&self) -> bool {
        self.equal_counts
    }

    /// The device of the index tables.
    pub fn device(&self) -> Device {
        self.visible.device()
    }

    /// Image index of every visible patch, int64 `[V]`.
    pub fn image_of_patch(&self) -> &Tensor {
        &self.image
    }

    /// Visible patches of every image, float64 `[N]`.
    pub fn visible_per_image(&self) -> &Tensor {
        &self.per_image
    }

    /// True where visible, bool `[N, 1, rows·patch.0, cols·patch.1]`: the mask
    /// at a level where a patch measures `patch` positions.
    pub fn active(&self, patch: Size) -> Tensor {
        self.tables.tensor(Table::Grid(patch), || {
            self.slots
                .lt(self.count)
                .repeat_interleave_self_int(patch.0, 1, None)
                .repeat_interleave_self_int(patch.1, 2, None)
                .unsqueeze(1)
        })
    }

    /// Flat indices of the masked patches, int64 `[N·rows·cols − V]`, ascending.
    pub fn masked_patches(&self) -> Tensor {
        // A stable sort puts the masked patches behind the visible ones and
        // keeps their order; unlike `nonzero` it needs no word from the device.
        let masked = self.slots.view([-1]).eq(self.count).to_kind(Kind::Int64);
        let order = masked.sort_stable(true, 0, false).1;
        order.narrow(0, self.count, self.batch * self.rows * self.cols - self.count)
    }
}

/// Patches of the whole batch.
fn patch_count(batch: i64, (rows, cols): Size) -> Result<i64> {
    let total = batch.checked_mul(rows).and_then(|count| count.checked_mul(cols));
    match total {
        Some(total) if batch > 0 && rows > 0 && cols > 0 => Ok(total),
        _ => {
            let rule = "all three must be positive and their product must fit 64 bits";
            Err(Error::invalid("mask size", format!("{batch}×{rows}×{cols} patches"), rule))
        }
    }
}
