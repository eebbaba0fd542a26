// What bridge.rs calls; light enough for the code that cxx generates. Every function is
// differentiable (linear() and relu6() as often as one likes, the others once), and throws where
// libtorch does. Results belong to the caller: the same type in two crates cannot be cxx's UniquePtr.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "rust/cxx.h"

namespace spark::kernels {

// Recomputes a tensor; Rust's.
struct RecomputeFn;

// rows [P, in] · weightᵀ [in, out] (+ bias), through oneDNN.
at::Tensor* linear(const at::Tensor& rows, const at::Tensor& weight,
                                   const at::Tensor& bias);

// Whether this libtorch has what linear() needs, and no autocast wants another type.
bool takes_linear();

// For every row of table [M, a] the sum of those rows of source [N, C] that it names; -1 names
// none, -2 (first of its row) a row full of `outside`.
at::Tensor* sum_rows(const at::Tensor& source, const at::Tensor& table,
                                     const at::Tensor& transposed, double outside);

// The table [N, b] that names, for every row of a source of N rows, the rows of `table` [M, a]
// that name it.
at::Tensor* transpose_table(const at::Tensor& table, std::int64_t rows);

// A depthwise convolution of rows [P, C] with weight [C, 1, kh, kw] (+ bias [C]): `starts`
// [P + 1] says which of the pairs (tap, row) [pairs, 2] an output row takes its inputs from.
at::Tensor* depthwise(const at::Tensor& rows, const at::Tensor& weight,
                                      const at::Tensor& bias, const at::Tensor& starts,
                                      const at::Tensor& pairs);

// torch.nn.ConvTranspose2d(kernel 4, stride 2, padding 1) by weight `up` and `bias`, then a 3×3
// convolution by `conv` [out, C, 3, 3] with padding 1. The backward pass does not keep the input,
// which `recompute` recomputes.
at::Tensor* up_conv(const at::Tensor& input, const at::Tensor& up, const at::Tensor& bias,
                    const at::Tensor& conv, rust::Box<RecomputeFn> recompute);

// torch.nn.functional.relu6, on any device.
at::Tensor* relu6(const at::Tensor& input);

// The same in the input's memory.
at::Tensor* relu6_in_place(const at::Tensor& input);

// Mean and 1 / √(variance + eps) of the channels of a map [N, C, H, W] on the processor, float64
// [2, C]. The running ones move towards mean and unbiased variance by `momentum`.
at::Tensor* batch_statistics(const at::Tensor& input, const at::Tensor& running_mean,
                             const at::Tensor& running_var, double momentum, double eps);

// `input` normalised by its own batch_statistics(), scaled, shifted and clamped. The backward pass
// keeps the input and not the result.
at::Tensor* batch_norm(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                       const at::Tensor& statistics, double lower, double upper);

// torch.nn.functional.conv2d; `geometry` is stride, padding and dilation, two numbers each, and
// groups. The backward pass does not keep the input, which `recompute` recomputes.
at::Tensor* convolution(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                        rust::Slice<const std::int64_t> geometry, rust::Box<RecomputeFn> recompute);

// `weight` in bfloat16. Where it is a parameter, its gradient stays in that type, and the parameter
// accepts gradients of any type from now on.
at::Tensor* to_bf16_with_bf16_grad(const at::Tensor& weight);

// Frees the storage of `tensor`, which nobody reads any more but the backward pass of what made
// `result` of it; when that begins, `recompute` restores it. Not where hooks for saved tensors are
// set, as gradient checkpointing does.
void free_and_recompute(const at::Tensor& tensor, const at::Tensor& result,
                        rust::Box<RecomputeFn> recompute);

// `weight`, a contiguous kernel of a convolution, in channels-last memory; not differentiable.
at::Tensor* channels_last(const at::Tensor& weight);

// Whether this thread records gradients.
bool records_gradients();

// A copy in memory that devices read by themselves.
at::Tensor* pinned(const at::Tensor& tensor);

}  // namespace spark::kernels
