#include "spark-ffi/src/bridge.hpp"

#include <ATen/autocast_mode.h>

namespace spark {

bool is_strided(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided;
}

rust::String device_name(const at::Tensor& tensor) {
  return tensor.device().str();
}

bool autocasts(const at::Tensor& tensor) {
  return at::autocast::is_autocast_enabled(tensor.device().type());
}

}  // namespace spark
