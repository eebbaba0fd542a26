//! The C++ that tch does not offer, and the TorchBind class.

// The bridge to C++ is unsafe by nature: what its functions take for granted
// stands beside each.
#![allow(unsafe_code)]

use tch::Tensor;

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
    }

    extern "Rust" {
        /// Names of the registered models.
        fn model_names() -> Vec<String>;
    }
}

fn model_names() -> Vec<String> {
    backbone::models::MODELS.iter().map(|model| model.name.to_owned()).collect()
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
