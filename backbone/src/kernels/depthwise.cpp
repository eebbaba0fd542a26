// Depthwise convolution of packed rows: each output reads the inputs it has, and no others.
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "spark-backbone/src/kernels/common.hpp"
#include "spark-backbone/src/kernels/kernels.hpp"
#include "spark-backbone/src/kernels/parallel.hpp"
#include "spark-backbone/src/kernels/processors.hpp"

namespace spark::kernels {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Channels that are worked on at a time: what fits the registers.
constexpr std::int64_t kBlock = 64;
// Rows for which a thread is worth waking.
constexpr std::int64_t kRowGrain = 32;

typedef float Floats __attribute__((vector_size(64)));
typedef double Doubles __attribute__((vector_size(64)));

// A vector from, and to, memory that is aligned as its elements are.
#define SPARK_LOAD(V, from) \
  __extension__({            \
    V loaded;                \
    __builtin_memcpy(&loaded, from, sizeof(V)); \
    loaded;                  \
  })
#define SPARK_STORE(to, vector) __builtin_memcpy(to, &(vector), sizeof(vector))

// out[row] += the sum of weight[tap] · in[neighbour], for channels first..first + N vectors.
#define SPARK_FORWARD(T, V, N)                                                                     \
  {                                                                                             \
    constexpr std::int64_t lanes = 64 / sizeof(T);                                              \
    V sum[N];                                                                           \
    for (int i = 0; i < N; ++i) sum[i] = SPARK_LOAD(V, to + i * lanes);   \
    for (auto pair = begin; pair < end; ++pair) {                                               \
      const auto tap = flip ? taps - 1 - pairs[2 * pair] : pairs[2 * pair];                     \
      const T* w = weight + tap * channels + first;                                             \
      const T* x = in + static_cast<std::int64_t>(pairs[2 * pair + 1]) * channels + first;      \
      for (int i = 0; i < N; ++i) {                                                             \
        sum[i] += SPARK_LOAD(V, w + i * lanes) * SPARK_LOAD(V, x + i * lanes);                           \
      }                                                                                         \
    }                                                                                           \
    for (int i = 0; i < N; ++i) SPARK_STORE(to + i * lanes, sum[i]);         \
  }

// Rows row_begin..row_end of out, which holds the bias (or zero) already. With `flip` the taps
// are counted from the other end: the gradient of the input, as neighbourhood is mutual.
#define SPARK_DEFINE(T, V)                                                                         \
  SPARK_FOR_EVERY_PROCESSOR void add_products(                                                  \
      T* out, const T* in, const T* weight, std::int64_t channels, std::int64_t taps,           \
      const std::int64_t* starts, const std::int32_t* pairs, bool flip, std::int64_t row_begin, \
      std::int64_t row_end) {                                                                   \
    constexpr std::int64_t lanes = 64 / sizeof(T);                                              \
    for (auto row = row_begin; row < row_end; ++row) {                                          \
      const auto begin = starts[row], end = starts[row + 1];                                    \
      std::int64_t first = 0;                                                                   \
      for (; first + 8 * lanes <= channels; first += 8 * lanes) {                               \
        T* to = out + row * channels + first;                                                   \
        SPARK_FORWARD(T, V, 8)                                                                     \
      }                                                                                         \
      for (; first + 2 * lanes <= channels; first += 2 * lanes) {                               \
        T* to = out + row * channels + first;                                                   \
        SPARK_FORWARD(T, V, 2)                                                                     \
      }                                                                                         \
      for (; first + lanes <= channels; first += lanes) {                                       \
        T* to = out + row * channels + first;                                                   \
        SPARK_FORWARD(T, V, 1)                                                                     \
      }                                                                                         \
      for (; first < channels; ++first) {                                                       \
        T sum = out[row * channels + first];                                                    \
        for (auto pair = begin; pair < end; ++pair) {                                           \
          const auto tap = flip ? taps - 1 - pairs[2 * pair] : pairs[2 * pair];                 \
          const auto from = static_cast<std::int64_t>(pairs[2 * pair + 1]);                     \
          sum += weight[tap * channels + first] * in[from * channels + first];                  \
        }                                                                                       \
        out[row * channels + first] = sum;                                                      \
      }                                                                                         \
    }                                                                                           \
  }                                                                                             \
                                                                                                \
  /* weight[tap] += in[neighbour] · gradient[row], for channels begin..end. */                  \
  SPARK_FOR_EVERY_PROCESSOR void add_weight_gradient(                                           \
      T* weight, const T* in, const T* gradient, std::int64_t channels, std::int64_t rows,      \
      const std::int64_t* starts, const std::int32_t* pairs, std::int64_t begin,                \
      std::int64_t end) {                                                                       \
    constexpr std::int64_t lanes = 64 / sizeof(T);                                              \
    for (std::int64_t row = 0; row < rows; ++row) {                                             \
      const T* g = gradient + row * channels;                                                   \
      for (auto pair = starts[row]; pair < starts[row + 1]; ++pair) {                           \
        T* w = weight + static_cast<std::int64_t>(pairs[2 * pair]) * channels;                  \
        const T* x = in + static_cast<std::int64_t>(pairs[2 * pair + 1]) * channels;            \
        auto c = begin;                                                                         \
        for (; c + lanes <= end; c += lanes) {                                                  \
          const V sum = SPARK_LOAD(V, w + c) + SPARK_LOAD(V, x + c) * SPARK_LOAD(V, g + c); \
          SPARK_STORE(w + c, sum);   \
        }                                                                                       \
        for (; c < end; ++c) w[c] += x[c] * g[c];                                               \
      }                                                                                         \
    }                                                                                           \
  }

SPARK_DEFINE(float, Floats)
SPARK_DEFINE(double, Doubles)

// weight [C, 1, kh, kw] with the channels last, [kh·kw, C].
at::Tensor by_tap(const at::Tensor& weight) {
  return weight.reshape({weight.size(0), -1}).t().contiguous();
}

void convolve(const at::Tensor& out, const at::Tensor& in, const at::Tensor& weight,
              const at::Tensor& starts, const at::Tensor& pairs, bool flip) {
  const auto channels = in.size(1), taps = weight.size(0);
  const auto* first = starts.const_data_ptr<std::int64_t>();
  const auto* pair = pairs.const_data_ptr<std::int32_t>();
  AT_DISPATCH_FLOATING_TYPES(in.scalar_type(), "depthwise", [&] {
    auto* to = out.mutable_data_ptr<scalar_t>();
    const auto* from = in.const_data_ptr<scalar_t>();
    const auto* factors = weight.const_data_ptr<scalar_t>();
    parallel_for(in.size(0), kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      add_products(to, from, factors, channels, taps, first, pair, flip, begin, end);
    });
  });
}

struct Depthwise : torch::autograd::Function<Depthwise> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows,
                            const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            const at::Tensor& starts, const at::Tensor& pairs) {
    context->save_for_backward({rows, weight, starts, pairs});
    context->saved_data["bias"] = bias.has_value();
    auto out = at::empty(rows.sizes(), rows.options());
    bias ? out.copy_(*bias) : out.zero_();
    convolve(out, rows, by_tap(weight), starts, pairs, false);
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    check_once();
    const auto saved = context->get_saved_variables();
    const auto &rows = saved[0], &weight = saved[1], &starts = saved[2], &pairs = saved[3];
    const auto gradient = gradients[0].contiguous();
    at::Tensor to_rows, to_weight, to_bias;
    if (context->needs_input_grad(0)) {
      to_rows = at::zeros(rows.sizes(), rows.options());
      convolve(to_rows, gradient, by_tap(weight), starts, pairs, true);
    }
    if (context->needs_input_grad(1)) {
      const auto channels = rows.size(1);
      auto taps = at::zeros({weight.numel() / channels, channels}, weight.options());
      AT_DISPATCH_FLOATING_TYPES(rows.scalar_type(), "depthwise_weight", [&] {
        auto* to = taps.mutable_data_ptr<scalar_t>();
        const auto* in = rows.const_data_ptr<scalar_t>();
        const auto* out = gradient.const_data_ptr<scalar_t>();
        const auto* first = starts.const_data_ptr<std::int64_t>();
        const auto* pair = pairs.const_data_ptr<std::int32_t>();
        const auto count = rows.size(0);
        // By blocks of channels: the taps of one stay in the nearest cache.
        const auto blocks = (channels + kBlock - 1) / kBlock;
        parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
          for (auto block = begin; block < end; ++block) {
            add_weight_gradient(to, in, out, channels, count, first, pair, block * kBlock,
                                std::min((block + 1) * kBlock, channels));
          }
        });
      });
      to_weight = taps.t().contiguous().view(weight.sizes());
    }
    const bool biased = context->saved_data["bias"].toBool();
    if (biased && context->needs_input_grad(2)) to_bias = gradient.sum(0);
    return {to_rows, to_weight, to_bias, {}, {}};
  }
};

}  // namespace

at::Tensor* depthwise(const at::Tensor& rows, const at::Tensor& weight,
                                      const at::Tensor& bias, const at::Tensor& starts,
                                      const at::Tensor& pairs) {
  for (const auto& tensor : {rows, weight, bias}) {
    TORCH_CHECK(!tensor.defined() || (tensor.device().is_cpu() &&
                                      tensor.scalar_type() == rows.scalar_type()),
                "a depthwise convolution of packed rows takes tensors of one type on the processor");
  }
  TORCH_CHECK(rows.dim() == 2 && weight.size(0) == rows.size(1) &&
                  starts.size(0) == rows.size(0) + 1,
              "rows ", rows.sizes(), " do not fit a weight ", weight.sizes(), " or the mask");
  return new at::Tensor(
      Depthwise::apply(rows.contiguous(), weight, present(bias), starts, pairs));
}

}  // namespace spark::kernels
