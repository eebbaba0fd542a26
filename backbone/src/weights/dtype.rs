//! Tensors to little-endian, row-major bytes and back.

use tch::{Kind, Tensor};

use crate::{Error, Result};

#[cfg(target_endian = "big")]
compile_error!("weight files are little-endian, and are copied to memory as they are");

/// Element types that weight files hold and libtorch computes with.
pub(crate) const KINDS: [Kind; 10] = [
    Kind::Double,
    Kind::Float,
    Kind::Half,
    Kind::BFloat16,
    Kind::Int64,
    Kind::Int,
    Kind::Int16,
    Kind::Int8,
    Kind::Uint8,
    Kind::Bool,
];

/// The type's usual short name.
pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Double => "float64",
        Kind::Float => "float32",
        Kind::Half => "float16",
        Kind::BFloat16 => "bfloat16",
        Kind::Int64 => "int64",
        Kind::Int => "int32",
        Kind::Int16 => "int16",
        Kind::Int8 => "int8",
        Kind::Uint8 => "uint8",
        Kind::Bool => "bool",
        _ => "an unusual type",
    }
}

/// Whether values of the type can be weights.
pub(crate) fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Double | Kind::Float | Kind::Half | Kind::BFloat16)
}

/// The tensor's type, if files can hold it.
///
/// # Errors
/// [`Error::Invalid`] naming the tensor and its type.
pub(crate) fn storable_kind(name: &str, tensor: &Tensor) -> Result<Kind> {
    let kind = tensor.f_kind()?;
    if KINDS.contains(&kind) {
        return Ok(kind);
    }
    Err(Error::invalid(format!("the element type of {name:?}"), format!("{kind:?}"), rule()))
}

fn rule() -> String {
    format!("weight files hold {}", KINDS.map(kind_name).join(", "))
}

/// The number of elements of `shape` (all ≥ 0), or `None` if it is malformed.
pub(crate) fn element_count(shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(1usize, |count, &side| count.checked_mul(usize::try_from(side).ok()?))
}

/// A CPU tensor from row-major little-endian bytes.
///
/// # Errors
/// A sentence that says how `bytes` and `shape` disagree.
pub(crate) fn tensor_from_bytes(
    bytes: &[u8],
    shape: &[i64],
    kind: Kind,
) -> std::result::Result<Tensor, String> {
    let expected = element_count(shape).and_then(|n| n.checked_mul(kind.elt_size_in_bytes()));
    if expected != Some(bytes.len()) {
        return Err(format!(
            "has {} bytes, which is not {} of shape {shape:?}",
            bytes.len(),
            kind_name(kind)
        ));
    }
    // A bool byte other than 0 and 1 is undefined in libtorch: compare instead.
    let stored = if kind == Kind::Bool { Kind::Uint8 } else { kind };
    let tensor = Tensor::f_from_data_size(bytes, shape, stored).map_err(|e| e.to_string())?;
    if kind == Kind::Bool { tensor.f_ne(0).map_err(|e| e.to_string()) } else { Ok(tensor) }
}

/// The tensor's elements as row-major little-endian bytes, whatever its
/// strides and device.
///
/// # Errors
/// [`Error::Torch`] when libtorch can't copy it (a sparse tensor).
pub(crate) fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>> {
    let count = element_count(&tensor.size()).unwrap_or(0);
    let mut bytes = vec![0u8; count * tensor.f_kind()?.elt_size_in_bytes()];
    tensor.f_detach()?.f_copy_data_u8(&mut bytes, count)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bool_bytes_become_zero_or_one() {
        let tensor = tensor_from_bytes(&[0, 1, 2, 255], &[4], Kind::Bool).unwrap();
        assert_eq!(tensor.kind(), Kind::Bool);
        assert_eq!(bytes_of(&tensor).unwrap(), [0, 1, 1, 1]);
    }

    #[test]
    fn a_wrong_length_is_refused() {
        let message = tensor_from_bytes(&[0; 7], &[2], Kind::Float).unwrap_err();
        assert!(message.contains("7 bytes") && message.contains("[2]"), "{message}");
        assert!(tensor_from_bytes(&[], &[-1], Kind::Float).is_err());
        assert!(tensor_from_bytes(&[], &[i64::MAX, i64::MAX], Kind::Float).is_err());
    }

    #[test]
    fn strides_do_not_reach_the_file() {
        let tensor = Tensor::from_slice(&[1u8, 2, 3, 4, 5, 6]).reshape([2, 3]).transpose(0, 1);
        assert_eq!(bytes_of(&tensor).unwrap(), [1, 4, 2, 5, 3, 6]);
    }
}
