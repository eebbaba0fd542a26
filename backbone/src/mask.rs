//! Which patches of a batch are visible, and the index tables that let layers
//! work on those patches alone.
//!
//! Every table is computed once per mask with operations on the mask's device;
//! nothing here waits for the device after construction.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// Height and width of something, in positions.
pub type Size = (i64, i64);

/// What a patch's outputs see along one side, relative to the patch's first
/// position: `steps` steps of `stride`, at each of them `taps` positions
/// `dilation` apart. The first is `start` (negative for a halo before the
/// patch).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Axis {
    pub start: i64,
    pub steps: i64,
    pub stride: i64,
    pub taps: i64,
    pub dilation: i64,
}

impl Axis {
    /// `len` positions in a row.
    pub fn contiguous(start: i64, len: i64) -> Self {
        Self { start, steps: len, stride: 1, taps: 1, dilation: 1 }
    }

    /// One more than the last position.
    pub fn end(&self) -> i64 {
        self.start + (self.steps - 1) * self.stride + (self.taps - 1) * self.dilation + 1
    }

    /// The positions, `[steps, taps]`.
    fn positions(&self, device: Device) -> Tensor {
        let range = |len: i64| Tensor::arange(len, (Kind::Int64, device));
        (range(self.steps) * self.stride).unsqueeze(1)
            + range(self.taps) * self.dilation
            + self.start
    }
}

/// The part of the grid that a patch's outputs depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    pub y: Axis,
    pub x: Axis,
}

/// What a window holds where it reaches beyond the grid. Masked positions
/// within the grid are always zero (submanifold sparse semantics).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Border {
    Zero,
    NegativeInfinity,
}

#[derive(PartialEq, Eq, Hash)]
enum Table {
    /// Rows of packed positions that fill a window of every visible patch.
    Windows(Size, Window),
    /// Grid segments (one patch wide) under the rows of every visible patch.
    Segments(Size),
    /// Visible positions of the grid, bool `[N, 1, H, W]`.
    Grid(Size),
    /// One where a window lies within the grid, `[V, 1, Lh, Lw]`.
    Inside(Size, Window),
}

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
    tables: RefCell<HashMap<Table, Tensor>>,
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
        Ok(Rc::new(Self {
            batch,
            rows,
            cols,
            visible: Tensor::from_slice(visible).to_device(device),
            image: Tensor::from_slice(&image).to_device(device),
            slots: Tensor::from_slice(&slots).view([batch, rows, cols]).to_device(device),
            per_image: Tensor::from_slice(&per_image).to_device(device),
            count,
            tables: RefCell::default(),
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
        self.table(Table::Grid(patch), || {
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

    /// Cuts the visible patches out of a grid `[N, C, H, W]`: `[V, C, H/rows,
    /// W/cols]` in channels-last memory.
    pub fn pack(&self, grid: &Tensor) -> Tensor {
        let (n, c, h, w) = grid.size4().expect("a grid has four dimensions");
        let patch = (h / self.rows, w / self.cols);
        assert!(
            n == self.batch && patch.0 * self.rows == h && patch.1 * self.cols == w,
            "a grid of {n}×{h}×{w} positions does not divide into {self:?}"
        );
        let segments = grid.permute([0, 2, 3, 1]).reshape([n * h * self.cols, patch.1 * c]);
        Tensor::embedding(&segments, &self.segments(patch), -1, false, false)
            .view([self.count, patch.0, patch.1, c])
            .permute([0, 3, 1, 2])
    }

    /// Puts packed patches `[V, C, p, q]` back on the grid `[N, C, rows·p,
    /// cols·q]` (channels-last memory), zero where masked.
    pub fn unpack(&self, packed: &Tensor) -> Tensor {
        let (v, c, p, q) = packed.size4().expect("packed patches have four dimensions");
        assert_eq!(v, self.count, "{v} packed patches do not belong to {self:?}");
        let (h, w) = (p * self.rows, q * self.cols);
        let segments = packed.permute([0, 2, 3, 1]).reshape([v * p, q * c]);
        Tensor::zeros([self.batch * h * self.cols, q * c], (packed.kind(), packed.device()))
            .index_copy(0, &self.segments((p, q)), &segments)
            .view([self.batch, h, w, c])
            .permute([0, 3, 1, 2])
    }

    /// The window of every visible patch, `[V, steps, steps, taps, taps, C]`
    /// (rows before columns): positions of visible patches hold their values,
    /// masked ones zero, those beyond the grid what `border` says.
    pub(crate) fn windows(&self, packed: &Tensor, window: Window, border: Border) -> Tensor {
        let (v, c, p, q) = packed.size4().expect("packed patches have four dimensions");
        let rows = packed.permute([0, 2, 3, 1]).reshape([v * p * q, c]);
        let options = (packed.kind(), packed.device());
        let zero = Tensor::zeros([1, c], options);
        let outside = match border {
            Border::Zero => zero.shallow_clone(),
            Border::NegativeInfinity => Tensor::full([1, c], f64::NEG_INFINITY, options),
        };
        let rows = Tensor::cat(&[rows, zero, outside], 0);
        let table = self.window_table((p, q), window);
        let Window { y, x } = window;
        Tensor::embedding(&rows, &table, v * p * q, false, false)
            .view([v, y.steps, x.steps, y.taps, x.taps, c])
    }

    /// One where a contiguous window lies within the grid and zero beyond,
    /// float64 `[V, 1, Lh, Lw]`, for patches of `patch` positions.
    pub(crate) fn inside(&self, patch: Size, window: Window) -> Tensor {
        self.table(Table::Inside(patch, window), || {
            let outside = self.count * patch.0 * patch.1 + 1;
            let inside = self.window_table(patch, window).ne(outside).to_kind(Kind::Double);
            inside.view([self.count, 1, window.y.steps, window.x.steps])
        })
    }

    /// A window's positions in the order of [`PatchMask::windows`] as rows of
    /// packed positions `[V·p·q + 2]`, whose last two stand for masked
    /// positions and for those beyond the grid.
    fn window_table(&self, (p, q): Size, window: Window) -> Tensor {
        self.table(Table::Windows((p, q), window), || {
            // Along one axis, each position of a window lies in a patch some
            // steps away (`step`) and at a place within that patch (`inner`).
            let along = |axis: Axis, size: i64| {
                let positions = axis.positions(self.device());
                let step = positions.divide_scalar_mode(size, "floor");
                let reach = (-axis.start.div_euclid(size)).max((axis.end() - 1).div_euclid(size));
                (step, positions.remainder(size), reach.max(0))
            };
            let (step_y, inner_y, reach_y) = along(window.y, p);
            let (step_x, inner_x, reach_x) = along(window.x, q);

            let beyond_grid = (self.count + 1) as f64;
            let frame = [reach_x, reach_x, reach_y, reach_y];
            let slots = self.slots.pad(frame, "constant", beyond_grid);
            let (height, width) = (self.rows + 2 * reach_y, self.cols + 2 * reach_x);
            let (y, x) = self.patch_position();
            // Dimensions: patch, step and tap along y, step and tap along x.
            let row = (&self.image * height + y + reach_y).view([-1, 1, 1]) + step_y;
            let col = (x + reach_x).view([-1, 1, 1]) + step_x;
            let flat = row.unsqueeze(-1).unsqueeze(-1) * width + col.unsqueeze(1).unsqueeze(1);
            let slot = slots.view([-1]).index_select(0, &flat.view([-1])).view_as(&flat);

            let inner = (inner_y * q).unsqueeze(-1).unsqueeze(-1) + inner_x;
            let within = &slot * (p * q) + inner;
            let beyond = &slot + (p * q - 1) * self.count;
            let table = within.where_self(&slot.lt(self.count), &beyond);
            table.permute([0, 1, 3, 2, 4]).reshape([-1])
        })
    }

    /// Rows `[V·p]` into the grid cut into segments `[N·H·cols, q·C]`.
    fn segments(&self, (p, q): Size) -> Tensor {
        self.table(Table::Segments((p, q)), || {
            let (y, x) = self.patch_position();
            let inner = Tensor::arange(p, (Kind::Int64, self.device()));
            let row = (&self.image * (self.rows * p) + y * p).unsqueeze(1) + inner.unsqueeze(0);
            (row * self.cols + x.unsqueeze(1)).view([-1])
        })
    }

    /// Row and column of every visible patch, int64 `[V]` each.
    fn patch_position(&self) -> (Tensor, Tensor) {
        let within = self.visible.remainder(self.rows * self.cols);
        (within.divide_scalar_mode(self.cols, "floor"), within.remainder(self.cols))
    }

    fn table(&self, key: Table, make: impl FnOnce() -> Tensor) -> Tensor {
        if let Some(table) = self.tables.borrow().get(&key) {
            return table.shallow_clone();
        }
        let table = tch::no_grad(make);
        self.tables.borrow_mut().insert(key, table.shallow_clone());
        table
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
