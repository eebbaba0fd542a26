// Norms on processors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace spark {

// Σ x² of a tensor on the processor, in float64. libtorch's norm of bfloat16 is either rounded to
// it or that of a copy in float32.
double sum_of_squares(const at::Tensor& tensor);

// The same of `count` values, on this thread.
double sum_of_squares(const float* values, std::int64_t count);
double sum_of_squares(const double* values, std::int64_t count);
double sum_of_squares(const c10::BFloat16* values, std::int64_t count);

}  // namespace spark
