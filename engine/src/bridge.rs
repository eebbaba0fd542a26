//! What tch does not offer: PyTorch's c10d, undefining a gradient, a record of operator
//! calls, a quick LAMB, and the C library's allocator.

// The bridge to C++ is unsafe by nature: what its functions take for granted
// stands beside each.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;

use cxx::UniquePtr;
use tch::Tensor;

#[cxx::bridge(namespace = "spark")]
pub(crate) mod ffi {
    /// Where and how to meet.
    struct Rendezvous {
        /// Of the store's server.
        host: String,
        port: u16,
        rank: i32,
        size: i32,
        /// Whether this process runs the server.
        serves: bool,
        /// Whether several stores of this process may share a server.
        multi_tenant: bool,
        /// Of all keys in the store: the job's name.
        prefix: String,
        /// Drawn at random: a restarted process is told by it from the one it replaces, whose
        /// keys a launcher's store still has.
        nonce: String,
        /// Of every operation.
        timeout_ms: i64,
        /// Address of this machine that the others reach.
        address: String,
        /// Network interface to use in place of that address, if not empty.
        interface: String,
    }

    /// Averages over the steps that c10d sampled, in nanoseconds.
    #[derive(Debug, Clone, Copy)]
    struct Timings {
        /// Of the backward pass.
        backward_ns: i64,
        /// Of the averaging, from the first gradient sent to the last received.
        communication_ns: i64,
        /// Of the part of it during which gradients were still being computed.
        hidden_ns: i64,
    }

    /// Calls of one operator.
    #[derive(Debug, Clone)]
    struct OperatorCalls {
        /// As libtorch names it: `aten::…`, or a node of the backward pass.
        name: String,
        calls: u64,
        /// Calls that did work, and called no other operator to do it.
        launches: u64,
        /// Spent in it, less what it spent in others.
        nanoseconds: i64,
    }

    /// The constants of a step of LAMB.
    struct LambConstants {
        lr: f64,
        weight_decay: f64,
        beta1: f64,
        beta2: f64,
        /// The weight of a gradient in its average.
        beta3: f64,
        bias_correction1: f64,
        bias_correction2: f64,
        eps: f64,
        /// Whether the trust ratio scales the update.
        trust: bool,
    }

    unsafe extern "C++" {
        include!("spark-engine/src/optim/lamb.hpp");

        fn lamb_update(
            parameters: &TensorList,
            gradient: &Tensor,
            average: &Tensor,
            square: &Tensor,
            coefficient: &Tensor,
            constants: &LambConstants,
        ) -> Result<()>;

        include!("spark-engine/src/optim/norm.hpp");

        fn sum_of_squares(tensor: &Tensor) -> Result<f64>;

        include!("spark-engine/src/allocator/allocator.hpp");

        fn keep_freed_memory();
        fn peak_of_tensors() -> usize;
        fn peak_on_cuda(index: i8) -> Result<usize>;

        include!("spark-engine/src/operators/record.hpp");

        fn start_recording() -> Result<()>;
        fn stop_recording() -> Vec<OperatorCalls>;

        include!("spark-engine/src/distributed/c10d/group.hpp");

        /// `at::Tensor`.
        #[namespace = "at"]
        type Tensor;

        type Group;
        fn launch_name(rendezvous: &Rendezvous) -> Result<String>;
        fn connect(rendezvous: &Rendezvous) -> Result<UniquePtr<Group>>;
        fn add_nccl(self: &Group, timeout_ms: i64) -> Result<()>;
        fn set_timeout(self: &Group, timeout_ms: i64) -> Result<()>;
        fn sum(self: &Group, tensor: &Tensor) -> Result<()>;
        fn max(self: &Group, tensor: &Tensor) -> Result<()>;
        fn broadcast(self: &Group, tensor: &Tensor) -> Result<()>;
        fn gather(self: &Group, tensor: &Tensor) -> Result<UniquePtr<Tensor>>;

        type TensorList;
        fn tensor_list() -> UniquePtr<TensorList>;
        fn push(self: Pin<&mut TensorList>, tensor: &Tensor);

        type GradientReducer;
        fn gradient_reducer(
            group: &Group,
            parameters: &TensorList,
            names: &[String],
        ) -> Result<UniquePtr<GradientReducer>>;
        fn begin(self: &GradientReducer) -> Result<()>;
        fn backward(self: &GradientReducer, loss: &Tensor, last: bool) -> Result<()>;
        fn buckets(self: &GradientReducer) -> Result<Vec<i64>>;
        fn timings(self: &GradientReducer) -> Result<Timings>;

        /// Leaves the tensor without a gradient.
        fn undefine_gradient(tensor: &Tensor);

        #[allow(clippy::too_many_arguments)]
        fn sync_batch_norm(
            group: &Group,
            input: &Tensor,
            weight: &Tensor,
            bias: &Tensor,
            running_mean: &Tensor,
            running_var: &Tensor,
            momentum: f64,
            eps: f64,
        ) -> Result<UniquePtr<Tensor>>;
    }
}

/// `tensor` as C++ takes it.
pub(crate) fn borrow(tensor: &Tensor) -> &ffi::Tensor {
    // tch's C_tensor is another name for at::Tensor; the reference borrows
    // `tensor`, which keeps it alive.
    unsafe { &*tensor.as_ptr().cast::<ffi::Tensor>() }
}

/// A tensor that C++ made.
pub(crate) fn take(tensor: UniquePtr<ffi::Tensor>) -> Tensor {
    // tch deletes what it is given here with C++'s delete, as UniquePtr would.
    unsafe { Tensor::from_ptr(tensor.into_raw().cast()) }
}

/// Tensors as C++ takes them, sharing storage.
pub(crate) fn list<'a>(
    tensors: impl IntoIterator<Item = &'a Tensor>,
) -> UniquePtr<ffi::TensorList> {
    let mut list = ffi::tensor_list();
    tensors.into_iter().for_each(|tensor| list.pin_mut().push(borrow(tensor)));
    list
}

/// A group that is never torn down: one whose operations hang would take the process with it.
pub(crate) type Abandoned = ManuallyDrop<UniquePtr<ffi::Group>>;

/// Leaves `tensor` without a gradient.
pub(crate) fn undefine_gradient(tensor: &Tensor) {
    ffi::undefine_gradient(borrow(tensor));
}

/// Has the process end without the destructors of libraries, which take libtorch's tables of
/// operators apart for longer than many a command runs. The system frees all of it anyway.
#[cfg(target_env = "gnu")]
pub(crate) fn skip_static_destructors() {
    use std::ffi::{c_int, c_void};
    use std::ptr::null_mut;

    unsafe extern "C" {
        fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
        fn fflush(stream: *mut c_void) -> c_int;
        fn _exit(status: c_int) -> !;
    }

    extern "C" fn leave(status: c_int, _: *mut c_void) {
        // Rust's own streams are flushed before handlers are called; C code may have written, too.
        unsafe {
            fflush(null_mut());
            _exit(status)
        }
    }

    // The last handler is called first: before those of libraries, which are loaded by now. There
    // is room for 32 of them at least; without room the program ends as it always did.
    unsafe { on_exit(leave, null_mut()) };
}

/// Other C libraries do not tell a handler the status.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn skip_static_destructors() {}
