//! Tensors as `torch.save` describes them in a pickle: a storage that lies beside
//! it, and which of its elements they are. Reference: PyTorch `torch/_utils.py`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::legacy::Legacy;
use crate::weights::element::Element;
use crate::weights::numpy::{Array, data_bytes};
use crate::weights::pickle::{Id, Node, Pickle};

/// Tensors within tensors (parameters, subclasses) deeper than this are none.
const DEEPEST: usize = 8;

/// A tensor of a pickle, not yet read.
#[derive(Debug, Clone)]
pub(crate) enum Described {
    /// A numpy array.
    Numpy(Array),
    /// Elements of a storage.
    View(View),
    /// It cannot be read, and why.
    Unreadable(String),
}

/// The elements of a storage that a tensor has.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) storage: Storage,
    pub(crate) element: Element,
    /// The first, in elements.
    pub(crate) offset: i64,
    pub(crate) shape: Vec<i64>,
    /// In elements.
    pub(crate) strides: Vec<i64>,
}

/// Where a storage's bytes lie.
#[derive(Debug, Clone)]
pub(crate) enum Storage {
    /// In the container, under this name.
    Named(String),
    /// In the pickle itself.
    Inline(Rc<[u8]>),
}

/// A storage and its element type, or why it cannot be taken out.
type TakenOut = Result<(Storage, Element), String>;

/// Recognises the tensors of a pickle.
#[derive(Debug, Default)]
pub(crate) struct Rebuild {
    /// Tensors by the names that the pickle has for them (before 0.1.10).
    tensors: HashMap<String, View>,
    /// Storages within the pickle that have been taken out.
    inline: RefCell<HashMap<Id, TakenOut>>,
}

impl Rebuild {
    /// For a pickle that has names for these tensors.
    pub(crate) fn with_tensors(tensors: HashMap<String, View>) -> Self {
        Self { tensors, ..Self::default() }
    }

    /// The tensor at `id`, if that is what the node makes.
    pub(crate) fn at(&self, pickle: &Pickle, id: Id) -> Option<Described> {
        self.at_depth(pickle, id, 0)
    }

    fn at_depth(&self, pickle: &Pickle, id: Id, depth: usize) -> Option<Described> {
        if let Some(array) = Array::at(pickle, id) {
            return Some(Described::Numpy(array));
        }
        match pickle.node(id) {
            Node::Call { callable, args, .. } => {
                let function = pickle.global(*callable)?;
                self.rebuilt(pickle, function, pickle.sequence(*args)?, depth)
            }
            Node::Persistent(name) => {
                let view = self.tensors.get(&pickle.key_name(*name)?)?;
                Some(Described::View(view.clone()))
            }
            _ => None,
        }
    }

    /// What `function` would make of `args`, if that is a tensor.
    fn rebuilt(
        &self,
        pickle: &Pickle,
        function: (&str, &str),
        args: &[Id],
        depth: usize,
    ) -> Option<Described> {
        let unreadable = |why: &str| Some(Described::Unreadable(why.to_owned()));
        let inner = |id: Option<&Id>| match depth {
            DEEPEST => unreadable("is a tensor within too many others"),
            _ => self.at_depth(pickle, *id?, depth + 1),
        };
        match function {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => {
                let view = self.view(pickle, function.1, args);
                Some(view.map_or_else(Described::Unreadable, Described::View))
            }
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")
            | ("torch._utils", "_rebuild_device_tensor_from_numpy" | "_rebuild_xla_tensor")
            | ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor")
            | ("torch.nn.parameter", "Parameter" | "Buffer")
            | ("torch.autograd.variable", "Variable") => inner(args.first()),
            ("torch._tensor", "_rebuild_from_type" | "_rebuild_from_type_v2") => {
                // A subclass: the function and arguments that make the plain tensor.
                let &[function, _class, arguments, ..] = args else { return None };
                let (function, arguments) = (pickle.global(function)?, pickle.sequence(arguments)?);
                match depth {
                    DEEPEST => unreadable("is a tensor within too many others"),
                    _ => self.rebuilt(pickle, function, arguments, depth + 1),
                }
            }
            ("torch._utils", "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor") => {
                unreadable("is sparse")
            }
            ("torch._utils", "_rebuild_qtensor") => unreadable("is quantised"),
            ("torch._utils", "_rebuild_nested_tensor") => unreadable("is nested"),
            ("torch._utils", "_rebuild_meta_tensor_no_storage") => {
                unreadable("is on the meta device, which has no numbers")
            }
            ("torch._utils", name) if name.starts_with("_rebuild_") => {
                Some(Described::Unreadable(format!("is made by torch._utils.{name}")))
            }
            _ => None,
        }
    }

    /// `_rebuild_tensor*(storage, offset, size, stride, …)`; version 3 has the type
    /// that the storage lacks as its seventh argument.
    fn view(&self, pickle: &Pickle, function: &str, args: &[Id]) -> Result<View, String> {
        let &[storage, offset, shape, strides, ..] = args else {
            return Err("is described by too little".into());
        };
        let (storage, element) = self.storage(pickle, storage)?;
        let seventh = args.get(6);
        let element = match (function, seventh) {
            ("_rebuild_tensor_v3", Some(&dtype)) => match pickle.global(dtype) {
                Some(("torch", name)) => Element::of_torch(name)
                    .ok_or_else(|| format!("is of type {name}, which no weights here have"))?,
                _ => return Err("has an element type that can't be read".into()),
            },
            (_, metadata) => {
                let negated = |&id: &Id| {
                    pickle.mapping(id).is_some_and(|items| {
                        items.iter().any(|&(key, value)| {
                            pickle.text(key).as_deref() == Some("neg")
                                && pickle.int(value) == Some(1)
                        })
                    })
                };
                if metadata.is_some_and(negated) {
                    return Err("is a view that negates its numbers".into());
                }
                element
            }
        };
        if let Some(refusal) = element.refusal() {
            return Err(refusal);
        }
        let unreadable = || "has no readable shape".to_owned();
        let offset = pickle.int(offset).ok_or_else(unreadable)?;
        let shape = integers(pickle, shape).ok_or_else(unreadable)?;
        let strides = integers(pickle, strides).ok_or_else(unreadable)?;
        Ok(View { storage, element, offset, shape, strides })
    }

    /// The storage at `id` and its elements' type.
    fn storage(&self, pickle: &Pickle, id: Id) -> Result<(Storage, Element), String> {
        match pickle.node(id) {
            Node::Persistent(name) => {
                let Named { key, element, .. } =
                    Named::of(pickle, *name).ok_or("lies in a storage that can't be told")?;
                let element = element.ok_or("lies in a storage of a type that is not known")?;
                Ok((Storage::Named(key), element))
            }
            Node::Call { callable, args, .. }
                if pickle.global(*callable) == Some(("torch.storage", "_load_from_bytes")) =>
            {
                let args = pickle.sequence(*args).unwrap_or_default();
                let place = args.first().copied().ok_or("lies in a storage without bytes")?;
                let mut known = self.inline.borrow_mut();
                known
                    .entry(place)
                    .or_insert_with(|| {
                        Legacy::storage_of(&data_bytes(pickle, place)?)
                            .map(|(bytes, element)| (Storage::Inline(bytes.into()), element))
                    })
                    .clone()
            }
            _ => Err("lies in a storage that can't be told".into()),
        }
    }
}

/// What a pickle calls a storage that lies beside it: `('storage', class, key,
/// location, elements, view)`.
pub(crate) struct Named {
    /// The name of its bytes. One that is a part of another (before 0.4) has a
    /// name of its own.
    pub(crate) key: String,
    /// None where the class is not known.
    pub(crate) element: Option<Element>,
    /// Of a part: the whole's name, and the part's first element and length.
    pub(crate) part_of: Option<(String, i64, i64)>,
}

impl Named {
    pub(crate) fn of(pickle: &Pickle, name: Id) -> Option<Named> {
        let &[what, class, key, _location, _length, ref more @ ..] = pickle.sequence(name)? else {
            return None;
        };
        if pickle.text(what)? != "storage" {
            return None;
        }
        let whole = pickle.key_name(key)?;
        let element = pickle.global(class).and_then(|(_, name)| Element::of_torch(name));
        let view = more.first().and_then(|&view| pickle.sequence(view));
        Some(match view {
            Some(&[view, offset, size]) => {
                let part = (whole, pickle.int(offset)?, pickle.int(size)?);
                Named { key: pickle.key_name(view)?, element, part_of: Some(part) }
            }
            _ => Named { key: whole, element, part_of: None },
        })
    }
}

/// A tuple of integers, a `torch.Size` among them.
fn integers(pickle: &Pickle, id: Id) -> Option<Vec<i64>> {
    let items = match pickle.node(id) {
        Node::Call { args, .. } => pickle.sequence(*pickle.sequence(*args)?.first()?)?,
        _ => pickle.sequence(id)?,
    };
    items.iter().map(|&item| pickle.int(item)).collect()
}
