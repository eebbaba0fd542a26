//! From a pickle's tree to the tensors in it: dictionaries of any class and pickled
//! modules are entered, everything else is passed over.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tch::Tensor;

use super::dtype::element_count;
use super::numpy::too_large;
use super::pickle::{Id, Node, Pickle};
use super::report::some_of;
use super::torch::{Described, Rebuild, Storage, View};
use super::unwrap::{is_training_state, unwrap, with_wrapper};
use super::{Format, StateDict, WeightFile};
use crate::{Error, Result};

/// Dictionaries within dictionaries deeper than this hold no weights.
const DEEPEST: usize = 64;
/// How often a value is come by, on average, at most. Values may be shared, so that a
/// small file could otherwise ask for any number of visits.
const MOST_VISITS: usize = 8;
/// Text longer than this is no metadata.
const LONGEST_TEXT: usize = 1000;

type Outcome<T> = std::result::Result<T, String>;

/// Bytes that the tensors of a file of `size` bytes may take. Tensors may share
/// bytes in the file, so a small file could otherwise ask for any amount of memory.
pub(crate) fn budget(size: usize) -> usize {
    size.saturating_mul(16).saturating_add(16 << 20)
}

/// The storages beside a pickle.
pub(crate) trait Storages {
    /// The bytes of the storage called `key`.
    ///
    /// # Errors
    /// A sentence: there is none, or it is damaged.
    fn bytes(&self, key: &str) -> Outcome<Cow<'_, [u8]>>;

    /// Whether each element's first byte is the most significant.
    fn big_endian(&self) -> bool {
        false
    }
}

/// A walk over a pickle that collects what it meets.
pub(crate) struct Walk<'p, 'a> {
    pickle: &'p Pickle<'a>,
    rebuild: Rebuild,
    /// Whether lists and objects are entered too, in search of any tensor at all.
    into_objects: bool,
    /// Where the walk is: values that hold each other are entered once.
    above: Vec<Id>,
    visits: usize,
    found: Vec<(String, Described)>,
    dictionaries: BTreeSet<String>,
    metadata: BTreeMap<String, String>,
    objects: BTreeSet<String>,
}

impl<'p, 'a> Walk<'p, 'a> {
    /// A walk over `pickle`, whose tensors `rebuild` recognises.
    pub(crate) fn over(pickle: &'p Pickle<'a>, rebuild: Rebuild) -> Self {
        Walk {
            pickle,
            rebuild,
            into_objects: false,
            above: Vec::new(),
            visits: 0,
            found: Vec::new(),
            dictionaries: BTreeSet::new(),
            metadata: BTreeMap::new(),
            objects: BTreeSet::new(),
        }
    }

    /// The weights in the file at `path`, which has `size` bytes.
    ///
    /// # Errors
    /// [`Error::Format`] when it is damaged or has no weights.
    pub(crate) fn read(
        mut self,
        path: &Path,
        format: Format,
        size: usize,
        storages: &dyn Storages,
    ) -> Result<WeightFile> {
        let unreadable = |problem: String| {
            Error::format(path, format!("a {format} that can't be read: {problem}"))
        };
        self.visit(self.pickle.root, "").map_err(unreadable)?;
        if self.found.is_empty() {
            self.into_objects = true;
            self.visit(self.pickle.root, "").map_err(unreadable)?;
        }
        let found = std::mem::take(&mut self.found);
        let (mut tensors, mut left_out) =
            self.load(found, budget(size), storages).map_err(unreadable)?;
        let wrapper = unwrap(&mut tensors, &mut left_out, &self.dictionaries);
        if tensors.is_empty() {
            return Err(Error::format(path, self.nothing(format, &left_out)));
        }
        let metadata = with_wrapper(self.metadata, wrapper);
        Ok(WeightFile { path: path.into(), tensors, format, metadata, left_out })
    }

    fn nothing(&self, format: Format, left_out: &BTreeMap<String, String>) -> String {
        let mut message = format!("a {format} that holds no weights");
        if !left_out.is_empty() {
            let phrases: Vec<String> =
                left_out.iter().map(|(name, why)| format!("{name:?} {why}")).collect();
            message += &format!("; it has tensors that can't be read: {}", some_of(&phrases));
        }
        if !self.objects.is_empty() {
            let names: Vec<&str> = self.objects.iter().take(5).map(String::as_str).collect();
            message += &format!("; it holds objects of {}", names.join(", "));
        }
        message + ". In Python, save the weights with torch.save(model.state_dict(), FILE)"
    }

    /// Takes in the value called `path`.
    fn visit(&mut self, id: Id, path: &str) -> Outcome<()> {
        self.visits += 1;
        if self.visits > MOST_VISITS * (self.pickle.nodes().len() + 100) {
            return Err("its values hold each other again and again".into());
        }
        if let Some(described) = self.rebuild.at(self.pickle, id) {
            if !is_training_state(path) {
                self.found.push((path.to_owned(), described));
            }
            return Ok(());
        }
        let items = if let Some(items) = self.pickle.mapping(id) {
            items.into_iter().filter_map(|(key, v)| Some((self.pickle.key_name(key)?, v))).collect()
        } else if let Some(items) = self.module(id, path) {
            items
        } else if let (true, Some(items)) = (self.into_objects, self.parts(id)) {
            items
        } else {
            self.note(id, path);
            return Ok(());
        };
        // Twice the size of the weights: not even looked at.
        if is_training_state(path) || self.above.len() == DEEPEST || self.above.contains(&id) {
            return Ok(());
        }
        self.dictionaries.insert(path.to_owned());
        self.above.push(id);
        for (name, value) in items {
            let below = if path.is_empty() { name } else { format!("{path}.{name}") };
            self.visit(value, &below)?;
        }
        self.above.pop();
        Ok(())
    }

    /// What a pickled `torch.nn.Module` has in its state dict, by name.
    fn module(&mut self, id: Id, path: &str) -> Option<Vec<(String, Id)>> {
        let attributes: BTreeMap<String, Id> = self
            .pickle
            .attributes(id)?
            .into_iter()
            .filter_map(|(key, value)| Some((self.pickle.key_name(key)?, value)))
            .collect();
        let items = |name: &str| -> Vec<(String, Id)> {
            let items = attributes.get(name).and_then(|&id| self.pickle.mapping(id));
            let name = |(key, value)| Some((self.pickle.key_name(key)?, value));
            items.unwrap_or_default().into_iter().filter_map(name).collect()
        };
        if !attributes.contains_key("_parameters") || !attributes.contains_key("_modules") {
            return None;
        }
        let temporary = attributes.get("_non_persistent_buffers_set");
        let temporary: Vec<String> = temporary
            .into_iter()
            .flat_map(|&id| self.elements(id))
            .filter_map(|id| self.pickle.key_name(id))
            .collect();
        let mut all = items("_parameters");
        all.extend(items("_buffers").into_iter().filter(|(name, _)| !temporary.contains(name)));
        all.extend(items("_modules"));
        if let (true, Some((module, name))) = (self.above.len() < 2, self.pickle.class_of(id)) {
            let key = if path.is_empty() { "pickled module" } else { path };
            self.metadata.entry(key.to_owned()).or_insert(format!("{module}.{name}"));
        }
        Some(all)
    }

    /// The elements of a list, a set, or an object of such a class.
    fn elements(&self, id: Id) -> Vec<Id> {
        match self.pickle.node(id) {
            Node::Call { args, elements, .. } => {
                let made_with = self.pickle.sequence(*args).and_then(|args| args.first());
                let made_with = made_with.and_then(|&first| self.pickle.sequence(first));
                [made_with.unwrap_or_default(), elements].concat()
            }
            _ => self.pickle.sequence(id).unwrap_or_default().to_vec(),
        }
    }

    /// What lists and objects hold, by number or name.
    fn parts(&self, id: Id) -> Option<Vec<(String, Id)>> {
        let numbered = |ids: &[Id]| -> Vec<(String, Id)> {
            ids.iter().enumerate().map(|(number, &id)| (number.to_string(), id)).collect()
        };
        match self.pickle.node(id) {
            Node::List(items) | Node::Tuple(items) => Some(numbered(items)),
            Node::Call { args, elements, .. } => {
                let mut parts = numbered(self.pickle.sequence(*args).unwrap_or_default());
                parts.extend(numbered(elements));
                let attributes = self.pickle.attributes(id).unwrap_or_default();
                let name = |(key, value)| Some((self.pickle.key_name(key)?, value));
                parts.extend(attributes.into_iter().filter_map(name));
                (!parts.is_empty()).then_some(parts)
            }
            _ => None,
        }
    }

    /// Keeps what holds nothing if it says something: scalars of the outermost
    /// dictionary, and the classes of objects.
    fn note(&mut self, id: Id, path: &str) {
        let text = match self.pickle.node(id) {
            Node::Bool(value) => value.to_string(),
            Node::Int(value) => value.to_string(),
            Node::Float(value) => value.to_string(),
            Node::Text(_) | Node::Bytes(_) => match self.pickle.text(id) {
                Some(text) if text.len() <= LONGEST_TEXT => text.into_owned(),
                _ => return,
            },
            Node::Call { .. } => {
                if let Some((module, name)) = self.pickle.class_of(id) {
                    self.objects.insert(format!("{module}.{name}"));
                }
                return;
            }
            _ => return,
        };
        if self.above.len() == 1 {
            self.metadata.insert(path.to_owned(), text);
        }
    }

    /// Reads what was found, each storage once: the tensors, and why others are
    /// left out.
    fn load(
        &self,
        found: Vec<(String, Described)>,
        mut budget: usize,
        storages: &dyn Storages,
    ) -> Outcome<(StateDict, BTreeMap<String, String>)> {
        let (mut tensors, mut left_out) = (StateDict::new(), BTreeMap::new());
        let mut views: BTreeMap<String, Vec<(String, View)>> = BTreeMap::new();
        let mut take = |name: String, read: Outcome<Outcome<Tensor>>| -> Outcome<()> {
            match read.map_err(|problem| format!("{name:?} {problem}"))? {
                Ok(tensor) => drop(tensors.insert(name, tensor)),
                Err(why) => drop(left_out.insert(name, why)),
            }
            Ok(())
        };
        for (name, described) in found {
            let read = match described {
                Described::Unreadable(why) => Ok(Err(why)),
                Described::Numpy(array) => array.read(self.pickle, &mut budget),
                Described::View(view) => match &view.storage {
                    Storage::Inline(bytes) => tensor_of(&view, bytes, false, &mut budget),
                    Storage::Named(key) => {
                        views.entry(key.clone()).or_default().push((name, view));
                        continue;
                    }
                },
            };
            take(name, read)?;
        }
        for (key, views) in views {
            let bytes = storages.bytes(&key)?;
            for (name, view) in views {
                take(name, tensor_of(&view, &bytes, storages.big_endian(), &mut budget))?;
            }
        }
        Ok((tensors, left_out))
    }
}

/// The tensor `view` of a storage's `bytes`, taken from `budget`; the inner error
/// says why it is left out, the outer one what is damaged.
pub(crate) fn tensor_of(
    view: &View,
    bytes: &[u8],
    big_endian: bool,
    budget: &mut usize,
) -> Outcome<Outcome<Tensor>> {
    let width = view.element.width();
    let size = element_count(&view.shape).and_then(|count| count.checked_mul(width));
    let size = size.filter(|size| size <= budget).ok_or_else(|| too_large(&view.shape))?;
    *budget -= size;
    let mut elements = elements_of(view, bytes, size)
        .ok_or_else(|| format!("of shape {:?} reaches beyond its storage", view.shape))?;
    if big_endian {
        elements.to_mut().chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
    Ok(view.element.tensor(&elements, &view.shape))
}

/// The `size` bytes of the view's elements, row by row; `None` if they are not
/// within `bytes`.
fn elements_of<'b>(view: &View, bytes: &'b [u8], size: usize) -> Option<Cow<'b, [u8]>> {
    let width = view.element.width();
    if view.strides.len() != view.shape.len() {
        return None;
    }
    if size == 0 {
        return Some(Cow::Borrowed(&[]));
    }
    let strides: Option<Vec<usize>> =
        view.strides.iter().map(|&s| usize::try_from(s).ok()).collect();
    let (strides, first) = (strides?, usize::try_from(view.offset).ok()?);
    let shape: Vec<usize> = view.shape.iter().map(|&side| side as usize).collect();
    let last = shape.iter().zip(&strides).try_fold(first, |last, (side, stride)| {
        last.checked_add((side - 1).checked_mul(*stride)?)
    })?;
    if last.checked_add(1)?.checked_mul(width)? > bytes.len() {
        return None;
    }
    let mut row = 1;
    let contiguous = shape.iter().zip(&strides).rev().all(|(&side, &stride)| {
        let expected = row;
        row *= side;
        side == 1 || stride == expected
    });
    if contiguous {
        return Some(Cow::Borrowed(&bytes[first * width..][..size]));
    }
    let mut places = vec![first];
    for (&side, &stride) in shape.iter().zip(&strides) {
        places = places.iter().flat_map(|at| (0..side).map(move |i| at + i * stride)).collect();
    }
    Some(Cow::Owned(places.iter().flat_map(|at| &bytes[at * width..][..width]).copied().collect()))
}
