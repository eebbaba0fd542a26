#include "spark-engine/src/optim/norm.hpp"

#include <ATen/Dispatch.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "backbone/src/kernels/convert.hpp"
#include "backbone/src/kernels/parallel.hpp"
#include "backbone/src/kernels/processors.hpp"

namespace spark {

namespace {

// Elements that a thread sums at a time, whatever the number of threads, so that sums are the same
// on all of them.
constexpr std::int64_t kNormPart = 1 << 15;

}  // namespace

// So many sums that the compiler may add up side by side, and none waits for the one before.
constexpr int kLanes = 32;

#define SPARK_DEFINE(T)                                                                          \
  SPARK_FOR_EVERY_PROCESSOR double sum_of_squares(const T* values, std::int64_t count) {         \
    double sums[kLanes] = {};                                                                    \
    std::int64_t i = 0;                                                                          \
    for (; i + kLanes <= count; i += kLanes) {                                                   \
      for (int lane = 0; lane < kLanes; ++lane) {                                                \
        const double value = kernels::widen(values[i + lane]);                                   \
        sums[lane] += value * value;                                                             \
      }                                                                                          \
    }                                                                                            \
    for (; i < count; ++i) {                                                                     \
      const double value = kernels::widen(values[i]);                                            \
      sums[0] += value * value;                                                                  \
    }                                                                                            \
    return std::accumulate(sums, sums + kLanes, 0.0);                                            \
  }

SPARK_DEFINE(float)
SPARK_DEFINE(double)
SPARK_DEFINE(c10::BFloat16)

double sum_of_squares(const at::Tensor& tensor) {
  const auto dense = tensor.is_non_overlapping_and_dense() ? tensor : tensor.contiguous();
  const auto count = dense.numel();
  std::vector<double> sums((count + kNormPart - 1) / kNormPart);
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, dense.scalar_type(), "sum_of_squares", [&] {
    const auto* values = dense.const_data_ptr<scalar_t>();
    kernels::parallel_for(sums.size(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (auto part = begin; part < end; ++part) {
        const auto from = part * kNormPart;
        sums[part] = sum_of_squares(values + from, std::min(kNormPart, count - from));
      }
    });
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace spark
