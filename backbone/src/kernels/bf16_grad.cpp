// A weight in bfloat16, in which layers compute, whose gradient stays in that type.
// libtorch's own cast copies it to the parameter's: twice the memory for the same values.
#include <ATen/ops/empty_strided.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "spark-backbone/src/kernels/kernels.hpp"
#include "spark-backbone/src/kernels/recompute_fn.hpp"

namespace spark::kernels {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Whether elements lie in the same order; the stride of a side of one element says nothing.
bool same_layout(const at::Tensor& a, const at::Tensor& b) {
  for (std::int64_t dim = 0; dim < a.dim(); ++dim) {
    if (a.size(dim) != 1 && a.stride(dim) != b.stride(dim)) return false;
  }
  return true;
}

struct CastToBf16 : torch::autograd::Function<CastToBf16> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& weight) {
    context->save_for_backward({weight});
    return weight.to(at::kBFloat16);
  }

  // The gradient is not const: as nobody else's it becomes the parameter's without a copy.
  static variable_list backward(AutogradContext* context, variable_list& outputs) {
    const auto weight = context->get_saved_variables()[0];
    auto gradient = std::move(outputs[0]);
    // Laid out as anything else, it would be copied into the parameter's layout, and type.
    if (same_layout(gradient, weight)) {
      return {gradient.strides() == weight.strides()
                  ? gradient
                  : gradient.as_strided(weight.sizes(), weight.strides())};
    }
    auto laid_out = at::empty_strided(weight.sizes(), weight.strides(), gradient.options());
    laid_out.copy_(gradient);
    return {laid_out};
  }
};

// From 2.10 on a gradient may be of another type than its parameter. False before.
template <typename Tensor>
bool allow_any_grad_dtype(const Tensor& weight) {
  if constexpr (requires { weight.set_grad_dtype(std::nullopt); }) {
    weight.set_grad_dtype(std::nullopt);
    return true;
  } else {
    return false;
  }
}

}  // namespace

at::Tensor* to_bf16_with_bf16_grad(const at::Tensor& weight) {
  if (!weight.requires_grad() || !weight.is_leaf() || autocasts() ||
      !allow_any_grad_dtype(weight)) {
    return new at::Tensor(weight.to(at::kBFloat16));
  }
  return new at::Tensor(CastToBf16::apply(weight));
}

}  // namespace spark::kernels
