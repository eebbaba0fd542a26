//! Element types as files have them, and their values in a type that libtorch
//! computes with.

use safetensors::tensor::Dtype;
use tch::{Kind, Tensor};

use super::dtype::tensor_from_bytes;

/// An element type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    /// One of libtorch's; the narrow floating-point types of 8 bits are read as
    /// float32, which holds the same numbers.
    Kind(Kind),
    /// Read as int32.
    UInt16,
    /// Read as int64.
    UInt32,
    /// Read as int64, if it holds them.
    UInt64,
    /// No weights are made of it: its name, and the bytes of an element.
    Other(&'static str, usize),
}

use Element::{Other, UInt16, UInt32, UInt64};

const FLOAT8_E5M2: Element = Element::Kind(Kind::Float8e5m2);
const FLOAT8_E4M3: Element = Element::Kind(Kind::Float8e4m3fn);
const COMPLEX64: Element = Other("complex64", 8);

impl Element {
    /// What torch calls so: `torch.float32`, `torch.FloatStorage`.
    pub(crate) fn of_torch(name: &str) -> Option<Self> {
        Some(match name {
            "float64" | "double" | "DoubleStorage" => Self::Kind(Kind::Double),
            "float32" | "float" | "FloatStorage" => Self::Kind(Kind::Float),
            "float16" | "half" | "HalfStorage" => Self::Kind(Kind::Half),
            "bfloat16" | "BFloat16Storage" => Self::Kind(Kind::BFloat16),
            "int64" | "long" | "LongStorage" => Self::Kind(Kind::Int64),
            "int32" | "int" | "IntStorage" => Self::Kind(Kind::Int),
            "int16" | "short" | "ShortStorage" => Self::Kind(Kind::Int16),
            "int8" | "CharStorage" => Self::Kind(Kind::Int8),
            "uint8" | "ByteStorage" => Self::Kind(Kind::Uint8),
            "bool" | "BoolStorage" => Self::Kind(Kind::Bool),
            "float8_e5m2" => FLOAT8_E5M2,
            "float8_e4m3fn" => FLOAT8_E4M3,
            "float8_e5m2fnuz" => Self::Kind(Kind::Float8e5m2fnuz),
            "float8_e4m3fnuz" => Self::Kind(Kind::Float8e4m3fnuz),
            "uint16" => UInt16,
            "uint32" => UInt32,
            "uint64" => UInt64,
            "float8_e8m0fnu" => Other("float8_e8m0fnu", 1),
            "float4_e2m1fn_x2" => Other("float4_e2m1fn_x2", 1),
            "complex32" | "chalf" | "ComplexHalfStorage" => Other("complex32", 4),
            "complex64" | "cfloat" | "ComplexFloatStorage" => COMPLEX64,
            "complex128" | "cdouble" | "ComplexDoubleStorage" => Other("complex128", 16),
            "qint8" | "QInt8Storage" => Other("qint8", 1),
            "quint8" | "QUInt8Storage" => Other("quint8", 1),
            "qint32" | "QInt32Storage" => Other("qint32", 4),
            "quint4x2" | "QUInt4x2Storage" => Other("quint4x2", 1),
            "quint2x4" | "QUInt2x4Storage" => Other("quint2x4", 1),
            "UntypedStorage" => Other("bytes without a type", 1),
            _ => return None,
        })
    }

    /// What numpy calls so, less the byte order: `f4`.
    pub(crate) fn of_numpy(code: &str) -> Option<Self> {
        Some(match code {
            "f8" => Self::Kind(Kind::Double),
            "f4" => Self::Kind(Kind::Float),
            "f2" => Self::Kind(Kind::Half),
            "i8" => Self::Kind(Kind::Int64),
            "i4" => Self::Kind(Kind::Int),
            "i2" => Self::Kind(Kind::Int16),
            "i1" => Self::Kind(Kind::Int8),
            "u1" => Self::Kind(Kind::Uint8),
            "b1" => Self::Kind(Kind::Bool),
            "u2" => UInt16,
            "u4" => UInt32,
            "u8" => UInt64,
            "c8" => COMPLEX64,
            "c16" => Other("complex128", 16),
            _ => return None,
        })
    }

    /// What safetensors calls so.
    pub(crate) fn of_safetensors(dtype: Dtype) -> Option<Self> {
        Some(match dtype {
            Dtype::F64 => Self::Kind(Kind::Double),
            Dtype::F32 => Self::Kind(Kind::Float),
            Dtype::F16 => Self::Kind(Kind::Half),
            Dtype::BF16 => Self::Kind(Kind::BFloat16),
            Dtype::I64 => Self::Kind(Kind::Int64),
            Dtype::I32 => Self::Kind(Kind::Int),
            Dtype::I16 => Self::Kind(Kind::Int16),
            Dtype::I8 => Self::Kind(Kind::Int8),
            Dtype::U8 => Self::Kind(Kind::Uint8),
            Dtype::BOOL => Self::Kind(Kind::Bool),
            Dtype::F8_E5M2 => FLOAT8_E5M2,
            Dtype::F8_E4M3 => FLOAT8_E4M3,
            Dtype::F8_E5M2FNUZ => Self::Kind(Kind::Float8e5m2fnuz),
            Dtype::F8_E4M3FNUZ => Self::Kind(Kind::Float8e4m3fnuz),
            Dtype::U16 => UInt16,
            Dtype::U32 => UInt32,
            Dtype::U64 => UInt64,
            Dtype::C64 => COMPLEX64,
            _ => return None,
        })
    }

    /// Bytes of one element.
    pub(crate) fn width(self) -> usize {
        match self {
            Self::Kind(kind) => kind.elt_size_in_bytes(),
            UInt16 => 2,
            UInt32 => 4,
            UInt64 => 8,
            Other(_, width) => width,
        }
    }

    /// Why tensors of this type are left out, if they are.
    pub(crate) fn refusal(self) -> Option<String> {
        match self {
            Other(name, _) => Some(format!("is of type {name}, which no weights here have")),
            _ => None,
        }
    }

    /// A tensor of row-major little-endian bytes.
    ///
    /// # Errors
    /// A sentence: bytes and shape disagree, or a type or number that libtorch lacks.
    pub(crate) fn tensor(self, bytes: &[u8], shape: &[i64]) -> Result<Tensor, String> {
        let values: Vec<i64>;
        let widened = match self {
            Self::Kind(kind) => {
                let tensor = tensor_from_bytes(bytes, shape, kind)?;
                return match kind.elt_size_in_bytes() {
                    1 if is_float8(kind) => {
                        tensor.f_to_kind(Kind::Float).map_err(|e| e.to_string())
                    }
                    _ => Ok(tensor),
                };
            }
            Other(..) => return Err(self.refusal().unwrap_or_default()),
            UInt16 => {
                values = numbers(bytes, |b: [u8; 2]| i64::from(u16::from_le_bytes(b)));
                Tensor::from_slice(&values).f_to_kind(Kind::Int)
            }
            UInt32 => {
                values = numbers(bytes, |b: [u8; 4]| i64::from(u32::from_le_bytes(b)));
                Ok(Tensor::from_slice(&values))
            }
            UInt64 => {
                values = numbers(bytes, i64::from_le_bytes);
                if values.iter().any(|&value| value < 0) {
                    return Err("is of type uint64 and has numbers beyond int64".into());
                }
                Ok(Tensor::from_slice(&values))
            }
        };
        let reshaped = widened.and_then(|tensor| tensor.f_reshape(shape));
        reshaped.map_err(|_| format!("has {} bytes, which are not of shape {shape:?}", bytes.len()))
    }
}

fn is_float8(kind: Kind) -> bool {
    use Kind::{Float8e4m3fn, Float8e4m3fnuz, Float8e5m2, Float8e5m2fnuz};
    matches!(kind, Float8e4m3fn | Float8e4m3fnuz | Float8e5m2 | Float8e5m2fnuz)
}

fn numbers<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> i64) -> Vec<i64> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| number(chunk)).collect()
}
