//! Pickles of numpy arrays, as detectron2's model zoo has them, whether Python
//! 2 or 3 wrote them. Nothing in the pickle is called: the handful of numpy
//! constructors are recognised by name and their arguments read as data.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use tch::{Kind, Tensor};

use super::dtype::{element_count, tensor_from_bytes};
use super::pickle::{Id, Node, Pickle};
use super::unwrap::{unwrap, with_wrapper};
use super::{Format, StateDict, WeightFile};
use crate::{Error, Result};

/// Dictionaries within dictionaries deeper than this hold no weights.
const DEEPEST: usize = 32;

/// Reads the file at `path`.
///
/// # Errors
/// [`Error::Io`], or [`Error::Format`] when the pickle is damaged, an array is
/// of a type libtorch lacks, or there is no array at all.
pub(crate) fn read(path: &Path) -> Result<WeightFile> {
    let bytes = std::fs::read(path).map_err(|source| Error::io(path, source))?;
    read_bytes(path, &bytes)
}

fn read_bytes(path: &Path, bytes: &[u8]) -> Result<WeightFile> {
    let pickle = Pickle::parse(bytes)
        .map_err(|problem| Error::format(path, format!("a damaged pickle: {problem}")))?;
    let mut walk = Walk::new(&pickle, bytes.len());
    walk.visit(pickle.root, "", 0).map_err(|problem| Error::format(path, problem))?;
    let Walk { mut tensors, dictionaries, metadata, objects, .. } = walk;
    if tensors.is_empty() {
        return Err(Error::format(path, no_arrays(&objects)));
    }
    let wrapper = unwrap(&mut tensors, &dictionaries);
    let metadata = with_wrapper(metadata, wrapper);
    Ok(WeightFile { path: path.into(), tensors, format: Format::Pickle, metadata })
}

fn no_arrays(objects: &BTreeSet<String>) -> String {
    let mut message = "a pickle without numpy arrays under text keys".to_owned();
    if !objects.is_empty() {
        let names: Vec<&str> = objects.iter().take(5).map(String::as_str).collect();
        message += &format!("; it holds objects of {}", names.join(", "));
    }
    message + ". In Python, save the state dict with torch.save instead"
}

/// A walk over the dictionaries of a pickle that collects what it meets.
struct Walk<'p, 'a> {
    pickle: &'p Pickle<'a>,
    /// Bytes that arrays may still take. Arrays may share bytes in the file,
    /// so a small file could otherwise ask for any amount of memory.
    budget: usize,
    arrays: HashMap<Id, Tensor>,
    seen: HashSet<Id>,
    tensors: StateDict,
    dictionaries: BTreeSet<String>,
    metadata: BTreeMap<String, String>,
    objects: BTreeSet<String>,
}

impl<'p, 'a> Walk<'p, 'a> {
    fn new(pickle: &'p Pickle<'a>, file_size: usize) -> Self {
        Walk {
            pickle,
            budget: file_size.saturating_mul(16),
            arrays: HashMap::new(),
            seen: HashSet::new(),
            tensors: StateDict::new(),
            dictionaries: BTreeSet::new(),
            metadata: BTreeMap::new(),
            objects: BTreeSet::new(),
        }
    }

    /// Takes in the value called `path`. Each dictionary is entered once, so
    /// that cycles end and shared ones don't multiply.
    fn visit(&mut self, id: Id, path: &str, depth: usize) -> std::result::Result<(), String> {
        if let Some(items) = mapping(self.pickle, id) {
            if depth == DEEPEST || !self.seen.insert(id) {
                return Ok(());
            }
            self.dictionaries.insert(path.to_owned());
            for (key, value) in items {
                if let Some(name) = key_name(self.pickle, key) {
                    let below = if path.is_empty() { name } else { format!("{path}.{name}") };
                    self.visit(value, &below, depth + 1)?;
                }
            }
        } else if let Some(array) = Array::at(self.pickle, id) {
            let tensor = self.tensor(id, &array).map_err(|e| format!("array {path:?} {e}"))?;
            self.tensors.insert(path.to_owned(), tensor);
        } else {
            self.note(id, path, depth);
        }
        Ok(())
    }

    fn tensor(&mut self, id: Id, array: &Array) -> std::result::Result<Tensor, String> {
        if let Some(known) = self.arrays.get(&id) {
            return Ok(known.shallow_clone());
        }
        let (tensor, bytes) = array.read(self.pickle, self.budget)?;
        self.budget -= bytes;
        self.arrays.insert(id, tensor.shallow_clone());
        Ok(tensor)
    }

    /// Keeps what is neither dictionary nor array if it says something:
    /// scalars of the outermost dictionary, and the classes of objects.
    fn note(&mut self, id: Id, path: &str, depth: usize) {
        let text = match self.pickle.node(id) {
            Node::Bool(value) => value.to_string(),
            Node::Int(value) => value.to_string(),
            Node::Float(value) => value.to_string(),
            Node::Text(_) | Node::Bytes(_) => match self.pickle.text(id) {
                Some(text) if text.len() <= 1000 => text.into_owned(),
                _ => return,
            },
            Node::Call { callable, .. } => {
                if let Some((module, name)) = self.pickle.global(*callable) {
                    self.objects.insert(format!("{module}.{name}"));
                }
                return;
            }
            _ => return,
        };
        if depth == 1 {
            self.metadata.insert(path.to_owned(), text);
        }
    }
}

/// Keys and values of a `dict`, `OrderedDict` or `defaultdict`.
fn mapping(pickle: &Pickle, id: Id) -> Option<Vec<(Id, Id)>> {
    match pickle.node(id) {
        Node::Dict(items) => Some(items.clone()),
        Node::Call { callable, args, items, .. } => {
            let name = pickle.global(*callable)?;
            if name != ("collections", "OrderedDict") && name != ("collections", "defaultdict") {
                return None;
            }
            // Python 2 passes the items of an OrderedDict as a list of pairs.
            let given = pickle.sequence(*args).and_then(|args| pickle.sequence(*args.first()?));
            let given = given.unwrap_or_default().iter().filter_map(|&pair| {
                let pair = pickle.sequence(pair)?;
                Some((*pair.first()?, *pair.get(1)?))
            });
            Some(given.chain(items.iter().copied()).collect())
        }
        _ => None,
    }
}

fn key_name(pickle: &Pickle, key: Id) -> Option<String> {
    let number = || pickle.int(key).map(|number| number.to_string());
    pickle.text(key).map(|text| text.into_owned()).or_else(number)
}

/// The parts of a pickled `numpy.ndarray`.
struct Array {
    shape: Id,
    dtype: Id,
    data: Id,
    /// Whether the first index runs fastest.
    fortran: bool,
}

impl Array {
    /// The array at `id`, if that is what the node makes.
    fn at(pickle: &Pickle, id: Id) -> Option<Array> {
        let Node::Call { callable, args, state, .. } = pickle.node(id) else { return None };
        let (module, name) = pickle.global(*callable)?;
        let args = pickle.sequence(*args)?;
        match (module, name) {
            // numpy.core until 1.26, numpy._core since 2.0
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
                match pickle.sequence((*state)?)? {
                    &[_version, shape, dtype, fortran, data] => {
                        let fortran = pickle.int(fortran) == Some(1);
                        Some(Array { shape, dtype, data, fortran })
                    }
                    _ => None,
                }
            }
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => match args {
                &[data, dtype, shape, order] => {
                    let fortran = pickle.text(order).as_deref() == Some("F");
                    Some(Array { shape, dtype, data, fortran })
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The tensor, and how many bytes of memory it took.
    fn read(&self, pickle: &Pickle, budget: usize) -> std::result::Result<(Tensor, usize), String> {
        let (kind, big_endian) = element_type(pickle, self.dtype)?;
        let shape: Option<Vec<i64>> = pickle
            .sequence(self.shape)
            .and_then(|sides| sides.iter().map(|&side| pickle.int(side)).collect());
        let mut shape = shape.ok_or("has no readable shape")?;
        let width = kind.elt_size_in_bytes();
        let size = element_count(&shape).and_then(|count| count.checked_mul(width));
        let size = size.filter(|&size| size <= budget).ok_or_else(|| {
            format!("of shape {shape:?} takes more memory than the file accounts for")
        })?;
        let mut bytes = data_bytes(pickle, self.data)?;
        if big_endian {
            bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
        }
        if self.fortran {
            shape.reverse();
        }
        let tensor = tensor_from_bytes(&bytes, &shape, kind)?;
        let tensor = if self.fortran {
            let axes: Vec<i64> = (0..shape.len() as i64).rev().collect();
            tensor.permute(axes).contiguous()
        } else {
            tensor
        };
        Ok((tensor, size))
    }
}

/// The element type of a pickled `numpy.dtype`, and whether it is big-endian.
fn element_type(pickle: &Pickle, id: Id) -> std::result::Result<(Kind, bool), String> {
    let unreadable = || "has an element type that can't be read".to_owned();
    let Node::Call { callable, args, state, .. } = pickle.node(id) else {
        return Err(unreadable());
    };
    if pickle.global(*callable) != Some(("numpy", "dtype")) {
        return Err(unreadable());
    }
    let code = pickle.sequence(*args).and_then(|args| pickle.text(*args.first()?));
    let code = code.ok_or_else(unreadable)?;
    let state = state.and_then(|state| pickle.sequence(state));
    let order = state.and_then(|state| pickle.text(*state.get(1)?));
    let kind = match code.trim_start_matches(['<', '>', '|', '=']) {
        "f8" => Kind::Double,
        "f4" => Kind::Float,
        "f2" => Kind::Half,
        "i8" => Kind::Int64,
        "i4" => Kind::Int,
        "i2" => Kind::Int16,
        "i1" => Kind::Int8,
        "u1" => Kind::Uint8,
        "b1" => Kind::Bool,
        other => return Err(format!("is of numpy type {other:?}, which libtorch lacks")),
    };
    Ok((kind, order.as_deref() == Some(">") || code.starts_with('>')))
}

/// An array's bytes. Protocol 2 has no type for bytes: Python 3 then writes
/// them as Latin-1 text with a call that would encode it.
fn data_bytes(pickle: &Pickle, id: Id) -> std::result::Result<Vec<u8>, String> {
    match pickle.node(id) {
        Node::Bytes(bytes) => Ok(bytes.to_vec()),
        Node::Text(text) => latin1(text),
        Node::List(_) => Err("holds Python objects, not numbers".into()),
        Node::Call { callable, args, .. } => {
            let args = pickle.sequence(*args).unwrap_or_default();
            match (pickle.global(*callable), args) {
                (Some(("_codecs", "encode")), [text, ..]) => match pickle.node(*text) {
                    Node::Text(text) => latin1(text),
                    _ => Err("has bytes that can't be read".into()),
                },
                (Some(("__builtin__" | "builtins", "bytes")), []) => Ok(Vec::new()),
                (Some((module, name)), _) => Err(format!("takes its bytes from {module}.{name}")),
                _ => Err("has bytes that can't be read".into()),
            }
        }
        _ => Err("has bytes that can't be read".into()),
    }
}

fn latin1(text: &str) -> std::result::Result<Vec<u8>, String> {
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    bytes.ok_or_else(|| "has bytes that are not Latin-1 text".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `{"w": numpy.arange(2, dtype=">i2")}` as Python 2 pickles it.
    const PYTHON_2: &[u8] = b"\x80\x02}q\x00U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\n\
        ndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02i2K\x00K\x01\x87R(K\x03U\x01>\
        NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x04\x00\x00\x00\x01tbs.";

    #[test]
    fn python_2_and_big_endian() {
        let file = read_bytes(Path::new("zoo.pkl"), PYTHON_2).unwrap();
        let tensor = &file.tensors["w"];
        assert_eq!(tensor.kind(), Kind::Int16);
        assert_eq!(Vec::<i16>::try_from(tensor).unwrap(), [0, 1]);
    }

    #[test]
    fn a_pickle_of_something_else_says_of_what() {
        let pickle = b"\x80\x02}U\x03netcmy.package\nNet\n)\x81s.";
        let message = read_bytes(Path::new("net.pkl"), pickle).unwrap_err().to_string();
        assert!(message.contains("net.pkl") && message.contains("my.package.Net"), "{message}");
    }

    #[test]
    fn a_cut_file_is_named() {
        for end in 3..PYTHON_2.len() {
            let message = read_bytes(Path::new("cut.pkl"), &PYTHON_2[..end]).unwrap_err();
            assert!(message.to_string().contains("cut.pkl"), "{message}");
        }
    }

    #[test]
    fn a_shape_beyond_the_file_is_refused() {
        let mut pickle = PYTHON_2.to_vec();
        let at = pickle.windows(3).position(|w| w == b"K\x02\x85").unwrap();
        pickle.splice(at..at + 2, *b"J\xff\xff\xff\x7f");
        let message = read_bytes(Path::new("big.pkl"), &pickle).unwrap_err().to_string();
        assert!(message.contains("more memory"), "{message}");
    }

    proptest! {
        /// One changed byte anywhere gives an error or other numbers, no panic.
        #[test]
        fn any_damage_is_survived(at in 0..PYTHON_2.len(), byte in any::<u8>()) {
            let mut pickle = PYTHON_2.to_vec();
            pickle[at] = byte;
            let _ = read_bytes(Path::new("damaged.pkl"), &pickle);
        }
    }
}
