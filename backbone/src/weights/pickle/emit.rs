//! Writes pickles, streaming: each method puts out one value or one operation.

use std::io::{Result, Write};

use super::opcode as op;

/// A pickle being written to `W`.
pub(crate) struct Emitter<W> {
    out: W,
}

impl<W: Write> Emitter<W> {
    /// Begins a pickle of `protocol`.
    pub(crate) fn new(mut out: W, protocol: u8) -> Result<Self> {
        out.write_all(&[op::PROTO, protocol])?;
        Ok(Emitter { out })
    }

    /// Ends the pickle; the value on top of the stack is its content.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.out.write_all(&[op::STOP])
    }

    pub(crate) fn bool(&mut self, value: bool) -> Result<()> {
        self.out.write_all(&[if value { op::NEWTRUE } else { op::NEWFALSE }])
    }

    pub(crate) fn int(&mut self, value: i64) -> Result<()> {
        match i32::try_from(value) {
            Ok(small) => {
                self.out.write_all(&[op::BININT])?;
                self.out.write_all(&small.to_le_bytes())
            }
            Err(_) => {
                self.out.write_all(&[op::LONG1, 8])?;
                self.out.write_all(&value.to_le_bytes())
            }
        }
    }

    pub(crate) fn text(&mut self, value: &str) -> Result<()> {
        self.out.write_all(&[op::BINUNICODE])?;
        self.out.write_all(&length32(value.len())?)?;
        self.out.write_all(value.as_bytes())
    }

    /// Bytes of any length: needs protocol 4.
    pub(crate) fn bytes(&mut self, value: &[u8]) -> Result<()> {
        self.out.write_all(&[op::BINBYTES8])?;
        self.out.write_all(&(value.len() as u64).to_le_bytes())?;
        self.out.write_all(value)
    }

    /// The Python object `module.name`.
    pub(crate) fn global(&mut self, module: &str, name: &str) -> Result<()> {
        self.out.write_all(&[op::GLOBAL])?;
        write!(self.out, "{module}\n{name}\n")
    }

    /// A tuple of integers.
    pub(crate) fn int_tuple(&mut self, values: &[i64]) -> Result<()> {
        self.mark()?;
        values.iter().try_for_each(|&value| self.int(value))?;
        self.tuple()
    }
}

/// Methods that put out one operation each.
macro_rules! operations {
    ($( $(#[$meta:meta])* $name:ident = $opcode:ident; )*) => {
        impl<W: Write> Emitter<W> {
            $( $(#[$meta])* pub(crate) fn $name(&mut self) -> Result<()> {
                self.out.write_all(&[op::$opcode])
            } )*
        }
    };
}

operations! {
    none = NONE;
    empty_dict = EMPTY_DICT;
    empty_tuple = EMPTY_TUPLE;
    /// Marks where a tuple or a run of dictionary items begins.
    mark = MARK;
    /// Makes a tuple of what came since the mark.
    tuple = TUPLE;
    /// Puts the keys and values since the mark into the dictionary below it.
    set_items = SETITEMS;
    /// Calls the callable below the argument tuple.
    reduce = REDUCE;
    /// Gives the object below its state.
    build = BUILD;
    /// Makes the tuple on top a persistent id.
    persistent_id = BINPERSID;
}

fn length32(length: usize) -> Result<[u8; 4]> {
    u32::try_from(length)
        .map(u32::to_le_bytes)
        .map_err(|_| std::io::Error::other("a name is longer than 4 GiB"))
}
