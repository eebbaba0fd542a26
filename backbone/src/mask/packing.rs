//! Between the grid and packed patches: cutting out, putting back, and the
//! windows of neighbours that kernels see.

use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use super::tables::Table;
use super::{Axis, Border, PatchMask, Size, Window};
use crate::kernels::{NOTHING, Neighbours, OUTSIDE, RowTable};

impl PatchMask {
    /// Cuts the visible patches out of a grid `[N, C, H, W]`: `[V, C, H/rows,
    /// W/cols]` in channels-last memory.
    pub fn pack(&self, grid: &Tensor) -> Tensor {
        self.cut(grid, Table::Segments)
    }

    /// Cuts the masked patches out of a grid `[N, C, H, W]`: `[M, C, H/rows,
    /// W/cols]` in channels-last memory, M = N·rows·cols − V.
    pub fn pack_masked(&self, grid: &Tensor) -> Tensor {
        self.cut(grid, Table::MaskedSegments)
    }

    /// The patches whose segments `which` lists.
    fn cut(&self, grid: &Tensor, which: impl Fn(Size) -> Table) -> Tensor {
        let (n, c, h, w) = grid.size4().expect("a grid has four dimensions");
        let patch = (h / self.rows, w / self.cols);
        assert!(
            n == self.batch && patch.0 * self.rows == h && patch.1 * self.cols == w,
            "a grid of {n}×{h}×{w} positions does not divide into {self:?}"
        );
        let segments = grid.permute([0, 2, 3, 1]).reshape([n * h * self.cols, patch.1 * c]);
        let rows = if self.on_processor() {
            self.segment_rows(which(patch)).sum(&segments, 0.0)
        } else {
            Tensor::embedding(&segments, &self.segments(which(patch)), -1, false, false)
        };
        rows.view([-1, patch.0, patch.1, c]).permute([0, 3, 1, 2])
    }

    /// Puts packed patches `[V, C, p, q]` back on the grid `[N, C, rows·p,
    /// cols·q]` (channels-last memory), zero where masked.
    pub fn unpack(&self, packed: &Tensor) -> Tensor {
        let (v, c, p, q) = packed.size4().expect("packed patches have four dimensions");
        assert_eq!(v, self.count, "{v} packed patches do not belong to {self:?}");
        let (h, w) = (p * self.rows, q * self.cols);
        let segments = packed.permute([0, 2, 3, 1]).reshape([v * p, q * c]);
        let rows = if self.on_processor() {
            self.segment_rows(Table::Segments((p, q))).sum_back(&segments)
        } else {
            let size = [self.batch * h * self.cols, q * c];
            let zeros = Tensor::zeros(size, (packed.kind(), packed.device()));
            zeros.index_copy(0, &self.segments(Table::Segments((p, q))), &segments)
        };
        rows.view([self.batch, h, w, c]).permute([0, 3, 1, 2])
    }

    /// What cuts the window of every visible patch out of packed patches of `patch`
    /// positions. Positions of visible patches hold their values, masked ones zero,
    /// those beyond the grid what `border` says.
    pub(crate) fn windows_of(&self, patch: Size, window: Window, border: Border) -> Windows {
        let rows = if self.on_processor() {
            Rows::Processor(self.window_rows(patch, window).shallow_clone())
        } else {
            Rows::Device(self.window_table(patch, window))
        };
        Windows { rows, window, border }
    }

    /// What each packed position `[V·p·q]` of a depthwise convolution reads.
    pub(crate) fn neighbours(&self, patch: Size, taps: Window) -> Rc<Neighbours> {
        self.tables.neighbours(Table::Windows(patch, taps), || {
            let names = to_names(&self.window_table(patch, taps), self.count * patch.0 * patch.1);
            Neighbours::new(&names, (taps.y.taps * taps.x.taps) as usize)
        })
    }

    /// [`PatchMask::window_table`] for the processor's kernels.
    fn window_rows(&self, patch: Size, window: Window) -> Rc<RowTable> {
        self.tables.rows(Table::Windows(patch, window), || {
            let positions = self.count * patch.0 * patch.1;
            let names = to_names(&self.window_table(patch, window), positions);
            RowTable::new(Tensor::from_slice(&names).unsqueeze(1), positions)
        })
    }

    /// One where a contiguous window lies within the grid and zero beyond,
    /// float64 `[V, 1, Lh, Lw]`, for patches of `patch` positions.
    pub(crate) fn inside(&self, patch: Size, window: Window) -> Tensor {
        self.tables.tensor(Table::Inside(patch, window), || {
            let outside = self.count * patch.0 * patch.1 + 1;
            let inside = self.window_table(patch, window).ne(outside).to_kind(Kind::Double);
            inside.view([self.count, 1, window.y.steps, window.x.steps])
        })
    }

    /// A window's positions in the order of [`Windows::cut`] as rows of
    /// packed positions `[V·p·q + 2]`, whose last two stand for masked
    /// positions and for those beyond the grid.
    fn window_table(&self, (p, q): Size, window: Window) -> Tensor {
        self.tables.tensor(Table::Windows((p, q), window), || {
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

    /// The sums over a kernel's taps on every position of the grid, `[N·H·W, K]`,
    /// of the products `[V·p·q·kh·kw, K]` of visible positions with the taps
    /// (stride 1, odd sides, padded to keep the size).
    pub(crate) fn add_products(&self, products: &Tensor, patch: Size, kernel: Size) -> Tensor {
        let rows =
            self.tables.rows(Table::Products(patch, kernel), || self.product_rows(patch, kernel));
        rows.sum(products, 0.0)
    }

    fn product_rows(&self, (p, q): Size, (kh, kw): Size) -> RowTable {
        let slots = Vec::<i64>::try_from(self.slots.view([-1])).expect("slots are int64");
        let (height, width) = (self.rows * p, self.cols * q);
        let mut names = Vec::with_capacity((self.batch * height * width * kh * kw) as usize);
        // The packed position at a place of the grid, if that is visible.
        let position = |image: i64, y: i64, x: i64| {
            if !(0..height).contains(&y) || !(0..width).contains(&x) {
                return None;
            }
            let slot = slots[((image * self.rows + y / p) * self.cols + x / q) as usize];
            (slot < self.count).then(|| (slot * p + y % p) * q + x % q)
        };
        for place in 0..self.batch * height * width {
            let (image, y, x) = (place / (height * width), place / width % height, place % width);
            for tap in 0..kh * kw {
                let (dy, dx) = (tap / kw - kh / 2, tap % kw - kw / 2);
                let product = position(image, y + dy, x + dx).map(|at| at * kh * kw + tap);
                names.push(product.unwrap_or(NOTHING));
            }
        }
        let products = self.count * p * q * kh * kw;
        RowTable::new(Tensor::from_slice(&names).view([-1, kh * kw]), products)
    }

    /// [`PatchMask::segments`] for the processor's kernels.
    fn segment_rows(&self, which: Table) -> Rc<RowTable> {
        let (Table::Segments(patch) | Table::MaskedSegments(patch)) = which else {
            unreachable!("{which:?} is no table of segments");
        };
        self.tables.rows(which, || {
            let segments = self.batch * self.rows * patch.0 * self.cols;
            RowTable::new(self.segments(which).unsqueeze(1), segments)
        })
    }

    /// Rows `[V·p]` (of masked patches `[M·p]`) into the grid cut into segments
    /// `[N·H·cols, q·C]`.
    fn segments(&self, which: Table) -> Tensor {
        self.tables.tensor(which, || {
            let (patches, patch) = match which {
                Table::MaskedSegments(patch) => (self.masked_patches(), patch),
                Table::Segments(patch) => (self.visible.shallow_clone(), patch),
                _ => unreachable!("{which:?} is no table of segments"),
            };
            let within = patches.remainder(self.cols);
            let row = patches.divide_scalar_mode(self.cols, "floor") * patch.0;
            let inner = Tensor::arange(patch.0, (Kind::Int64, self.device()));
            let rows = row.unsqueeze(1) + inner.unsqueeze(0);
            (rows * self.cols + within.unsqueeze(1)).view([-1])
        })
    }

    /// Row and column of every visible patch, int64 `[V]` each.
    fn patch_position(&self) -> (Tensor, Tensor) {
        let within = self.visible.remainder(self.rows * self.cols);
        (within.divide_scalar_mode(self.cols, "floor"), within.remainder(self.cols))
    }

    /// Whether the kernels for processors apply.
    fn on_processor(&self) -> bool {
        self.device() == Device::Cpu
    }
}

/// A window table's entries, of which `positions` stands for a masked position
/// and the next for one beyond the grid, as the kernels name them.
fn to_names(table: &Tensor, positions: i64) -> Vec<i64> {
    let rows = Vec::<i64>::try_from(table).expect("window tables are int64");
    let name = |row: i64| match row - positions {
        0 => NOTHING,
        1 => OUTSIDE,
        _ => row,
    };
    rows.into_iter().map(name).collect()
}

/// Cuts windows out of packed patches; unlike the mask it was made of, it can move to the thread
/// of a backward pass.
#[derive(Debug)]
pub(crate) struct Windows {
    rows: Rows,
    window: Window,
    border: Border,
}

/// The packed positions that fill the windows.
#[derive(Debug)]
enum Rows {
    Processor(RowTable),
    /// [`PatchMask::window_table`].
    Device(Tensor),
}

impl Windows {
    /// The windows `[V, steps, steps, taps, taps, C]` (rows before columns).
    pub fn cut(&self, packed: &Tensor) -> Tensor {
        let (v, c, p, q) = packed.size4().expect("packed patches have four dimensions");
        let rows = packed.permute([0, 2, 3, 1]).reshape([v * p * q, c]);
        let Window { y, x } = self.window;
        let outside = match self.border {
            Border::Zero => 0.0,
            Border::NegativeInfinity => f64::NEG_INFINITY,
        };
        let windows = match &self.rows {
            Rows::Processor(table) => table.sum(&rows, outside),
            Rows::Device(table) => {
                let options = (packed.kind(), packed.device());
                let zero = Tensor::zeros([1, c], options);
                let outside = Tensor::full([1, c], outside, options);
                let rows = Tensor::cat(&[rows, zero, outside], 0);
                Tensor::embedding(&rows, table, v * p * q, false, false)
            }
        };
        windows.view([v, y.steps, x.steps, y.taps, x.taps, c])
    }
}
