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
    Bytes(Cow<'a, [u8]>),
    /// A list, or a set.
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function by module and name.
    Global(Cow<'a, str>, Cow<'a, str>),
    /// An object: what makes it, from what, and what it was given afterwards:
    /// its state, keys and values, elements.
    Call {
        callable: Id,
        args: Id,
        state: Option<Id>,
        items: Vec<(Id, Id)>,
        elements: Vec<Id>,
    },
    /// Something that lies outside of the pickle, by its name there.
    Persistent(Id),
    /// An integer of more than 64 bits.
    Huge,
}

/// A parsed pickle.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    /// The pickle's value.
    pub(crate) root: Id,
    /// How many bytes it takes.
    pub(crate) length: usize,
}

impl<'a> Pickle<'a> {
    /// Parses the pickle at the beginning of `bytes`.
    ///
    /// # Errors
    /// A sentence with the offset at which it goes wrong.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let (nodes, root, length) = machine::run(bytes)?;
        Ok(Pickle { nodes, root, length })
    }

    /// Every value, in the order in which they appear.
    pub(crate) fn nodes(&self) -> &[Node<'a>] {
        &self.nodes
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

    /// Keys and values of a dictionary, of any class that is given them as one
    /// (`OrderedDict`, `defaultdict`, a `CfgNode`, …), or of none such.
    pub(crate) fn mapping(&self, id: Id) -> Option<Vec<(Id, Id)>> {
        match self.node(id) {
            Node::Dict(items) => Some(items.clone()),
            Node::Call { callable, args, items, .. } => {
                let class = self.global(*callable);
                let args = self.sequence(*args).unwrap_or_default();
                let first = self.content(class, args);
                if first.is_none() && items.is_empty() && !class.is_some_and(is_dictionary) {
                    return None;
                }
                let mut all = first.unwrap_or_default();
                all.extend(items);
                Some(all)
            }
            _ => None,
        }
    }

    /// What a dictionary is made with: another one, or (Python 2's `OrderedDict`)
    /// a list of pairs.
    fn content(&self, class: Option<(&str, &str)>, args: &[Id]) -> Option<Vec<(Id, Id)>> {
        let made_with = match (class, args) {
            // Protocols 0 and 1: class, its built-in base, and that one's content.
            (Some(("copy_reg" | "copyreg", "_reconstructor")), &[_class, _base, content]) => {
                content
            }
            (_, &[content]) => content,
            _ => return None,
        };
        match self.node(made_with) {
            Node::Dict(items) => Some(items.clone()),
            Node::List(pairs) if class.is_some_and(is_dictionary) => {
                let pair = |&pair: &Id| match self.sequence(pair)? {
                    &[key, value] => Some((key, value)),
                    _ => None,
                };
                Some(pairs.iter().filter_map(pair).collect())
            }
            _ => None,
        }
    }

    /// What an object was given as its attributes.
    pub(crate) fn attributes(&self, id: Id) -> Option<Vec<(Id, Id)>> {
        let Node::Call { state: Some(state), .. } = self.node(id) else { return None };
        match self.node(*state) {
            // Those of the object, and those that its class has slots for.
            Node::Tuple(parts) if parts.len() == 2 => {
                let parts = parts.iter().filter_map(|&part| self.mapping(part));
                Some(parts.flatten().collect())
            }
            _ => self.mapping(*state),
        }
    }

    /// The name of a key: text, a number, or a tuple of those, joined by dots.
    pub(crate) fn key_name(&self, key: Id) -> Option<String> {
        match self.node(key) {
            Node::Int(number) => Some(number.to_string()),
            Node::Tuple(parts) if !parts.is_empty() => {
                let part = |&part: &Id| match self.node(part) {
                    Node::Int(number) => Some(number.to_string()),
                    _ => self.text(part).map(Cow::into_owned),
                };
                let parts: Option<Vec<String>> = parts.iter().map(part).collect();
                Some(parts?.join("."))
            }
            _ => self.text(key).map(Cow::into_owned),
        }
    }

    /// Module and name of an object's class, or of the function that makes it.
    pub(crate) fn class_of(&self, id: Id) -> Option<(&str, &str)> {
        let Node::Call { callable, args, .. } = self.node(id) else { return None };
        let callable = match self.node(*callable) {
            // Before PyTorch 1.6 a module's class came with its source.
            Node::Persistent(name) => {
                let parts = self.sequence(*name)?;
                *parts.iter().find(|&&part| matches!(self.node(part), Node::Global(..)))?
            }
            _ => *callable,
        };
        match self.global(callable)? {
            ("copy_reg" | "copyreg", "_reconstructor") => {
                self.global(*self.sequence(*args)?.first()?)
            }
            class => Some(class),
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

/// Whether the class is a dictionary even when it is made of nothing.
fn is_dictionary(class: (&str, &str)) -> bool {
    matches!(
        class,
        ("collections", "OrderedDict" | "defaultdict") | ("builtins" | "__builtin__", "dict")
    )
}

#[cfg(test)]
mod tests;
