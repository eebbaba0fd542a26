// Tensors that Rust recomputes.
#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <memory>

#include "spark-backbone/src/kernels/mod.rs.h"

namespace spark::kernels {

// Whether operators choose their types by themselves: what they made in the forward pass could then
// not be recomputed as it was.
inline bool autocasts() {
  return at::autocast::is_autocast_enabled(at::kCPU) ||
         at::autocast::is_autocast_enabled(at::kCUDA);
}

// The tensor, in the types of a forward pass without autocast whatever surrounds the backward pass.
inline at::Tensor call(const RecomputeFn& recompute) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  return std::unique_ptr<at::Tensor>(recompute.make())->detach();
}

}  // namespace spark::kernels
