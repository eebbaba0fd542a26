#include "spark-engine/src/data/tensor.hpp"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>

namespace spark {

std::unique_ptr<at::Tensor> floats(rust::Slice<const float> values,
                                   rust::Slice<const std::int64_t> size) {
  auto tensor = at::empty({size.data(), size.size()}, at::kFloat);
  TORCH_CHECK(tensor.numel() == static_cast<std::int64_t>(values.size()), "a tensor of ",
              tensor.sizes(), " is not made of ", values.size(), " values");
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<float>());
  return std::make_unique<at::Tensor>(std::move(tensor));
}

}  // namespace spark
