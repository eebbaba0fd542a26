//! The C++ that tch does not offer, and the TorchBind class.

// The bridge to C++ is unsafe by nature: what its functions take for granted
// stands beside each.
#![allow(unsafe_code)]

use backbone::{Error, Module};
use serde::Serialize;
use tch::Tensor;

use crate::abi;
use crate::edge::guarded;

#[cxx::bridge(namespace = "spark")]
mod ffi {
    unsafe extern "C++" {
        include!("spark-ffi/src/bridge.hpp");

        /// `at::Tensor`.
        #[namespace = "at"]
        type Tensor;

        /// Whether the tensor has plain strided memory.
        fn is_strided(tensor: &Tensor) -> bool;

        /// What PyTorch calls the tensor's device.
        fn device_name(tensor: &Tensor) -> String;

        /// Whether autocast is on, in this thread, for the tensor's device.
        fn autocasts(tensor: &Tensor) -> bool;

        /// Why this copy of the library must not be used; empty if it may.
        fn refusal() -> String;

        /// What the C interface calls a backbone.
        #[namespace = ""]
        type SparkBackbone;
    }

    extern "Rust" {
        /// Names of the registered models.
        fn model_names() -> Vec<String>;
        /// The layers in the network's order, as a JSON list of names with the class of
        /// `torch.nn`, its arguments, and the index of its stage as `freeze_at` counts.
        unsafe fn modules(backbone: *const SparkBackbone) -> Result<String>;
        /// How one batch norm runs; a momentum that is no number: the mean of all
        /// batches.
        unsafe fn set_norm(
            backbone: *const SparkBackbone,
            name: &str,
            training: bool,
            momentum: f64,
        ) -> Result<()>;
    }
}

fn model_names() -> Vec<String> {
    backbone::models::MODELS.iter().map(|model| model.name.to_string()).collect()
}

/// The caller vouches for the backbone.
unsafe fn modules(backbone: *const ffi::SparkBackbone) -> Result<String, String> {
    guarded(|| {
        let handle = unsafe { abi::handle(backbone.cast()) }?;
        let modules = handle.modules().into_iter().map(|(name, module)| {
            let stage_index = handle.stage_index(&name);
            (name, Described { module, stage_index })
        });
        serde_json::to_string(&modules.collect::<Vec<_>>()).map_err(|error| {
            Error::invalid("a layer", "not expressible", format!("JSON has no form: {error}"))
        })
    })
}

/// A layer as JSON has it.
#[derive(Serialize)]
struct Described {
    #[serde(flatten)]
    module: Module,
    stage_index: Option<usize>,
}

/// The caller vouches for the backbone.
unsafe fn set_norm(
    backbone: *const ffi::SparkBackbone,
    name: &str,
    training: bool,
    momentum: f64,
) -> Result<(), String> {
    let momentum = Some(momentum).filter(|momentum| !momentum.is_nan());
    guarded(|| unsafe { abi::handle(backbone.cast()) }?.set_norm(name, training, momentum))
}

/// Whether the tensor has plain strided memory.
pub fn is_strided(tensor: &Tensor) -> bool {
    ffi::is_strided(borrow(tensor))
}

/// What PyTorch calls the tensor's device; tch knows a few kinds of device and
/// takes any other for one of these.
pub fn device_name(tensor: &Tensor) -> String {
    ffi::device_name(borrow(tensor))
}

/// Whether autocast is on, in this thread, for the tensor's device.
pub fn autocasts(tensor: &Tensor) -> bool {
    ffi::autocasts(borrow(tensor))
}

/// Why this copy of the library must not be used, if so.
pub fn refusal() -> Option<String> {
    Some(ffi::refusal()).filter(|reason| !reason.is_empty())
}

fn borrow(tensor: &Tensor) -> &ffi::Tensor {
    // tch's C_tensor is another name for at::Tensor; the reference borrows
    // `tensor`, which keeps it alive.
    unsafe { &*tensor.as_ptr().cast::<ffi::Tensor>() }
}
