// What several kernels do.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <optional>

namespace spark::kernels {

// Rust has no other way to leave a tensor out than an undefined one.
inline std::optional<at::Tensor> present(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

// Throws where gradients of gradients are asked for (create_graph), which would be left out.
inline void check_once() {
  TORCH_CHECK(!at::GradMode::is_enabled(),
              "this operator is differentiable once: create_graph is not supported");
}

}  // namespace spark::kernels
