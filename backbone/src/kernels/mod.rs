//! Kernels that libtorch lacks, or runs slowly on processors. On other devices
//! layers use libtorch's operators.

// The bridge to C++ is unsafe by nature: what its functions take for granted
// stands beside each.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

#[cxx::bridge(namespace = "spark::kernels")]
mod ffi {
    extern "Rust" {
        type RecomputeFn;
        fn make(self: &RecomputeFn) -> Result<*mut Tensor>;
    }

    unsafe extern "C++" {
        include!("spark-backbone/src/kernels/kernels.hpp");

        /// `at::Tensor`.
        #[namespace = "at"]
        type Tensor;

        fn takes_linear() -> bool;
        fn linear(rows: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<*mut Tensor>;
        fn sum_rows(
            source: &Tensor,
            table: &Tensor,
            transposed: &Tensor,
            outside: f64,
        ) -> Result<*mut Tensor>;
        fn transpose_table(table: &Tensor, rows: i64) -> Result<*mut Tensor>;
        fn depthwise(
            rows: &Tensor,
            weight: &Tensor,
            bias: &Tensor,
            starts: &Tensor,
            pairs: &Tensor,
        ) -> Result<*mut Tensor>;
        fn up_conv(
            input: &Tensor,
            up: &Tensor,
            bias: &Tensor,
            conv: &Tensor,
            recompute: Box<RecomputeFn>,
        ) -> Result<*mut Tensor>;
        fn relu6(input: &Tensor) -> Result<*mut Tensor>;
        fn relu6_in_place(input: &Tensor) -> Result<*mut Tensor>;
        fn batch_statistics(
            input: &Tensor,
            running_mean: &Tensor,
            running_var: &Tensor,
            momentum: f64,
            eps: f64,
        ) -> Result<*mut Tensor>;
        fn batch_norm(
            input: &Tensor,
            weight: &Tensor,
            bias: &Tensor,
            statistics: &Tensor,
            lower: f64,
            upper: f64,
        ) -> Result<*mut Tensor>;
        fn convolution(
            input: &Tensor,
            weight: &Tensor,
            bias: &Tensor,
            geometry: &[i64],
            recompute: Box<RecomputeFn>,
        ) -> Result<*mut Tensor>;
        fn to_bf16_with_bf16_grad(weight: &Tensor) -> Result<*mut Tensor>;
        fn free_and_recompute(
            tensor: &Tensor,
            result: &Tensor,
            recompute: Box<RecomputeFn>,
        ) -> Result<()>;
        fn channels_last(weight: &Tensor) -> Result<*mut Tensor>;
        fn records_gradients() -> bool;
        fn pinned(tensor: &Tensor) -> Result<*mut Tensor>;
    }
}

/// `at::Tensor`, for other bridges to C++.
pub(crate) use ffi::Tensor as CxxTensor;

/// `tensor` as C++ takes it.
pub(crate) fn borrow(tensor: &Tensor) -> &ffi::Tensor {
    // tch's C_tensor is another name for at::Tensor; the reference borrows
    // `tensor`, which keeps it alive.
    unsafe { &*tensor.as_ptr().cast::<ffi::Tensor>() }
}

/// What C++ made. Panics as tch's own operators do: what they refuse has been
/// refused at the public boundary.
pub(crate) fn take(made: Result<*mut ffi::Tensor, cxx::Exception>) -> Tensor {
    let made = made.unwrap_or_else(|error| panic!("{error}"));
    // C++ made it with new, and tch deletes what it is given with delete.
    unsafe { Tensor::from_ptr(made.cast()) }
}

/// `bias`, or a tensor that C++ sees as undefined.
fn optional(bias: Option<&Tensor>) -> Tensor {
    bias.map_or_else(Tensor::new, Tensor::shallow_clone)
}

/// `rows` `[…, in]` times the transpose of `weight` `[out, in]`, plus `bias`
/// `[out]`.
pub(crate) fn linear(rows: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    if is_linear_fast(rows, None, weight.size()[0]) && weight.kind() == Kind::Float {
        return linear_by_onednn(rows, weight, bias);
    }
    // Of rows that lie apart libtorch would make many products, where no gradient is
    // wanted.
    as_matrix(rows, |rows| rows.linear(weight, bias))
}

/// [`linear`] of float32 on the processor.
fn linear_by_onednn(rows: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let bias = optional(bias);
    as_matrix(rows, |rows| take(ffi::linear(borrow(rows), borrow(weight), borrow(&bias))))
}

/// What `product` makes of `rows` `[…, in]` as a matrix, as `[…, out]`.
fn as_matrix(rows: &Tensor, product: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
    let mut size = rows.size();
    let last = size.len() - 1;
    let product = product(&rows.reshape([-1, size[last]]));
    size[last] = product.size()[1];
    product.view(size.as_slice())
}

/// Multiplications from which on a product is worth another library than the
/// one that libtorch takes; smaller ones take less than a millisecond there.
const LARGE: usize = 1 << 25;

/// Whether [`linear`] of `rows`, cast to `compute`, to so many outputs is better
/// than libtorch's products and convolutions with 1×1 kernels.
pub(crate) fn is_linear_fast(rows: &Tensor, compute: Option<Kind>, outputs: i64) -> bool {
    compute.unwrap_or(rows.kind()) == Kind::Float
        && rows.device() == Device::Cpu
        && rows.numel() * outputs as usize >= LARGE
        && ffi::takes_linear()
}

/// The name of no row in a [`RowTable`].
pub(crate) const NOTHING: i64 = -1;
/// The name of a row full of what lies outside.
pub(crate) const OUTSIDE: i64 = -2;

/// Which rows of a source make up each row of a result, and which rows of the
/// result each row of the source is in.
#[derive(Debug)]
pub(crate) struct RowTable {
    /// `[M, a]`: rows of the source, or [`NOTHING`], or [`OUTSIDE`].
    forward: Tensor,
    /// `[N, b]`.
    transposed: Tensor,
}

impl RowTable {
    /// A table for sources of `rows` rows, on the processor.
    pub fn new(forward: Tensor, rows: i64) -> Self {
        let transposed = take(ffi::transpose_table(borrow(&forward), rows));
        Self { forward, transposed }
    }

    /// The same table.
    pub fn shallow_clone(&self) -> Self {
        let [forward, transposed] = [&self.forward, &self.transposed].map(Tensor::shallow_clone);
        Self { forward, transposed }
    }

    /// The sums `[M, C]` of rows of `source` `[N, C]`.
    pub fn sum(&self, source: &Tensor, outside: f64) -> Tensor {
        let (table, transposed) = (borrow(&self.forward), borrow(&self.transposed));
        take(ffi::sum_rows(borrow(source), table, transposed, outside))
    }

    /// The other way: the sums `[N, C]` of rows of `result` `[M, C]`.
    pub fn sum_back(&self, result: &Tensor) -> Tensor {
        let (table, transposed) = (borrow(&self.transposed), borrow(&self.forward));
        take(ffi::sum_rows(borrow(result), table, transposed, 0.0))
    }
}

/// Which inputs each row of a depthwise convolution has.
#[derive(Debug)]
pub(crate) struct Neighbours {
    /// `[P + 1]`, int64: where a row's pairs begin.
    starts: Tensor,
    /// `[pairs, 2]`, int32: tap and row.
    pairs: Tensor,
}

impl Neighbours {
    /// From the named rows `[P · taps]` of every row's window, negative where
    /// there is none.
    pub fn new(windows: &[i64], taps: usize) -> Self {
        let (mut starts, mut pairs) = (vec![0], Vec::new());
        for window in windows.chunks(taps) {
            let named = window.iter().enumerate().filter(|(_, row)| **row >= 0);
            pairs.extend(named.flat_map(|(tap, row)| [tap as i32, *row as i32]));
            starts.push((pairs.len() / 2) as i64);
        }
        let (starts, pairs) = (Tensor::from_slice(&starts), Tensor::from_slice(&pairs));
        Self { starts, pairs }
    }

    /// The convolution of `rows` `[P, C]`, float32 or float64, with `weight`
    /// `[C, 1, kh, kw]`, whose sides are odd; stride 1.
    pub fn convolve(&self, rows: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let bias = optional(bias);
        let (starts, pairs) = (borrow(&self.starts), borrow(&self.pairs));
        take(ffi::depthwise(borrow(rows), borrow(weight), borrow(&bias), starts, pairs))
    }
}

/// `torch.nn.ConvTranspose2d(kernel_size=4, stride=2, padding=1)` of `input` `[N, C, H, W]` by `up`
/// `[C, C, 4, 4]` and `bias` `[C]`, then a convolution by `conv` `[out, C, 3, 3]` with padding 1: as
/// one operator on processors, all of one type. The backward pass does not keep
/// `input`, which `recompute` recomputes.
pub(crate) fn up_conv(
    input: &Tensor,
    [up, bias, conv]: [&Tensor; 3],
    recompute: RecomputeFn,
) -> Tensor {
    let [input, up, bias, conv] = [input, up, bias, conv].map(borrow);
    take(ffi::up_conv(input, up, bias, conv, Box::new(recompute)))
}

/// Whether [`up_conv`] is faster than one convolution after the other, which multiply 4 more
/// times for every output and pair of channels where it multiplies kernels: 144 times for every
/// triple. Kernels are small, so that they get half the speed.
pub(crate) fn is_up_conv_fast(input: &Tensor) -> bool {
    let size = input.size();
    let [images, channels, height, width] = size[..] else { return false };
    input.device() == Device::Cpu && 4 * (4 * images * height * width) > 2 * 144 * channels
}

/// Mean and 1 / √(variance + eps) of every channel, float64 `[2, C]`, of a map `[N, C, H, W]` that
/// [`is_batch_norm_fused`]; moves the running mean and variance `[C]` by `momentum`.
pub(crate) fn batch_statistics(
    input: &Tensor,
    running: [&Tensor; 2],
    momentum: f64,
    eps: f64,
) -> Tensor {
    let [mean, variance] = running.map(borrow);
    take(ffi::batch_statistics(borrow(input), mean, variance, momentum, eps))
}

/// `input`, normalised by its own [`batch_statistics`], scaled and shifted by weight and bias
/// `[C]`, and clamped to these bounds. Autograd keeps the input, not the result.
pub(crate) fn batch_norm(
    input: &Tensor,
    [weight, bias]: [&Tensor; 2],
    statistics: &Tensor,
    [lower, upper]: [f64; 2],
) -> Tensor {
    let [input, weight, bias, statistics] = [input, weight, bias, statistics].map(borrow);
    take(ffi::batch_norm(input, weight, bias, statistics, lower, upper))
}

/// Whether there are kernels for the batch norm of `input` with parameters of this kind.
pub(crate) fn is_batch_norm_fused(input: &Tensor, parameters: Kind) -> bool {
    let wide = match input.kind() {
        Kind::Float | Kind::BFloat16 => Kind::Float,
        kind => kind,
    };
    input.device() == Device::Cpu
        && matches!(wide, Kind::Float | Kind::Double)
        && wide == parameters
        // Of a single value there is no unbiased variance; libtorch decides.
        && input.numel() as i64 > input.size()[1]
}

/// `torch.nn.functional.conv2d` of an `input` that the backward pass does not
/// keep: `recompute` recomputes it. `geometry` is stride, padding and dilation,
/// (height, width) each; `bias` may be left out.
pub(crate) fn convolution(
    input: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    geometry: [(i64, i64); 3],
    groups: i64,
    recompute: RecomputeFn,
) -> Tensor {
    let [stride, padding, dilation] = geometry;
    let numbers = [stride.0, stride.1, padding.0, padding.1, dilation.0, dilation.1, groups];
    let bias = optional(bias);
    let (input, weight, bias) = (borrow(input), borrow(weight), borrow(&bias));
    take(ffi::convolution(input, weight, bias, &numbers, Box::new(recompute)))
}

/// `weight` in bfloat16. The gradient of a parameter stays in that type, rather than
/// be copied to the parameter's.
pub(crate) fn to_bf16_with_bf16_grad(weight: &Tensor) -> Tensor {
    take(ffi::to_bf16_with_bf16_grad(borrow(weight)))
}

/// Recomputes a tensor. Called by the thread of the backward pass.
#[derive(Clone)]
pub(crate) struct RecomputeFn(Arc<Mutex<dyn Fn() -> Tensor + Send>>);

impl RecomputeFn {
    pub fn new(make: impl Fn() -> Tensor + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(make)))
    }

    /// The tensor, which no gradient flows through.
    pub fn call(&self) -> Tensor {
        // A panic in another call has changed nothing that this one reads.
        let make = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tch::no_grad(&*make)
    }

    /// For C++, which no panic may cross.
    fn make(&self) -> Result<*mut ffi::Tensor, String> {
        let made = catch_unwind(AssertUnwindSafe(|| self.call()));
        // C++ deletes it.
        made.map(|tensor| ManuallyDrop::new(tensor).as_mut_ptr().cast())
            .map_err(|_| "a tensor could not be recomputed for the backward pass".into())
    }
}

impl std::fmt::Debug for RecomputeFn {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("RecomputeFn")
    }
}

/// Frees `tensor`'s storage, which nobody may read any more but the backward pass of the operator
/// that made `result` of it. Just before that, `recompute` restores it.
///
/// Nothing happens where no gradient is wanted, or autocast chooses types.
pub(crate) fn free_and_recompute(tensor: &Tensor, result: &Tensor, recompute: RecomputeFn) {
    ffi::free_and_recompute(borrow(tensor), borrow(result), Box::new(recompute))
        .unwrap_or_else(|error| panic!("{error}"));
}

/// `weight`, a contiguous kernel `[out, in, h, w]` on the processor, in channels-last memory.
/// Not differentiable.
pub(crate) fn channels_last(weight: &Tensor) -> Tensor {
    take(ffi::channels_last(borrow(weight)))
}

/// Whether this thread records gradients.
pub(crate) fn records_gradients() -> bool {
    ffi::records_gradients()
}

/// `torch.nn.functional.relu6`.
pub(crate) fn relu6(input: &Tensor) -> Tensor {
    take(ffi::relu6(borrow(input)))
}

/// The same in the input's memory.
pub(crate) fn relu6_in_place(input: &Tensor) -> Tensor {
    take(ffi::relu6_in_place(borrow(input)))
}

/// `tensor`, which lies on the processor, on `device`. To a CUDA device it is
/// copied from pinned memory while the host goes on; libtorch keeps that memory
/// until the copy is done.
pub fn to_device_nonblocking(tensor: &Tensor, device: Device) -> Tensor {
    match device {
        // tch's own pin_memory makes libtorch warn of an argument it no longer wants.
        Device::Cuda(_) => {
            let pinned = take(ffi::pinned(borrow(tensor)));
            pinned.to_device_(device, tensor.kind(), true, false)
        }
        Device::Cpu => tensor.shallow_clone(),
        _ => tensor.to_device(device),
    }
}

#[cfg(test)]
mod tests;
