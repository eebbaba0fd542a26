//! numpy arrays in a pickle, whether Python 2 or 3 wrote them. Nothing is called:
//! the handful of numpy constructors are recognised by name and their arguments
//! read as data.

use std::borrow::Cow;

use tch::Tensor;

use super::dtype::element_count;
use super::element::Element;
use super::pickle::{Id, Node, Pickle};

/// The parts of a pickled `numpy.ndarray`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Array {
    shape: Id,
    dtype: Id,
    data: Id,
    /// Whether the first index runs fastest.
    fortran: bool,
}

impl Array {
    /// The array at `id`, if that is what the node makes.
    pub(crate) fn at(pickle: &Pickle, id: Id) -> Option<Array> {
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

    /// The tensor, taken from `budget`; the inner error says why it is left out, the
    /// outer one what is damaged.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) fn read(
        &self,
        pickle: &Pickle,
        budget: &mut usize,
    ) -> Result<Result<Tensor, String>, String> {
        let (element, big_endian) = match element_type(pickle, self.dtype) {
            Ok((element, _)) if element.refusal().is_some() => {
                return Ok(Err(element.refusal().unwrap_or_default()));
            }
            Ok(known) => known,
            Err(why) => return Ok(Err(why)),
        };
        let shape: Option<Vec<i64>> = pickle
            .sequence(self.shape)
            .and_then(|sides| sides.iter().map(|&side| pickle.int(side)).collect());
        let mut shape = shape.ok_or("has no readable shape")?;
        let size = element_count(&shape).and_then(|count| count.checked_mul(element.width()));
        *budget -= size.filter(|size| size <= budget).ok_or_else(|| too_large(&shape))?;
        let mut bytes = match data_bytes(pickle, self.data) {
            Ok(bytes) => bytes,
            Err(why) => return Ok(Err(why)),
        };
        if big_endian {
            bytes.to_mut().chunks_exact_mut(element.width()).for_each(<[u8]>::reverse);
        }
        if self.fortran {
            shape.reverse();
        }
        if size != Some(bytes.len()) {
            return Err(format!("has {} bytes, which is not shape {shape:?}", bytes.len()));
        }
        let tensor = match element.tensor(&bytes, &shape) {
            Ok(tensor) if self.fortran => tensor,
            read => return Ok(read),
        };
        let axes: Vec<i64> = (0..shape.len() as i64).rev().collect();
        let reversed = tensor.f_permute(axes).and_then(|tensor| tensor.f_contiguous());
        Ok(reversed.map_err(|error| error.to_string()))
    }
}

/// The sentence about a tensor that a small file makes large.
pub(crate) fn too_large(shape: &[i64]) -> String {
    format!("of shape {shape:?} takes more memory than the file accounts for")
}

/// The element type of a pickled `numpy.dtype`, and whether it is big-endian.
fn element_type(pickle: &Pickle, id: Id) -> Result<(Element, bool), String> {
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
    let name = code.trim_start_matches(['<', '>', '|', '=']);
    let element = Element::of_numpy(name)
        .ok_or_else(|| format!("is of numpy type {name:?}, which libtorch lacks"))?;
    Ok((element, order.as_deref() == Some(">") || code.starts_with('>')))
}

/// An array's bytes. Protocol 2 has no type for bytes: Python 3 then writes
/// them as Latin-1 text with a call that would encode it.
pub(crate) fn data_bytes<'p>(pickle: &'p Pickle, id: Id) -> Result<Cow<'p, [u8]>, String> {
    match pickle.node(id) {
        Node::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
        Node::Text(text) => latin1(text),
        Node::List(_) => Err("holds Python objects, not numbers".into()),
        Node::Call { callable, args, .. } => {
            let args = pickle.sequence(*args).unwrap_or_default();
            match (pickle.global(*callable), args) {
                (Some(("_codecs", "encode")), [text, ..]) => match pickle.node(*text) {
                    Node::Text(text) => latin1(text),
                    _ => Err("has bytes that can't be read".into()),
                },
                (Some(("__builtin__" | "builtins", "bytes" | "bytearray")), []) => {
                    Ok(Cow::Borrowed(&[]))
                }
                (Some(("__builtin__" | "builtins", "bytes" | "bytearray")), &[bytes]) => {
                    match pickle.node(bytes) {
                        Node::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
                        _ => Err("has bytes that can't be read".into()),
                    }
                }
                (Some((module, name)), _) => Err(format!("takes its bytes from {module}.{name}")),
                _ => Err("has bytes that can't be read".into()),
            }
        }
        _ => Err("has bytes that can't be read".into()),
    }
}

fn latin1(text: &str) -> Result<Cow<'static, [u8]>, String> {
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    bytes.map(Cow::Owned).ok_or_else(|| "has bytes that are not Latin-1 text".into())
}
