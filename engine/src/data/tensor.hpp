// Batches as tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "rust/cxx.h"

namespace spark {

// A copy of `values` as a tensor of this size. libtorch's ways to copy fill the tensor with zeros
// first, on all of its threads, which wait for cores that are decoding images.
std::unique_ptr<at::Tensor> floats(rust::Slice<const float> values,
                                   rust::Slice<const std::int64_t> size);

}  // namespace spark
