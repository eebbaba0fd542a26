// One step of LAMB on processors.
#pragma once

#include <ATen/core/Tensor.h>

namespace spark {

// Shared with Rust, which defines it.
struct LambConstants;
class TensorList;

// Updates parameters whose gradients and states lie one after the other in `gradient`, `average`
// and `square` (all dense, and walked in the same order); `coefficient` scales the gradients.
void lamb_update(const TensorList& parameters, const at::Tensor& gradient,
                 const at::Tensor& average, const at::Tensor& square,
                 const at::Tensor& coefficient, const LambConstants& constants);

}  // namespace spark
