// Batch norm and the clamp that follows it (relu, relu6) in one pass over memory each way. Its
// backward pass needs the input and its statistics, not the output.
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "spark-backbone/src/kernels/common.hpp"
#include "spark-backbone/src/kernels/convert.hpp"
#include "spark-backbone/src/kernels/kernels.hpp"
#include "spark-backbone/src/kernels/parallel.hpp"
#include "spark-backbone/src/kernels/processors.hpp"

namespace spark::kernels {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows that are summed in the narrow type before their sums are added in float64.
constexpr std::int64_t kRun = 16;
// Rows are cut into so many chunks at most, whatever the number of threads, so that sums are the
// same on all of them.
constexpr std::int64_t kChunks = 128;
// Elements for which a thread is worth waking.
constexpr std::int64_t kNormGrain = 1 << 14;

// The rows of one chunk.
struct Rows {
  std::int64_t begin, end, channels;
};

// What a channel is normalised by: value ↦ value · scale + shift, clamped.
template <typename W>
struct Affine {
  std::vector<W> scale, shift;
  W lower, upper;
};

// Σ (x − pivot) and Σ (x − pivot)², the pivot being the chunk's first row.
template <typename T, typename W>
SPARK_INLINE void chunk_moments(const T* x, Rows rows, W* first, W* second, double* sums) {
  const auto channels = rows.channels;
  const T* pivot = x + rows.begin * channels;
  std::fill_n(sums, 2 * channels, 0.0);
  for (auto row = rows.begin; row < rows.end; row += kRun) {
    std::fill_n(first, channels, W(0));
    std::fill_n(second, channels, W(0));
    for (auto r = row; r < std::min(row + kRun, rows.end); ++r) {
      const T* __restrict from = x + r * channels;
      for (std::int64_t c = 0; c < channels; ++c) {
        const W value = widen(from[c]) - widen(pivot[c]);
        first[c] += value;
        second[c] += value * value;
      }
    }
    for (std::int64_t c = 0; c < channels; ++c) {
      sums[c] += first[c];
      sums[channels + c] += second[c];
    }
  }
}

template <typename T, typename W>
SPARK_INLINE void chunk_forward(T* __restrict y, const T* __restrict x, Rows rows,
                                const W* __restrict scale, const W* __restrict shift, W lower,
                                W upper) {
  const auto channels = rows.channels;
  for (auto row = rows.begin; row < rows.end; ++row) {
    const T* from = x + row * channels;
    T* to = y + row * channels;
    for (std::int64_t c = 0; c < channels; ++c) {
      const W value = widen(from[c]) * scale[c] + shift[c];
      // In this order a NaN stays one.
      const W above = value < lower ? lower : value;
      narrow(above > upper ? upper : above, &to[c]);
    }
  }
}

// The gradient where the clamp lets it pass: the output, rounded as it was stored, is within.
template <typename T, typename W>
SPARK_INLINE W passed(T x, T gradient, W scale, W shift, W lower, W upper) {
  T stored;
  narrow(widen(x) * scale + shift, &stored);
  const W value = widen(stored);
  return value <= lower || value >= upper ? W(0) : widen(gradient);
}

// Σ g and Σ g·(x − mean), of the gradient behind the clamp.
template <typename T, typename W>
SPARK_INLINE void chunk_gradients(const T* x, const T* gradient, Rows rows,
                                  const W* __restrict scale, const W* __restrict shift,
                                  const W* __restrict mean, W lower, W upper, W* first, W* second,
                                  double* sums) {
  const auto channels = rows.channels;
  std::fill_n(sums, 2 * channels, 0.0);
  for (auto row = rows.begin; row < rows.end; row += kRun) {
    std::fill_n(first, channels, W(0));
    std::fill_n(second, channels, W(0));
    for (auto r = row; r < std::min(row + kRun, rows.end); ++r) {
      const T* __restrict from = x + r * channels;
      const T* __restrict g = gradient + r * channels;
      for (std::int64_t c = 0; c < channels; ++c) {
        const W value = passed(from[c], g[c], scale[c], shift[c], lower, upper);
        first[c] += value;
        second[c] += value * (widen(from[c]) - mean[c]);
      }
    }
    for (std::int64_t c = 0; c < channels; ++c) {
      sums[c] += first[c];
      sums[channels + c] += second[c];
    }
  }
}

// The gradient of x: scale · g − a − b · (x − mean).
template <typename T, typename W>
SPARK_INLINE void chunk_backward(T* to, const T* __restrict x, const T* gradient, Rows rows,
                                 const W* __restrict scale, const W* __restrict shift,
                                 const W* __restrict mean, const W* __restrict a,
                                 const W* __restrict b, W lower, W upper) {
  const auto channels = rows.channels;
  for (auto row = rows.begin; row < rows.end; ++row) {
    const auto at = row * channels;
    for (std::int64_t c = 0; c < channels; ++c) {
      const W value = passed(x[at + c], gradient[at + c], scale[c], shift[c], lower, upper);
      narrow(scale[c] * value - a[c] - b[c] * (widen(x[at + c]) - mean[c]), &to[at + c]);
    }
  }
}

// The same for every processor: attributes do not reach into templates.
#define SPARK_DEFINE(T, W)                                                                       \
  SPARK_FOR_EVERY_PROCESSOR void moments(const T* x, Rows rows, W* first, W* second,             \
                                         double* sums) {                                         \
    chunk_moments<T, W>(x, rows, first, second, sums);                                           \
  }                                                                                              \
  SPARK_FOR_EVERY_PROCESSOR void forward(T* y, const T* x, Rows rows, const W* scale,            \
                                         const W* shift, W lower, W upper) {                     \
    chunk_forward<T, W>(y, x, rows, scale, shift, lower, upper);                                 \
  }                                                                                              \
  SPARK_FOR_EVERY_PROCESSOR void gradients(const T* x, const T* gradient, Rows rows,             \
                                           const W* scale, const W* shift, const W* mean,        \
                                           W lower, W upper, W* first, W* second,                \
                                           double* sums) {                                       \
    chunk_gradients<T, W>(x, gradient, rows, scale, shift, mean, lower, upper, first, second,    \
                          sums);                                                                 \
  }                                                                                              \
  SPARK_FOR_EVERY_PROCESSOR void backward(T* to, const T* x, const T* gradient, Rows rows,       \
                                          const W* scale, const W* shift, const W* mean,         \
                                          const W* a, const W* b, W lower, W upper) {            \
    chunk_backward<T, W>(to, x, gradient, rows, scale, shift, mean, a, b, lower, upper);         \
  }

SPARK_DEFINE(float, float)
SPARK_DEFINE(double, double)
SPARK_DEFINE(c10::BFloat16, float)

// The map [N, C, H, W] in channels-last memory as rows: their number, and that of channels.
struct Shape {
  std::int64_t count, channels;

  explicit Shape(const at::Tensor& map) : count(map.numel() / map.size(1)), channels(map.size(1)) {}

  std::int64_t per_chunk() const { return std::max(kRun, (count + kChunks - 1) / kChunks); }
  std::int64_t chunks() const { return (count + per_chunk() - 1) / per_chunk(); }
  Rows chunk(std::int64_t number) const {
    const auto begin = number * per_chunk();
    return {begin, std::min(begin + per_chunk(), count), channels};
  }

  // Calls body(chunk's number, its rows) for all chunks.
  template <typename Body>
  void for_chunks(const Body& body) const {
    const auto grain = std::max<std::int64_t>(kNormGrain / (per_chunk() * channels), 1);
    parallel_for(chunks(), grain, [&](std::int64_t begin, std::int64_t end) {
      for (auto number = begin; number < end; ++number) body(number, chunk(number));
    });
  }
};

// `map` in channels-last memory.
at::Tensor by_rows(const at::Tensor& map) {
  return map.permute({0, 2, 3, 1}).contiguous().permute({0, 3, 1, 2});
}

template <typename Body>
void dispatch(at::ScalarType type, const Body& body) {
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, type, "batch_norm", [&] { body(scalar_t{}); });
}

// scale = weight / deviation, shift = bias − mean · scale; `statistics` [2, C] are mean and
// 1 / deviation.
template <typename W>
Affine<W> affine(const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& statistics,
                 double lower, double upper) {
  const auto channels = weight.numel();
  Affine<W> of{std::vector<W>(channels), std::vector<W>(channels), W(lower), W(upper)};
  const auto* w = weight.const_data_ptr<W>();
  const auto* b = bias.const_data_ptr<W>();
  const auto* mean = statistics.const_data_ptr<double>();
  const auto* inverse = mean + channels;
  for (std::int64_t c = 0; c < channels; ++c) {
    const double scale = w[c] * inverse[c];
    of.scale[c] = static_cast<W>(scale);
    of.shift[c] = static_cast<W>(b[c] - mean[c] * scale);
  }
  return of;
}

at::Tensor normalised(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                      const at::Tensor& statistics, double lower, double upper) {
  const auto x = by_rows(input);
  const auto y = at::empty_like(x);
  const Shape shape(x);
  dispatch(x.scalar_type(), [&](auto element) {
    using T = decltype(element);
    using W = at::opmath_type<T>;
    const auto to = affine<W>(weight, bias, statistics, lower, upper);
    auto* out = y.template mutable_data_ptr<T>();
    const auto* in = x.template const_data_ptr<T>();
    shape.for_chunks([&](std::int64_t, Rows rows) {
      forward(out, in, rows, to.scale.data(), to.shift.data(), to.lower, to.upper);
    });
  });
  return y;
}

struct BatchNorm : torch::autograd::Function<BatchNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input,
                            const at::Tensor& weight, const at::Tensor& bias,
                            const at::Tensor& statistics, double lower, double upper) {
    const auto x = by_rows(input);
    context->save_for_backward({x, weight, bias, statistics});
    context->saved_data["lower"] = lower;
    context->saved_data["upper"] = upper;
    return normalised(x, weight, bias, statistics, lower, upper);
  }

  // The gradient is not const: where nobody else holds it, the input's takes its memory.
  static variable_list backward(AutogradContext* context, variable_list& outputs) {
    check_once();
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &bias = saved[2], &statistics = saved[3];
    const auto lower = context->saved_data["lower"].toDouble();
    const auto upper = context->saved_data["upper"].toDouble();
    const auto given = std::move(outputs[0]);
    const bool own = given.use_count() == 1 && given.storage().use_count() == 1;
    const auto gradient = by_rows(given.to(x.scalar_type()));
    // Each value is read before it is written.
    const auto to_input =
        own && gradient.data_ptr() == given.data_ptr() ? gradient : at::empty_like(x);
    const auto to_weight = at::empty_like(weight), to_bias = at::empty_like(bias);
    const Shape shape(x);
    const auto channels = shape.channels;
    dispatch(x.scalar_type(), [&](auto element) {
      using T = decltype(element);
      using W = at::opmath_type<T>;
      const auto of = affine<W>(weight, bias, statistics, lower, upper);
      const auto* mean64 = statistics.template const_data_ptr<double>();
      const std::vector<W> mean(mean64, mean64 + channels);
      const auto* in = x.template const_data_ptr<T>();
      const auto* g = gradient.template const_data_ptr<T>();

      std::vector<double> sums(shape.chunks() * 2 * channels);
      shape.for_chunks([&](std::int64_t number, Rows rows) {
        std::vector<W> first(channels), second(channels);
        gradients(in, g, rows, of.scale.data(), of.shift.data(), mean.data(), of.lower, of.upper,
                  first.data(), second.data(), sums.data() + number * 2 * channels);
      });
      std::vector<double> total(2 * channels, 0.0);
      for (std::size_t i = 0; i < sums.size(); ++i) total[i % total.size()] += sums[i];

      const auto* inverse = mean64 + channels;
      std::vector<W> a(channels), b(channels);
      for (std::int64_t c = 0; c < channels; ++c) {
        to_bias.template mutable_data_ptr<W>()[c] = static_cast<W>(total[c]);
        to_weight.template mutable_data_ptr<W>()[c] =
            static_cast<W>(total[channels + c] * inverse[c]);
        const double per_row = weight.template const_data_ptr<W>()[c] * inverse[c] / shape.count;
        a[c] = static_cast<W>(per_row * total[c]);
        b[c] = static_cast<W>(per_row * total[channels + c] * inverse[c] * inverse[c]);
      }
      auto* to = to_input.template mutable_data_ptr<T>();
      shape.for_chunks([&](std::int64_t, Rows rows) {
        kernels::backward(to, in, g, rows, of.scale.data(), of.shift.data(), mean.data(), a.data(),
                          b.data(), of.lower, of.upper);
      });
    });
    return {to_input, to_weight, to_bias, {}, {}, {}};
  }
};

void check(const at::Tensor& input, const at::Tensor& parameter) {
  TORCH_CHECK(input.device().is_cpu() && input.dim() == 4 && parameter.dim() == 1 &&
                  parameter.numel() == input.size(1) && parameter.is_contiguous() &&
                  parameter.scalar_type() == at::toOpMathType(input.scalar_type()),
              "a batch norm of ", input.sizes(), " ", input.scalar_type(), " on the processor has ",
              "parameters of one number a channel, in float32 or wider, not ", parameter.sizes(),
              " ", parameter.scalar_type());
}

}  // namespace

at::Tensor* batch_statistics(const at::Tensor& input, const at::Tensor& running_mean,
                             const at::Tensor& running_var, double momentum, double eps) {
  check(input, running_mean);
  check(input, running_var);
  TORCH_CHECK(input.numel() > input.size(1),
              "a batch norm needs several values of each channel to train, but its input is ",
              input.sizes());
  const at::NoGradGuard no_grad;
  const auto x = by_rows(input.detach());
  const Shape shape(x);
  const auto channels = shape.channels;
  auto statistics = at::empty({2, channels}, x.options().dtype(at::kDouble));
  auto* mean = statistics.mutable_data_ptr<double>();
  auto* inverse = mean + channels;
  dispatch(x.scalar_type(), [&](auto element) {
    using T = decltype(element);
    using W = at::opmath_type<T>;
    const auto* in = x.template const_data_ptr<T>();
    std::vector<double> sums(shape.chunks() * 2 * channels);
    shape.for_chunks([&](std::int64_t number, Rows rows) {
      std::vector<W> first(channels), second(channels);
      moments(in, rows, first.data(), second.data(), sums.data() + number * 2 * channels);
    });
    // Chunks are put together by their means and squared deviations (Chan et al. 1979).
    std::vector<double> squares(channels, 0.0);
    std::fill_n(mean, channels, 0.0);
    for (std::int64_t number = 0; number < shape.chunks(); ++number) {
      const auto rows = shape.chunk(number);
      const double before = rows.begin, own = rows.end - rows.begin;
      const auto* sum = sums.data() + number * 2 * channels;
      for (std::int64_t c = 0; c < channels; ++c) {
        const double off = sum[c] / own;
        const double delta = widen(in[rows.begin * channels + c]) + off - mean[c];
        mean[c] += delta * own / (before + own);
        squares[c] += sum[channels + c] - sum[c] * off + delta * delta * before * own / (before + own);
      }
    }
    auto* average = running_mean.template mutable_data_ptr<W>();
    auto* variance = running_var.template mutable_data_ptr<W>();
    for (std::int64_t c = 0; c < channels; ++c) {
      const auto deviation = std::max(squares[c], 0.0);
      inverse[c] = 1.0 / std::sqrt(deviation / shape.count + eps);
      const auto unbiased = deviation / (shape.count - 1);
      average[c] = static_cast<W>((1 - momentum) * average[c] + momentum * mean[c]);
      variance[c] = static_cast<W>((1 - momentum) * variance[c] + momentum * unbiased);
    }
  });
  return new at::Tensor(std::move(statistics));
}

at::Tensor* batch_norm(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                       const at::Tensor& statistics, double lower, double upper) {
  check(input, weight);
  check(input, bias);
  return new at::Tensor(BatchNorm::apply(input, weight, bias, statistics, lower, upper));
}

}  // namespace spark::kernels
