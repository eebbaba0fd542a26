// Matrix products of float32 through oneDNN. libtorch's own go through MKL, which runs at half
// speed on processors without Intel's name that have AVX-512.
#include <ATen/autocast_mode.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/linear.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <string_view>

#include "spark-backbone/src/kernels/common.hpp"
#include "spark-backbone/src/kernels/kernels.hpp"

namespace spark::kernels {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Product = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                           std::string_view, c10::List<std::optional<at::Scalar>>,
                           std::optional<std::string_view>);

// left [P, n] · rightᵀ [n, Q] (+ bias [Q]); either may be a transposed view.
at::Tensor product(const at::Tensor& left, const at::Tensor& right,
                   const std::optional<at::Tensor>& bias = std::nullopt) {
  static const auto oneDnn = c10::Dispatcher::singleton()
                                 .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                                 .typed<Product>();
  // oneDNN's has no gradient of its own, which a gradient of a gradient would need.
  if (at::GradMode::is_enabled()) return at::linear(left, right, bias);
  return oneDnn.call(left, right, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
}

struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows,
                            const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
    context->save_for_backward({rows, weight});
    context->saved_data["bias"] = bias.has_value();
    return product(rows, weight, bias);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto &rows = saved[0], &weight = saved[1];
    const auto gradient = gradients[0].contiguous();
    at::Tensor to_rows, to_weight, to_bias;
    if (context->needs_input_grad(0)) to_rows = product(gradient, weight.t());
    if (context->needs_input_grad(1)) {
      // Of the two orders, the one whose packed side is the larger is the faster.
      to_weight = weight.size(0) > weight.size(1) ? product(rows.t(), gradient.t()).t()
                                                  : product(gradient.t(), rows.t());
    }
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(2)) to_bias = gradient.sum(0);
    return {to_rows, to_weight, to_bias};
  }
};

}  // namespace

at::Tensor* linear(const at::Tensor& rows, const at::Tensor& weight,
                                   const at::Tensor& bias) {
  return new at::Tensor(Linear::apply(rows.contiguous(), weight, present(bias)));
}

bool takes_linear() {
  static const auto found = [] {
    const auto op = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    return op && op->hasKernelForDispatchKey(c10::DispatchKey::CPU);
  }();
  return found && !at::autocast::is_autocast_enabled(at::kCPU);
}

}  // namespace spark::kernels
