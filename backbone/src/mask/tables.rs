//! Index tables, made when first asked for and kept with their mask.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tch::Tensor;

use super::{Size, Window};
use crate::kernels::{Neighbours, RowTable};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Table {
    /// Rows of packed positions that fill a window of every visible patch.
    Windows(Size, Window),
    /// Grid segments (one patch wide) under the rows of every visible patch.
    Segments(Size),
    /// The same of every masked patch.
    MaskedSegments(Size),
    /// Visible positions of the grid, bool `[N, 1, H, W]`.
    Grid(Size),
    /// One where a window lies within the grid, `[V, 1, Lh, Lw]`.
    Inside(Size, Window),
    /// For every position of the grid and every tap of a kernel, the product of
    /// a visible position and a tap that falls on it.
    Products(Size, Size),
}

/// The tables of one mask.
#[derive(Default)]
pub(super) struct Tables {
    tensors: RefCell<HashMap<Table, Tensor>>,
    /// For the processor's kernels.
    rows: RefCell<HashMap<Table, Rc<RowTable>>>,
    neighbours: RefCell<HashMap<Table, Rc<Neighbours>>>,
}

impl Tables {
    pub fn tensor(&self, key: Table, make: impl FnOnce() -> Tensor) -> Tensor {
        if let Some(table) = self.tensors.borrow().get(&key) {
            return table.shallow_clone();
        }
        let table = tch::no_grad(make);
        self.tensors.borrow_mut().insert(key, table.shallow_clone());
        table
    }

    pub fn rows(&self, key: Table, make: impl FnOnce() -> RowTable) -> Rc<RowTable> {
        shared(&self.rows, key, make)
    }

    pub fn neighbours(&self, key: Table, make: impl FnOnce() -> Neighbours) -> Rc<Neighbours> {
        shared(&self.neighbours, key, make)
    }
}

fn shared<T>(
    tables: &RefCell<HashMap<Table, Rc<T>>>,
    key: Table,
    make: impl FnOnce() -> T,
) -> Rc<T> {
    if let Some(table) = tables.borrow().get(&key) {
        return Rc::clone(table);
    }
    let table = Rc::new(make());
    tables.borrow_mut().insert(key, Rc::clone(&table));
    table
}
