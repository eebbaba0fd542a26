// LAMB on processors: two passes over memory where a sequence of operators takes twenty.
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "backbone/src/kernels/convert.hpp"
#include "backbone/src/kernels/parallel.hpp"
#include "backbone/src/kernels/processors.hpp"
#include "spark-engine/src/bridge.rs.h"
#include "spark-engine/src/optim/lamb.hpp"
#include "spark-engine/src/optim/norm.hpp"

namespace spark {

namespace {

// Elements that a thread works on at a time. Norms are summed by these parts, so that they do not
// depend on the number of threads.
constexpr std::int64_t kPart = 1 << 15;

// Squared.
struct Norms {
  double parameter = 0;
  double update = 0;
};

// Advances both averages and writes m̂ / (√v̂ + eps) + weight decay · parameter.
#define SPARK_DIRECTION(T, G)                                                                    \
  SPARK_FOR_EVERY_PROCESSOR void direction(const T* __restrict parameter,                        \
                                           const G* __restrict gradient, T* __restrict average,  \
                                           T* __restrict square, T* __restrict update,           \
                                           std::int64_t count,                                   \
                                           const LambConstants& constants, T scale) {            \
    const T beta1 = constants.beta1, beta2 = constants.beta2, beta3 = constants.beta3;           \
    const T rest2 = 1 - constants.beta2, correction1 = constants.bias_correction1;               \
    const T root2 = std::sqrt(constants.bias_correction2), eps = constants.eps;                  \
    const T decay = constants.weight_decay;                                                      \
    for (std::int64_t i = 0; i < count; ++i) {                                                   \
      const T g = kernels::widen(gradient[i]) * scale;                                           \
      const T m = average[i] * beta1 + g * beta3;                                                \
      const T v = square[i] * beta2 + g * g * rest2;                                             \
      average[i] = m;                                                                            \
      square[i] = v;                                                                             \
      update[i] = m / correction1 / (std::sqrt(v) / root2 + eps) + parameter[i] * decay;         \
    }                                                                                            \
  }

SPARK_DIRECTION(float, float)
SPARK_DIRECTION(float, c10::BFloat16)
SPARK_DIRECTION(double, double)

#define SPARK_DEFINE(T)                                                                          \
  SPARK_FOR_EVERY_PROCESSOR void apply(T* __restrict parameter, const T* __restrict update,      \
                                       std::int64_t count, T rate) {                             \
    for (std::int64_t i = 0; i < count; ++i) parameter[i] -= update[i] * rate;                   \
  }

SPARK_DEFINE(float)
SPARK_DEFINE(double)

template <typename T, typename G>
void update_one(T* parameter, const G* gradient, T* average, T* square, T* update,
                std::int64_t count, const LambConstants& constants, T scale) {
  const auto parts = (count + kPart - 1) / kPart;
  std::vector<Norms> norms(parts);
  const auto bounds = [count](std::int64_t part) { return std::min(part * kPart, count); };
  kernels::parallel_for(parts, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto part = begin; part < end; ++part) {
      const auto from = bounds(part), length = bounds(part + 1) - from;
      direction(parameter + from, gradient + from, average + from, square + from, update + from,
                length, constants, scale);
      if (constants.trust) {
        norms[part] = {sum_of_squares(parameter + from, length),
                       sum_of_squares(update + from, length)};
      }
    }
  });
  double ratio = 1;
  if (constants.trust) {
    Norms all;
    for (const auto& part : norms) {
      all.parameter += part.parameter;
      all.update += part.update;
    }
    if (all.parameter > 0 && all.update > 0) ratio = std::sqrt(all.parameter / all.update);
  }
  kernels::parallel_for(parts, 1, [&](std::int64_t begin, std::int64_t end) {
    const auto from = bounds(begin);
    apply(parameter + from, update + from, bounds(end) - from,
          static_cast<T>(constants.lr * ratio));
  });
}

// T is the type of all but the gradient's elements, G.
template <typename T, typename G>
void update_all(const TensorList& parameters, const at::Tensor& gradient,
                const at::Tensor& average, const at::Tensor& square,
                const at::Tensor& coefficient, const LambConstants& constants) {
  const auto scratch = at::empty({gradient.numel()}, average.options());
  const auto* from = gradient.const_data_ptr<G>();
  auto* averages = average.mutable_data_ptr<T>();
  auto* squares = square.mutable_data_ptr<T>();
  auto* updates = scratch.mutable_data_ptr<T>();
  const auto scale = *coefficient.const_data_ptr<T>();
  std::int64_t at = 0;
  for (const auto& parameter : parameters.tensors) {
    update_one(parameter.mutable_data_ptr<T>(), from + at, averages + at, squares + at,
               updates + at, parameter.numel(), constants, scale);
    at += parameter.numel();
  }
}

}  // namespace

void lamb_update(const TensorList& parameters, const at::Tensor& gradient,
                 const at::Tensor& average, const at::Tensor& square,
                 const at::Tensor& coefficient, const LambConstants& constants) {
  const auto count = gradient.numel();
  std::int64_t needed = 0;
  for (const auto& parameter : parameters.tensors) needed += parameter.numel();
  TORCH_CHECK(needed == count && average.numel() == count && square.numel() == count,
              "parameters of ", needed, " elements have a gradient of ", count);
  const auto type = average.scalar_type();
  if (type == at::kFloat && gradient.scalar_type() == at::kBFloat16) {
    update_all<float, c10::BFloat16>(parameters, gradient, average, square, coefficient, constants);
    return;
  }
  AT_DISPATCH_FLOATING_TYPES(type, "lamb_update", [&] {
    update_all<scalar_t, scalar_t>(parameters, gradient, average, square, coefficient, constants);
  });
}

}  // namespace spark
