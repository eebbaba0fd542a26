// Sums of rows that a table names: gathers of halos, and scatters read from the other side.
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "spark-backbone/src/kernels/common.hpp"
#include "spark-backbone/src/kernels/kernels.hpp"
#include "spark-backbone/src/kernels/parallel.hpp"

namespace spark::kernels {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t kOutside = -2;
// Elements for which a thread is worth waking.
constexpr std::int64_t kGrain = 1 << 14;

template <typename T>
void add_row(at::opmath_type<T>* sum, const T* row, std::int64_t channels) {
  for (std::int64_t c = 0; c < channels; ++c) sum[c] += static_cast<at::opmath_type<T>>(row[c]);
}

// The sum of the rows that `names` names, into `out`; `sum` is room for one in the wider type.
template <typename T>
void fill_row(T* out, at::opmath_type<T>* sum, const T* source, const std::int64_t* names,
              std::int64_t count, std::int64_t channels, T outside) {
  const auto* end = names + count;
  const auto first = std::find_if(names, end, [](auto name) { return name != -1; });
  if (first == end) {
    std::fill_n(out, channels, T(0));
    return;
  }
  const bool several = std::any_of(first + 1, end, [](auto name) { return name != -1; });
  if (*first == kOutside) {
    std::fill_n(out, channels, outside);
  } else if (!several) {
    std::memcpy(out, source + *first * channels, channels * sizeof(T));
  } else {
    const T* row = source + *first * channels;
    for (std::int64_t c = 0; c < channels; ++c) sum[c] = static_cast<at::opmath_type<T>>(row[c]);
    for (const auto* name = first + 1; name != end; ++name) {
      if (*name >= 0) add_row(sum, source + *name * channels, channels);
    }
    for (std::int64_t c = 0; c < channels; ++c) out[c] = static_cast<T>(sum[c]);
  }
}

at::Tensor sums(const at::Tensor& source, const at::Tensor& table, double outside) {
  TORCH_CHECK(source.device().is_cpu() && source.dim() == 2,
              "rows on a processor are [N, C], not ", source.sizes(), " on ", source.device());
  const auto rows = table.size(0), names = table.size(1), channels = source.size(1);
  const auto contiguous = source.contiguous();
  auto out = at::empty({rows, channels}, source.options());
  const auto* named = table.const_data_ptr<std::int64_t>();
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, source.scalar_type(), "sum_rows", [&] {
        const auto* from = contiguous.const_data_ptr<scalar_t>();
        auto* to = out.mutable_data_ptr<scalar_t>();
        const auto grain = std::max<std::int64_t>(kGrain / std::max<std::int64_t>(channels, 1), 1);
        parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
          std::vector<at::opmath_type<scalar_t>> sum(channels);
          for (auto row = begin; row < end; ++row) {
            fill_row(to + row * channels, sum.data(), from, named + row * names, names, channels,
                     static_cast<scalar_t>(outside));
          }
        });
      });
  return out;
}

struct SumRows : torch::autograd::Function<SumRows> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& source,
                            const at::Tensor& table, const at::Tensor& transposed,
                            double outside) {
    TORCH_CHECK(source.size(0) == transposed.size(0), "a table for ", transposed.size(0),
                " rows is given ", source.size(0));
    context->save_for_backward({transposed});
    return sums(source, table, outside);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    check_once();
    const auto transposed = context->get_saved_variables()[0];
    return {sums(gradients[0], transposed, 0.0), {}, {}, {}};
  }
};

}  // namespace

at::Tensor* sum_rows(const at::Tensor& source, const at::Tensor& table,
                                     const at::Tensor& transposed, double outside) {
  return new at::Tensor(SumRows::apply(source, table, transposed, outside));
}

at::Tensor* transpose_table(const at::Tensor& table, std::int64_t rows) {
  const auto count = table.numel(), names = table.size(1);
  const auto* named = table.const_data_ptr<std::int64_t>();
  std::vector<std::int64_t> degree(rows, 0);
  for (std::int64_t i = 0; i < count; ++i) {
    if (named[i] >= 0) ++degree[named[i]];
  }
  const auto most = rows == 0 ? 0 : *std::max_element(degree.begin(), degree.end());
  auto transposed = at::full({rows, std::max<std::int64_t>(most, 1)}, -1, table.options());
  auto* out = transposed.mutable_data_ptr<std::int64_t>();
  const auto width = transposed.size(1);
  std::fill(degree.begin(), degree.end(), 0);
  for (std::int64_t i = 0; i < count; ++i) {
    if (named[i] >= 0) out[named[i] * width + degree[named[i]]++] = i / names;
  }
  return new at::Tensor(std::move(transposed));
}

}  // namespace spark::kernels
