// What bridge.rs calls; light enough for the code that cxx generates. Every function is
// differentiable (linear() and relu6() as often as one likes, the others once), and throws where
// libtorch does. Results belong to the caller: the same type in two crates cannot be cxx's UniquePtr.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "rust/cxx.h"

namespace spark::kernels {

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

// torch.nn.ConvTranspose2d(kernel 4, stride 2, padding 1) of a channels-last map.
at::Tensor* up_sample(const at::Tensor& input, const at::Tensor& weight,
                                      const at::Tensor& bias);

// torch.nn.functional.relu6, on any device.
at::Tensor* relu6(const at::Tensor& input);

// The same in the input's memory.
at::Tensor* relu6_in_place(const at::Tensor& input);

// A copy in memory that devices read by themselves.
at::Tensor* pinned(const at::Tensor& tensor);

}  // namespace spark::kernels
