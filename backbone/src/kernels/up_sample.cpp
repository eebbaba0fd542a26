// The decoder's transposed convolution (kernel 4, stride 2, padding 1), with a backward pass that
// is a plain convolution, whose weight gradient oneDNN computes faster than the transposed one's.
#include <ATen/Dispatch.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/conv_transpose2d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <cstring>
#include <vector>

#include "spark-backbone/src/kernels/common.hpp"
#include "spark-backbone/src/kernels/kernels.hpp"
#include "spark-backbone/src/kernels/parallel.hpp"

namespace spark::kernels {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Two by two neighbouring positions of [N, K, 2H, 2W], which begin one before the first, become
// the channels of one: [N, 4K, H + 1, W + 1], zero beyond the edges, both in channels-last memory.
at::Tensor space_to_depth(const at::Tensor& map) {
  const auto images = map.size(0), channels = map.size(1);
  const auto height = map.size(2) / 2, width = map.size(3) / 2;
  const auto source = map.permute({0, 2, 3, 1}).contiguous();
  auto out = at::empty({images, height + 1, width + 1, 4 * channels}, map.options());
  const auto bytes = channels * static_cast<std::int64_t>(map.element_size());
  const auto* from = static_cast<const char*>(source.const_data_ptr());
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  parallel_for(images * (height + 1), 4, [&](std::int64_t begin, std::int64_t end) {
    for (auto row = begin; row < end; ++row) {
      const auto image = row / (height + 1), above = 2 * (row % (height + 1)) - 1;
      for (std::int64_t column = 0; column <= width; ++column) {
        for (std::int64_t a = 0; a < 2; ++a) {
          for (std::int64_t b = 0; b < 2; ++b) {
            const auto y = above + a, x = 2 * column - 1 + b;
            auto* here = to + ((row * (width + 1) + column) * 4 + 2 * a + b) * bytes;
            if (y >= 0 && y < 2 * height && x >= 0 && x < 2 * width) {
              const auto position = (image * 2 * height + y) * 2 * width + x;
              std::memcpy(here, from + position * bytes, bytes);
            } else {
              std::memset(here, 0, bytes);
            }
          }
        }
      }
    }
  });
  return out.permute({0, 3, 1, 2});
}

// weight [C, K, 4, 4] as that of the convolution [C, 4K, 2, 2] of such a map. In channels-last
// memory, rows 2y + a and columns 2x + b of a kernel [2, 2, 2, 2, K] only have a and x exchanged.
at::Tensor fold(const at::Tensor& weight) {
  const auto in = weight.size(0), out = weight.size(1);
  return weight.permute({0, 2, 3, 1})
      .reshape({in, 2, 2, 2, 2 * out})
      .transpose(2, 3)
      .reshape({in, 2, 2, 4 * out})
      .permute({0, 3, 1, 2});
}

// The other way round.
at::Tensor unfold(const at::Tensor& weight) {
  const auto in = weight.size(0), out = weight.size(1) / 4;
  return weight.permute({0, 2, 3, 1})
      .reshape({in, 2, 2, 2, 2 * out})
      .transpose(2, 3)
      .reshape({in, 4, 4, out})
      .permute({0, 3, 1, 2});
}

struct UpSample : torch::autograd::Function<UpSample> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input,
                            const at::Tensor& weight, const at::Tensor& bias) {
    context->save_for_backward({input, weight});
    return at::conv_transpose2d(input, weight, bias, {2, 2}, {1, 1});
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    check_once();
    const auto saved = context->get_saved_variables();
    const auto &input = saved[0], &weight = saved[1];
    const auto& gradient = gradients[0];
    const auto folded = space_to_depth(gradient);
    const auto kernel = fold(weight);
    at::Tensor to_input, to_weight, to_bias;
    if (context->needs_input_grad(0)) to_input = at::conv2d(folded, kernel);
    if (context->needs_input_grad(1)) {
      // The gradient by the weight of a convolution is the same whichever of its ends is called
      // the gradient.
      const auto backward = at::convolution_backward(
          input, folded, kernel, std::nullopt, {1, 1}, {0, 0}, {1, 1}, false, {0, 0}, 1,
          std::array<bool, 3>{false, true, false});
      to_weight = unfold(std::get<1>(backward));
    }
    if (context->needs_input_grad(2)) to_bias = gradient.sum({0, 2, 3});
    return {to_input, to_weight, to_bias};
  }
};

}  // namespace

at::Tensor* up_sample(const at::Tensor& input, const at::Tensor& weight,
                                      const at::Tensor& bias) {
  return new at::Tensor(UpSample::apply(input, weight, bias));
}

}  // namespace spark::kernels
