//! Type, shape and strides of a tensor, checked before anything is made of them.

use tch::{Kind, Tensor};

use super::program::TensorMeta;
use super::wire::{self, Number, STRIDED};
use crate::weights::dtype::element_count;
use crate::weights::element::Element;

type Outcome<T> = std::result::Result<T, String>;

/// An element type by its number (`ScalarType` of `schema.py`): PyTorch's name of it, and tch's
/// type if it has one.
pub(super) fn scalar_type(number: i64) -> Option<(&'static str, Option<Kind>)> {
    Some(match number {
        1 => ("uint8", Some(Kind::Uint8)),
        2 => ("int8", Some(Kind::Int8)),
        3 => ("int16", Some(Kind::Int16)),
        4 => ("int32", Some(Kind::Int)),
        5 => ("int64", Some(Kind::Int64)),
        6 => ("float16", Some(Kind::Half)),
        7 => ("float32", Some(Kind::Float)),
        8 => ("float64", Some(Kind::Double)),
        9 => ("complex32", Some(Kind::ComplexHalf)),
        10 => ("complex64", Some(Kind::ComplexFloat)),
        11 => ("complex128", Some(Kind::ComplexDouble)),
        12 => ("bool", Some(Kind::Bool)),
        13 => ("bfloat16", Some(Kind::BFloat16)),
        28 => ("uint16", None),
        29 => ("float8_e4m3fn", Some(Kind::Float8e4m3fn)),
        30 => ("float8_e5m2", Some(Kind::Float8e5m2)),
        31 => ("float8_e4m3fnuz", Some(Kind::Float8e4m3fnuz)),
        32 => ("float8_e5m2fnuz", Some(Kind::Float8e5m2fnuz)),
        33 => ("float8_e8m0fnu", None),
        34 => ("uint32", None),
        35 => ("uint64", None),
        _ => return None,
    })
}

/// Which elements of a storage a tensor has. Its extent is no more than what can be counted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layout {
    /// PyTorch's name of the element type.
    pub(super) dtype: &'static str,
    /// The element type, if tch has it.
    pub(super) kind: Option<Kind>,
    element: Element,
    pub(crate) shape: Vec<i64>,
    /// In elements.
    pub(crate) strides: Vec<i64>,
    /// The first, in elements.
    pub(crate) offset: i64,
    /// Elements from the storage's start to the last one.
    extent: usize,
}

impl Layout {
    /// Of a stored tensor.
    ///
    /// # Errors
    /// The end of a sentence that starts with the tensor's name.
    pub(super) fn of(meta: &wire::TensorMeta) -> Outcome<Self> {
        if meta.layout != STRIDED {
            return Err(format!("has layout {}; only dense tensors are read", meta.layout));
        }
        let (dtype, kind) = scalar_type(meta.dtype)
            .ok_or_else(|| format!("has element type {}, which is not known", meta.dtype))?;
        let element = Element::of_torch(dtype)
            .ok_or_else(|| format!("is of type {dtype}, which is not known"))?;
        let whole = |numbers: &[Number<i64>]| numbers.iter().map(constant).collect::<Option<_>>();
        let numbers = (whole(&meta.sizes), whole(&meta.strides), constant(&meta.storage_offset));
        let (Some(shape), Some(strides), Some(offset)) = numbers else {
            return Err("is stored, yet its shape is open".into());
        };
        let mut layout = Self { dtype, kind, element, shape, strides, offset, extent: 0 };
        layout.extent = layout.checked_extent()?;
        Ok(layout)
    }

    fn checked_extent(&self) -> Outcome<usize> {
        let Self { shape, strides, offset, .. } = self;
        let width = self.element.width();
        let impossible = || {
            format!("has shape {shape:?}, strides {strides:?} and offset {offset}, which can't be")
        };
        if shape.len() != strides.len() {
            return Err(impossible());
        }
        let elements = element_count(shape).ok_or_else(impossible)?;
        elements.checked_mul(width).ok_or_else(impossible)?;
        let mut last = usize::try_from(*offset).map_err(|_| impossible())?;
        for (&side, &stride) in shape.iter().zip(strides) {
            let stride = usize::try_from(stride).map_err(|_| impossible())?;
            let steps = (side as usize).saturating_sub(1);
            let reach = steps.checked_mul(stride).and_then(|reach| last.checked_add(reach));
            last = reach.ok_or_else(impossible)?;
        }
        let extent = if elements == 0 { 0 } else { last.checked_add(1).ok_or_else(impossible)? };
        match extent.checked_mul(width) {
            Some(bytes) if i64::try_from(bytes).is_ok() => Ok(extent),
            _ => Err(impossible()),
        }
    }

    /// The element type, as the other weight files have it.
    pub(crate) fn element(&self) -> Element {
        self.element
    }

    /// Bytes of its elements.
    pub(super) fn bytes(&self) -> usize {
        element_count(&self.shape).unwrap_or(0) * self.element.width()
    }

    /// Bytes that its storage has at least.
    pub(super) fn storage_bytes(&self) -> usize {
        self.extent * self.element.width()
    }

    /// Whether some of its elements may be one and the same.
    pub(super) fn overlaps(&self) -> bool {
        self.extent < element_count(&self.shape).unwrap_or(0)
            || self.shape.iter().zip(&self.strides).any(|(&side, &stride)| side > 1 && stride == 0)
    }

    /// As a [`TensorMeta`].
    pub(super) fn meta(&self) -> TensorMeta {
        TensorMeta { kind: self.kind, size: self.shape.clone() }
    }

    /// The tensor itself: an alias of `storage`, the storage's bytes.
    ///
    /// # Errors
    /// The end of a sentence that starts with the tensor's name.
    pub(super) fn view(&self, storage: &Tensor) -> Outcome<Tensor> {
        let kind = self.kind.ok_or_else(|| self.refusal())?;
        let stored = storage.size().first().copied().unwrap_or(0) as usize;
        if self.storage_bytes() > stored {
            return Err(if stored == 0 {
                "has a shape, but no values; export the network with its weights".into()
            } else {
                format!(
                    "of shape {:?} and strides {:?} reaches beyond its storage of {stored} bytes",
                    self.shape, self.strides
                )
            });
        }
        if kind == Kind::Bool && !self.is_boolean(storage).map_err(|e| e.to_string())? {
            return Err("is of type bool, but has bytes other than 0 and 1".into());
        }
        self.as_strided(storage, kind).map_err(|e| e.to_string())
    }

    /// Why no tensor can be made of it.
    pub(super) fn refusal(&self) -> String {
        format!("is of type {}, which is not read", self.dtype)
    }

    fn as_strided(&self, storage: &Tensor, kind: Kind) -> Result<Tensor, tch::TchError> {
        let width = self.element.width() as i64;
        let stored = storage.size()[0] / width * width;
        let typed = storage.f_narrow(0, 0, stored)?.f_view_dtype(kind)?;
        // Tensors without elements may have any offset.
        let offset = if self.extent == 0 { 0 } else { self.offset };
        typed.f_as_strided(&self.shape, &self.strides, offset)
    }

    /// Whether its bytes are 0 or 1: any other is undefined as a boolean of libtorch's.
    fn is_boolean(&self, storage: &Tensor) -> Result<bool, tch::TchError> {
        if self.extent == 0 {
            return Ok(true);
        }
        Ok(self.as_strided(storage, Kind::Uint8)?.f_max()?.f_int64_value(&[])? <= 1)
    }
}

fn constant(number: &Number<i64>) -> Option<i64> {
    match number {
        Number::Value(value) => Some(*value),
        _ => None,
    }
}
