//! A pickle's stack machine, run without calling anything. Text and bytes
//! stay where they are in the file.

use std::collections::HashMap;

use super::opcode as op;
use super::parse::{Id, Node};
use super::text;

/// More values than any weight file has; a file that asks for more is an
/// attempt to fill the memory.
const MOST_NODES: usize = 5_000_000;

type Outcome<T> = std::result::Result<T, String>;

/// Runs the pickle at the beginning of `bytes`: its nodes, its value, and how many
/// bytes it takes.
///
/// # Errors
/// A sentence with the offset at which it goes wrong.
pub(super) fn run(bytes: &[u8]) -> Outcome<(Vec<Node<'_>>, Id, usize)> {
    let mut machine = Machine { bytes, ..Machine::default() };
    loop {
        let offset = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => return Ok((machine.nodes, root, machine.at)),
            Err(problem) => return Err(format!("{problem} (at byte {offset})")),
        }
    }
}

/// The machine's registers. Every reference on the stack and in the memo is a
/// valid index into `nodes`.
#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node<'a>>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// Executes one opcode; the root at the last one.
    fn step(&mut self) -> Outcome<Option<Id>> {
        let opcode = self.take(1)?[0];
        match opcode {
            op::STOP => return self.pop().map(Some),
            op::PROTO => self.protocol()?,
            op::FRAME => drop(self.take(8)?),
            op::MARK => self.marks.push(self.stack.len()),
            op::POP => drop(self.pop()?),
            op::POP_MARK => drop(self.since_mark()?),
            op::DUP => {
                let top = self.top()?;
                self.stack.push(top);
            }
            op::PUT | op::BINPUT | op::LONG_BINPUT | op::MEMOIZE => self.memoize(opcode)?,
            op::GET | op::BINGET | op::LONG_BINGET => self.recall(opcode)?,
            op::EMPTY_LIST | op::EMPTY_SET => self.push(Node::List(Vec::new()))?,
            op::EMPTY_TUPLE => self.push(Node::Tuple(Vec::new()))?,
            op::EMPTY_DICT => self.push(Node::Dict(Vec::new()))?,
            op::TUPLE1 | op::TUPLE2 | op::TUPLE3 => self.short_tuple(opcode)?,
            op::TUPLE => {
                let items = self.since_mark()?;
                self.push(Node::Tuple(items))?;
            }
            op::LIST | op::FROZENSET => {
                let items = self.since_mark()?;
                self.push(Node::List(items))?;
            }
            op::DICT => {
                let pairs = pairs(self.since_mark()?)?;
                self.push(Node::Dict(pairs))?;
            }
            op::APPEND => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            op::APPENDS | op::ADDITEMS => {
                let items = self.since_mark()?;
                self.extend(items)?;
            }
            op::SETITEM => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![(key, value)])?;
            }
            op::SETITEMS => {
                let pairs = pairs(self.since_mark()?)?;
                self.set(pairs)?;
            }
            op::GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Node::Global(module.into(), name.into()))?;
            }
            op::STACK_GLOBAL => self.stack_global()?,
            op::INST => {
                let class = Node::Global(self.line()?.into(), self.line()?.into());
                let args = Node::Tuple(self.since_mark()?);
                self.instance(class, args)?;
            }
            op::OBJ => {
                let mut items = self.since_mark()?.into_iter();
                let class = items.next().ok_or_else(underflow)?;
                self.push(Node::Tuple(items.collect()))?;
                let args = self.pop()?;
                self.call(class, args)?;
            }
            op::REDUCE | op::NEWOBJ => {
                let (args, callable) = (self.pop()?, self.pop()?);
                self.call(callable, args)?;
            }
            op::NEWOBJ_EX => {
                let (_keywords, args, callable) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(callable, args)?;
            }
            op::BUILD => self.build()?,
            op::BINPERSID => {
                let name = self.pop()?;
                self.push(Node::Persistent(name))?;
            }
            op::PERSID => {
                let name = Node::Text(self.line()?.into());
                self.push(name)?;
                let name = self.pop()?;
                self.push(Node::Persistent(name))?;
            }
            _ => {
                let scalar = self.scalar(opcode)?;
                self.push(scalar)?;
            }
        }
        Ok(None)
    }

    /// An object of protocol 0, whose class and arguments are not on the stack.
    fn instance(&mut self, class: Node<'a>, args: Node<'a>) -> Outcome<()> {
        self.push(class)?;
        self.push(args)?;
        let (args, class) = (self.pop()?, self.pop()?);
        self.call(class, args)
    }

    /// Numbers, text and bytes.
    fn scalar(&mut self, opcode: u8) -> Outcome<Node<'a>> {
        Ok(match opcode {
            op::NONE => Node::None,
            op::NEWTRUE => Node::Bool(true),
            op::NEWFALSE => Node::Bool(false),
            op::BININT1 => Node::Int(self.unsigned(1)? as i64),
            op::BININT2 => Node::Int(self.unsigned(2)? as i64),
            op::BININT => Node::Int(i64::from(self.unsigned(4)? as u32 as i32)),
            op::LONG1 => self.long(1)?,
            op::LONG4 => self.long(4)?,
            op::BINFLOAT => Node::Float(f64::from_bits(self.unsigned(8)?.swap_bytes())),
            op::SHORT_BINUNICODE => self.unicode(1)?,
            op::BINUNICODE => self.unicode(4)?,
            op::BINUNICODE8 => self.unicode(8)?,
            op::SHORT_BINSTRING | op::SHORT_BINBYTES => Node::Bytes(self.counted(1)?.into()),
            op::BINSTRING | op::BINBYTES => Node::Bytes(self.counted(4)?.into()),
            op::BINBYTES8 | op::BYTEARRAY8 => Node::Bytes(self.counted(8)?.into()),
            op::INT => text::integer(self.line()?)?,
            op::LONG => text::integer(self.line()?.trim_end_matches('L'))?,
            op::FLOAT => text::float(self.line()?)?,
            op::STRING => text::string(self.raw_line()?)?,
            op::UNICODE => text::unicode(self.raw_line()?)?,
            other => return Err(format!("opcode 0x{other:02x} is not one that weight files use")),
        })
    }

    fn protocol(&mut self) -> Outcome<()> {
        match self.take(1)?[0] {
            0..=5 => Ok(()),
            other => Err(format!("pickle protocol {other}, but 0 to 5 are known")),
        }
    }

    fn memoize(&mut self, opcode: u8) -> Outcome<()> {
        let key = match opcode {
            op::PUT => text::memo_key(self.line()?)?,
            op::BINPUT => self.unsigned(1)? as u32,
            op::LONG_BINPUT => self.unsigned(4)? as u32,
            _ => self.memo.len() as u32, // bounded by the file's length
        };
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, opcode: u8) -> Outcome<()> {
        let key = match opcode {
            op::GET => text::memo_key(self.line()?)?,
            op::BINGET => self.unsigned(1)? as u32,
            _ => self.unsigned(4)? as u32,
        };
        let id = *self.memo.get(&key).ok_or(format!("nothing was stored as number {key}"))?;
        self.stack.push(id);
        Ok(())
    }

    fn short_tuple(&mut self, opcode: u8) -> Outcome<()> {
        let count = usize::from(opcode - op::TUPLE1) + 1;
        let start = self.stack.len().checked_sub(count).ok_or_else(underflow)?;
        self.guard(start)?;
        let items = self.stack.split_off(start);
        self.push(Node::Tuple(items))
    }

    fn stack_global(&mut self) -> Outcome<()> {
        let (name, module) = (self.pop()?, self.pop()?);
        match (&self.nodes[module], &self.nodes[name]) {
            (Node::Text(module), Node::Text(name)) => {
                let node = Node::Global(module.clone(), name.clone());
                self.push(node)
            }
            _ => Err("a class name is not text".into()),
        }
    }

    fn call(&mut self, callable: Id, args: Id) -> Outcome<()> {
        let (items, elements) = (Vec::new(), Vec::new());
        self.push(Node::Call { callable, args, state: None, items, elements })
    }

    fn build(&mut self) -> Outcome<()> {
        let given = self.pop()?;
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::Call { state, .. } => *state = Some(given),
            // An object that lies elsewhere: what it is given is of no use.
            Node::Persistent(_) => {}
            _ => return Err("state for a value that takes none".into()),
        }
        Ok(())
    }

    fn extend(&mut self, more: Vec<Id>) -> Outcome<()> {
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::List(items) | Node::Call { elements: items, .. } => items.extend(more),
            Node::Persistent(_) => {}
            _ => return Err("elements for a value that is no list".into()),
        }
        Ok(())
    }

    fn set(&mut self, more: Vec<(Id, Id)>) -> Outcome<()> {
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::Dict(items) | Node::Call { items, .. } => items.extend(more),
            Node::Persistent(_) => {}
            _ => return Err("keys for a value that is no dictionary".into()),
        }
        Ok(())
    }

    fn push(&mut self, node: Node<'a>) -> Outcome<()> {
        if self.nodes.len() == MOST_NODES {
            return Err(format!("more than {MOST_NODES} values, which no weight file has"));
        }
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
        Ok(())
    }

    /// The last value, which must lie above the last mark.
    fn top(&self) -> Outcome<Id> {
        let start = self.stack.len().checked_sub(1).ok_or_else(underflow)?;
        self.guard(start)?;
        Ok(self.stack[start])
    }

    fn pop(&mut self) -> Outcome<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Refuses to reach below the last mark, as Python's machine does.
    fn guard(&self, start: usize) -> Outcome<()> {
        if self.marks.last().is_some_and(|&mark| start < mark) { Err(underflow()) } else { Ok(()) }
    }

    fn since_mark(&mut self) -> Outcome<Vec<Id>> {
        let mark = self.marks.pop().ok_or("a closing without its mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, count: usize) -> Outcome<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or_else(|| {
            format!("the file ends early: {count} bytes are announced, {} are there", rest.len())
        })?;
        self.at += count;
        Ok(taken)
    }

    /// A little-endian unsigned integer of `width` bytes, at most 8.
    fn unsigned(&mut self, width: usize) -> Outcome<u64> {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(self.take(width)?);
        Ok(u64::from_le_bytes(bytes))
    }

    fn counted(&mut self, width: usize) -> Outcome<&'a [u8]> {
        let length = self.unsigned(width)?;
        let length = usize::try_from(length).map_err(|_| format!("a length of {length} bytes"))?;
        self.take(length)
    }

    fn unicode(&mut self, width: usize) -> Outcome<Node<'a>> {
        // Lone surrogates, which Python may write, become replacement characters.
        Ok(Node::Text(String::from_utf8_lossy(self.counted(width)?)))
    }

    /// A two's complement integer with its length in front.
    fn long(&mut self, width: usize) -> Outcome<Node<'a>> {
        let digits = self.counted(width)?;
        if digits.len() > 8 {
            return Ok(Node::Huge);
        }
        let negative = digits.last().is_some_and(|&byte| byte >= 0x80);
        let mut bytes = [if negative { 0xff } else { 0 }; 8];
        bytes[..digits.len()].copy_from_slice(digits);
        Ok(Node::Int(i64::from_le_bytes(bytes)))
    }

    /// Text up to the end of the line, as `GLOBAL` has it.
    fn line(&mut self) -> Outcome<&'a str> {
        let line = self.raw_line()?;
        std::str::from_utf8(line).map_err(|_| "a class name that is not UTF-8".into())
    }

    /// Bytes up to the end of the line.
    fn raw_line(&mut self) -> Outcome<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or("a line that never ends")?;
        self.at += end + 1;
        Ok(&rest[..end])
    }
}

fn underflow() -> String {
    "it takes more values than it has put down".into()
}

fn pairs(items: Vec<Id>) -> Outcome<Vec<(Id, Id)>> {
    if items.len() % 2 == 1 {
        return Err("a dictionary with a key that has no value".into());
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}
