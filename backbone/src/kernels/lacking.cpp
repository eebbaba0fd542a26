// What libtorch has and tch lacks. For relu6 a clamp would do, but its gradient takes three passes.
#include <ATen/ops/hardtanh.h>

#include "spark-backbone/src/kernels/kernels.hpp"

namespace spark::kernels {

at::Tensor* relu6(const at::Tensor& input) {
  return new at::Tensor(at::hardtanh(input, 0, 6));
}

at::Tensor* relu6_in_place(const at::Tensor& input) {
  auto changed = input;
  return new at::Tensor(at::hardtanh_(changed, 0, 6));
}

at::Tensor* pinned(const at::Tensor& tensor) {
  return new at::Tensor(tensor.pin_memory());
}

}  // namespace spark::kernels
