//! A parsed pickle: nodes in one list that refer to each other by index, so
//! shared and even cyclic values cost nothing. A call stays a node that says
//! what would have been called with what.

use std::borrow::Cow;

use super::machine;

/// A node's place in its [`Pickle`].
pub(crate) type Id = usize;

/// One value of a pickle. `'a` is the file's bytes.
#[derive(Debug)]
pub(crate) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// A `str`.
    Text(Cow<'a, str>),
    /// `bytes`, a `bytearray`, or a Python 2 `str`.
    Bytes(&'a [u8]),
    /// A list, or a set.
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function by module and name.
    Global(Cow<'a, str>, Cow<'a, str>),
    /// An object: what makes it, from what, and what it was given afterwards.
    Call {
        callable: Id,
        args: Id,
        state: Option<Id>,
        items: Vec<(Id, Id)>,
    },
    /// An integer of more than 64 bits.
    Huge,
}

/// A parsed pickle.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    /// The pickle's value.
    pub(crate) root: Id,
}

impl<'a> Pickle<'a> {
    /// Parses the pickle at the beginning of `bytes`.
    ///
    /// # Errors
    /// A sentence with the offset at which it goes wrong.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let (nodes, root) = machine::run(bytes)?;
        Ok(Pickle { nodes, root })
    }

    /// The node at `id`.
    pub(crate) fn node(&self, id: Id) -> &Node<'a> {
        &self.nodes[id]
    }

    /// The text at `id`; Python 2 wrote names as bytes, read as Latin-1.
    pub(crate) fn text(&self, id: Id) -> Option<Cow<'_, str>> {
        match self.node(id) {
            Node::Text(text) => Some(Cow::Borrowed(text)),
            Node::Bytes(bytes) => Some(bytes.iter().map(|&byte| char::from(byte)).collect()),
            _ => None,
        }
    }

    /// The elements of the tuple or list at `id`.
    pub(crate) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Tuple(items) | Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// The integer at `id`.
    pub(crate) fn int(&self, id: Id) -> Option<i64> {
        match self.node(id) {
            Node::Int(value) => Some(*value),
            Node::Bool(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    /// Module and name of the class or function at `id`.
    pub(crate) fn global(&self, id: Id) -> Option<(&str, &str)> {
        match self.node(id) {
            Node::Global(module, name) => Some((module, name)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
