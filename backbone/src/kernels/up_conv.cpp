// The decoder's transposed convolution (kernel 4, stride 2, padding 1) and the 3×3 convolution
// behind it as one. Nothing stands between them, so that together they are a transposed
// convolution of kernel 6 and stride 2: each output of the four phases of its position (row and
// column even or odd) reads 3×3 inputs, 9 multiplications for a pair of channels where one after
// the other takes 4 + 9, and the map between is never made.
//
// At the edges the second convolution reads zeros where the transposed one, were it to go on, has
// values. What it would have read there is taken off again.
#include <ATen/ops/conv2d.h>
#include <ATen/ops/conv_transpose2d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/outer.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <cstring>
#include <tuple>
#include <utility>

#include "spark-backbone/src/kernels/recomputed_input.hpp"
#include "spark-backbone/src/kernels/common.hpp"
#include "spark-backbone/src/kernels/kernels.hpp"
#include "spark-backbone/src/kernels/parallel.hpp"

namespace spark::kernels {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Ints = std::array<std::int64_t, 2>;

// up [in, between, 4, 4] of the transposed convolution as the kernel [between, in, 4, 4] of one
// whose input is the kernel of the convolution behind it.
at::Tensor turned(const at::Tensor& up) { return up.transpose(0, 1).flip({2, 3}); }

// That and conv [out, between, 3, 3] as one kernel [2·2·out, in, 3, 3] of a plain convolution, of
// the four phases of a position's outputs. The kernel of 6×6, turned as plain convolutions' are,
// has the taps of the second phase at 0, 2 and 4, those of the first at 1, 3 and 5.
at::Tensor compose(const at::Tensor& up, const at::Tensor& conv) {
  const auto out = conv.size(0), in = up.size(0);
  return at::conv_transpose2d(conv, turned(up))
      .permute({0, 2, 3, 1})
      .reshape({out, 3, 2, 3, 2, in})
      .flip({2, 4})
      .permute({2, 4, 0, 1, 3, 5})
      .reshape({4 * out, 3, 3, in})
      .permute({0, 3, 1, 2});
}

// The gradients of up and conv.
std::tuple<at::Tensor, at::Tensor> compose_backward(const at::Tensor& gradient,
                                                    const at::Tensor& up, const at::Tensor& conv) {
  const auto out = conv.size(0), in = up.size(0);
  const auto whole = gradient.permute({0, 2, 3, 1})
                         .reshape({2, 2, out, 3, 3, in})
                         .permute({2, 3, 0, 4, 1, 5})
                         .flip({2, 4})
                         .reshape({out, 6, 6, in})
                         .permute({0, 3, 1, 2});
  const auto [to_conv, to_turned, none] =
      at::convolution_backward(whole, conv, turned(up), std::nullopt, Ints{1, 1}, Ints{0, 0},
                               Ints{1, 1}, true, Ints{0, 0}, 1, {true, true, false});
  return {to_turned.flip({2, 3}).transpose(0, 1), to_conv};
}

// A map [N, 2·2·C, H, W] of phases as [N, C, 2H, 2W], or the other way round, in channels-last
// memory: there, the two positions of a row that belong to one input are neighbours both ways.
at::Tensor interleave(const at::Tensor& map, bool back) {
  const auto images = map.size(0);
  const auto channels = back ? map.size(1) : map.size(1) / 4;
  const auto height = back ? map.size(2) / 2 : map.size(2);
  const auto width = back ? map.size(3) / 2 : map.size(3);
  const auto source = map.permute({0, 2, 3, 1}).contiguous();
  // No view, which the caller could not change in place.
  const auto size = back ? std::array{images, 4 * channels, height, width}
                         : std::array{images, channels, 2 * height, 2 * width};
  auto out = at::empty(size, map.options().memory_format(at::MemoryFormat::ChannelsLast));
  const auto pair = 2 * channels * static_cast<std::int64_t>(map.element_size());
  const auto* from = static_cast<const char*>(source.const_data_ptr());
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  parallel_for(images * height, 4, [&](std::int64_t begin, std::int64_t end) {
    for (auto row = begin; row < end; ++row) {
      for (std::int64_t phase = 0; phase < 2; ++phase) {
        for (std::int64_t column = 0; column < width; ++column) {
          const auto by_phase = (row * width + column) * 2 + phase;
          const auto by_place = (row * 2 + phase) * width + column;
          std::memcpy(to + (back ? by_phase : by_place) * pair,
                      from + (back ? by_place : by_phase) * pair, pair);
        }
      }
    }
  });
  return out;
}

// One edge of the map: what lies beyond it, in the up-sampled map, and its part in the result.
struct Edge {
  // 2 for the first or last row, 3 for the first or last column.
  std::int64_t dim;
  bool last;

  at::Tensor of(const at::Tensor& map) const {
    return map.narrow(dim, last ? map.size(dim) - 1 : 0, 1);
  }
  // Rows reach into the corners, columns do not.
  Ints stride() const { return dim == 2 ? Ints{1, 2} : Ints{2, 1}; }
  Ints padding() const { return dim == 2 ? Ints{0, 0} : Ints{1, 0}; }

  // Of the edge of the input.
  at::Tensor beyond(const at::Tensor& input, const at::Tensor& up, const at::Tensor& bias) const {
    return at::conv_transpose2d(input, of(up), bias, stride(), padding());
  }

  void take_off(const at::Tensor& result, const at::Tensor& input, const at::Tensor& up,
                const at::Tensor& bias, const at::Tensor& conv) const {
    of(result).sub_(
        at::conv2d(beyond(of(input), up, bias), of(conv), {}, Ints{1, 1}, padding(), Ints{1, 1}));
  }

  // Takes this edge's part off gradients of input, up, bias and conv. `gradient` and `input` are
  // the edge alone.
  void take_off_gradients(const at::Tensor& gradient, const at::Tensor& input,
                          const at::Tensor& up, const at::Tensor& bias, const at::Tensor& conv,
                          const std::array<at::Tensor, 4>& from) const {
    const auto [to_beyond, to_conv, none] = at::convolution_backward(
        gradient, beyond(input, up, bias), of(conv), std::nullopt, Ints{1, 1}, padding(),
        Ints{1, 1}, false, Ints{0, 0}, 1, {true, true, false});
    const auto [to_input, to_up, to_bias] = at::convolution_backward(
        to_beyond, input, of(up), bias.sizes(), stride(), padding(), Ints{1, 1}, true, Ints{0, 0},
        1, {true, true, true});
    of(from[0]).sub_(to_input);
    of(from[1]).sub_(to_up);
    from[2].sub_(to_bias);
    of(from[3]).sub_(to_conv);
  }
};

constexpr Edge kEdges[] = {{2, false}, {2, true}, {3, false}, {3, true}};

struct UpConv : torch::autograd::Function<UpConv> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& up,
                            const at::Tensor& bias, const at::Tensor& conv,
                            const c10::intrusive_ptr<RecomputedInput>& kept) {
    const auto kernel = compose(up, conv);
    context->save_for_backward({up, bias, conv, kernel});
    RecomputedInput::keep(context, kept);
    const auto constant = conv.sum({2, 3}).mv(bias).repeat({4});
    auto result = interleave(at::conv2d(input, kernel, constant, Ints{1, 1}, Ints{1, 1}), false);
    for (const auto& edge : kEdges) edge.take_off(result, input, up, bias, conv);
    return result;
  }

  // The gradient is not const: it is given up as soon as its phases are there.
  static variable_list backward(AutogradContext* context, variable_list& gradients) {
    check_once();
    const auto saved = context->get_saved_variables();
    const auto &up = saved[0], &bias = saved[1], &conv = saved[2], &kernel = saved[3];
    const auto kept = RecomputedInput::of(context);
    auto input = kept->make();
    std::array<at::Tensor, std::size(kEdges)> inputs, edges;
    for (std::size_t i = 0; i < edges.size(); ++i) {
      inputs[i] = kEdges[i].of(input).clone();
      edges[i] = kEdges[i].of(gradients[0]).clone();
    }
    const auto to_constant = gradients[0].sum({0, 2, 3});
    const auto phases = interleave(gradients[0], true);
    gradients.clear();
    const auto gradients_of = [&](const at::Tensor& of, std::array<bool, 3> which) {
      return at::convolution_backward(phases, of, kernel, std::nullopt, Ints{1, 1}, Ints{1, 1},
                                      Ints{1, 1}, false, Ints{0, 0}, 1, which);
    };
    const auto to_kernel = std::get<1>(gradients_of(input, {false, true, false}));
    input.reset();
    const auto to_input = std::get<0>(gradients_of(kept->shape(), {true, false, false}));
    auto [to_up, to_conv] = compose_backward(to_kernel, up, conv);
    to_conv.add_(at::outer(to_constant, bias).unsqueeze(-1).unsqueeze(-1));
    const auto to_bias = conv.sum({2, 3}).t().mv(to_constant);
    for (std::size_t i = 0; i < edges.size(); ++i) {
      kEdges[i].take_off_gradients(edges[i], inputs[i], up, bias, conv,
                                   {to_input, to_up, to_bias, to_conv});
    }
    return {to_input, to_up, to_bias, to_conv, {}};
  }
};

}  // namespace

at::Tensor* up_conv(const at::Tensor& input, const at::Tensor& up, const at::Tensor& bias,
                    const at::Tensor& conv, rust::Box<RecomputeFn> recompute) {
  // The operators choose their types one by one.
  if (autocasts()) {
    const auto between = at::conv_transpose2d(input, up, bias, Ints{2, 2}, Ints{1, 1});
    return new at::Tensor(at::conv2d(between, conv, {}, Ints{1, 1}, Ints{1, 1}));
  }
  return new at::Tensor(UpConv::apply(input, up, bias, conv,
                                      c10::make_intrusive<RecomputedInput>(
                                          input, std::move(recompute))));
}

}  // namespace spark::kernels
