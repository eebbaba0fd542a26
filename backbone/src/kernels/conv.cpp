// Convolution that does not keep its input: the backward pass recomputes it for the gradient of
// the weight, and is rid of it before it asks for the memory of the gradient of the input.
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "spark-backbone/src/kernels/recomputed_input.hpp"
#include "spark-backbone/src/kernels/common.hpp"
#include "spark-backbone/src/kernels/kernels.hpp"

namespace spark::kernels {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Geometry {
  std::vector<std::int64_t> stride, padding, dilation;
  std::int64_t groups;

  // From stride, padding and dilation, two numbers each, and groups.
  explicit Geometry(const std::vector<std::int64_t>& numbers)
      : stride(numbers.begin(), numbers.begin() + 2),
        padding(numbers.begin() + 2, numbers.begin() + 4),
        dilation(numbers.begin() + 4, numbers.begin() + 6),
        groups(numbers.at(6)) {}
};

struct Convolution : torch::autograd::Function<Convolution> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input,
                            const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            const std::vector<std::int64_t>& numbers,
                            const c10::intrusive_ptr<RecomputedInput>& kept) {
    context->save_for_backward({weight});
    context->saved_data["geometry"] = numbers;
    context->saved_data["outputs"] = bias ? bias->numel() : 0;
    RecomputedInput::keep(context, kept);
    const Geometry of(numbers);
    return at::conv2d(input, weight, bias, of.stride, of.padding, of.dilation, of.groups);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    check_once();
    const auto weight = context->get_saved_variables()[0];
    const Geometry of(context->saved_data["geometry"].toIntVector());
    const auto kept = RecomputedInput::of(context);
    const auto outputs = context->saved_data["outputs"].toInt();
    const auto bias = outputs > 0 ? at::OptionalIntArrayRef(outputs) : std::nullopt;
    const auto gradients_of = [&](const at::Tensor& input, std::array<bool, 3> which) {
      return at::convolution_backward(gradients[0], input, weight, bias, of.stride, of.padding,
                                      of.dilation, false, {0, 0}, of.groups, which);
    };
    at::Tensor to_input, to_weight, to_bias;
    const bool biased = outputs > 0 && context->needs_input_grad(2);
    if (context->needs_input_grad(1) || biased) {
      std::tie(std::ignore, to_weight, to_bias) =
          gradients_of(kept->make(), {false, context->needs_input_grad(1), biased});
    }
    if (context->needs_input_grad(0)) {
      to_input = std::get<0>(gradients_of(kept->shape(), {true, false, false}));
    }
    return {to_input, to_weight, to_bias, {}, {}};
  }
};

}  // namespace

at::Tensor* convolution(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                        rust::Slice<const std::int64_t> geometry,
                        rust::Box<RecomputeFn> recompute) {
  const std::vector<std::int64_t> numbers(geometry.begin(), geometry.end());
  if (autocasts()) {
    const Geometry of(numbers);
    return new at::Tensor(at::conv2d(input, weight, present(bias), of.stride, of.padding,
                                     of.dilation, of.groups));
  }
  return new at::Tensor(Convolution::apply(
      input, weight, present(bias), numbers,
      c10::make_intrusive<RecomputedInput>(input, std::move(recompute))));
}

}  // namespace spark::kernels
