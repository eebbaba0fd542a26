//! The C interface of a backbone library (`spark_backbone.h`), version 1, as
//! Rust types. The header documents each function.

use std::ffi::{c_char, c_void};

/// The version of the interface that these declarations are of.
pub const VERSION: u32 = 1;

/// A backbone behind the interface.
#[repr(C)]
#[derive(Debug)]
pub struct RawBackbone {
    _opaque: [u8; 0],
}

/// An `at::Tensor`, as tch's own pointers are to.
pub type RawTensor = c_void;

/// How a call ended.
pub type Status = i32;
/// It did what was asked.
pub const OK: Status = 0;
/// An argument breaks a rule.
pub const INVALID: Status = 1;
/// A file cannot be read or written.
pub const IO: Status = 2;
/// A file is not what it should be.
pub const FORMAT: Status = 3;
/// Weights do not fit the model.
pub const WEIGHTS: Status = 4;
/// libtorch refused an operation.
pub const TORCH: Status = 5;
/// A fault in the library.
pub const INTERNAL: Status = 6;

/// Tensors that are trained.
pub const PARAMETER: i32 = 0;
/// Tensors that are saved, but not trained.
pub const BUFFER: i32 = 1;
/// Tensors that no map depends on, which are saved all the same.
pub const KEPT: i32 = 2;

/// One map that forward puts out.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// 0 the finest.
    pub stage: i64,
    /// Channels of the map.
    pub channels: i64,
    /// Input pixels per position, along each side.
    pub stride: i64,
}

/// Where a call's error sentence goes.
pub type ErrorText = *mut *mut c_char;

/// Declares the types of the interface's functions.
macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        $($(#[$doc])* pub type $name = unsafe extern "C" fn($($argument),*) $(-> $result)?;)*
    };
}

functions! {
    /// `spark_abi_version`.
    AbiVersion() -> u32;
    /// `spark_library_version`, `spark_libtorch_version`.
    Version() -> *const c_char;
    /// `spark_backbone_create`: config, backbone, error.
    Create(*const c_char, *mut *mut RawBackbone, ErrorText) -> Status;
    /// `spark_backbone_clone`: backbone, copy, error.
    Clone(*const RawBackbone, *mut *mut RawBackbone, ErrorText) -> Status;
    /// `spark_backbone_graph`: backbone, graph, error. No plugin needs it.
    Graph(*const RawBackbone, *mut *mut RawTensor, ErrorText) -> Status;
    /// `spark_backbone_restore`: config, graph, backbone, error. No plugin needs it.
    Restore(*const c_char, *const RawTensor, *mut *mut RawBackbone, ErrorText) -> Status;
    /// `spark_backbone_destroy`.
    Destroy(*mut RawBackbone);
    /// `spark_backbone_config`: backbone, json, error.
    Config(*const RawBackbone, *mut *mut c_char, ErrorText) -> Status;
    /// `spark_backbone_level_count`: backbone, count, error.
    LevelCount(*const RawBackbone, *mut usize, ErrorText) -> Status;
    /// `spark_backbone_level`: backbone, index, level, error.
    GetLevel(*const RawBackbone, usize, *mut Level, ErrorText) -> Status;
    /// `spark_backbone_forward`: backbone, input, outputs, count, error.
    Forward(*const RawBackbone, *const RawTensor, *mut *mut RawTensor, usize, ErrorText) -> Status;
    /// `spark_backbone_set_training`, `…_freeze`, `…_set_norm_eval`: backbone,
    /// value, error.
    Set(*mut RawBackbone, i32, ErrorText) -> Status;
    /// `spark_backbone_to`: backbone, dtype, device, error.
    To(*mut RawBackbone, *const c_char, *const c_char, ErrorText) -> Status;
    /// `spark_backbone_tensor_count`: backbone, kind, count, error.
    TensorCount(*const RawBackbone, i32, *mut usize, ErrorText) -> Status;
    /// `spark_backbone_tensor`: backbone, kind, index, name, tensor, error.
    GetTensor(
        *const RawBackbone, i32, usize, *mut *const c_char, *mut *mut RawTensor, ErrorText
    ) -> Status;
    /// `spark_backbone_load`: backbone, path, strict, report, error.
    Load(*mut RawBackbone, *const c_char, i32, *mut *mut c_char, ErrorText) -> Status;
    /// `spark_backbone_save`: backbone, path, naming, error.
    Save(*const RawBackbone, *const c_char, *const c_char, ErrorText) -> Status;
    /// `spark_tensor_create`: data, shape, dims, tensor, error.
    TensorCreate(*const f32, *const i64, usize, *mut *mut RawTensor, ErrorText) -> Status;
    /// `spark_tensor_shape`: tensor, shape, capacity, dims, error.
    TensorShape(*const RawTensor, *mut i64, usize, *mut usize, ErrorText) -> Status;
    /// `spark_tensor_copy`: tensor, data, count, error.
    TensorCopy(*const RawTensor, *mut f32, usize, ErrorText) -> Status;
    /// `spark_tensor_destroy`.
    TensorDestroy(*mut RawTensor);
    /// `spark_string_free`.
    StringFree(*mut c_char);
}
