// The norm of gradients on processors.
#pragma once

#include <ATen/core/Tensor.h>

namespace spark {

// Σ x² of a tensor on the processor, in float64. libtorch's norm of bfloat16 is either rounded to
// it or that of a copy in float32.
double sum_of_squares(const at::Tensor& tensor);

}  // namespace spark
