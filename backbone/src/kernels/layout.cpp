// Kernels of convolutions in channels-last memory. libtorch's own copy goes through them element by
// element, which is a tenth of a forward pass of one image.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <cstdint>

#include "spark-backbone/src/kernels/kernels.hpp"
#include "spark-backbone/src/kernels/parallel.hpp"

namespace spark::kernels {

namespace {

// Elements for which a thread is worth waking.
constexpr std::int64_t kLayoutGrain = 1 << 14;

// [out, in, positions] to [out, positions, in].
template <typename T>
void turn(const void* from, void* to, std::int64_t out, std::int64_t in, std::int64_t positions) {
  const auto size = in * positions;
  parallel_for(out, kLayoutGrain / (size + 1) + 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto filter = begin; filter < end; ++filter) {
      const T* __restrict source = static_cast<const T*>(from) + filter * size;
      T* __restrict target = static_cast<T*>(to) + filter * size;
      for (std::int64_t position = 0; position < positions; ++position) {
        for (std::int64_t c = 0; c < in; ++c) {
          target[position * in + c] = source[c * positions + position];
        }
      }
    }
  });
}

// An uninitialised tensor like `weight` in channels-last memory. Without gradients nobody keeps it
// beyond the convolution, so that a thread's next one takes the same memory: fresh pages cost three
// times what turning the kernel does.
at::Tensor room_for(const at::Tensor& weight) {
  const auto fresh = [&] {
    return at::empty(weight.sizes(),
                     weight.options().memory_format(at::MemoryFormat::ChannelsLast));
  };
  if (at::GradMode::is_enabled()) return fresh();
  thread_local at::Tensor kept;
  const bool fits = kept.defined() && kept.storage().nbytes() >= weight.nbytes();
  if (!fits || kept.storage().use_count() > 1) kept = fresh();
  const auto strides = c10::get_channels_last_strides_2d(weight.sizes());
  return at::empty({0}, weight.options()).set_(kept.storage(), 0, weight.sizes(), strides);
}

}  // namespace

at::Tensor* channels_last(const at::Tensor& weight) {
  TORCH_CHECK(weight.device().is_cpu() && weight.dim() == 4 && weight.is_contiguous(),
              "a kernel is contiguous [out, in, h, w] on a processor, not ", weight.sizes(),
              " with strides ", weight.strides(), " on ", weight.device());
  auto last = room_for(weight);
  const auto out = weight.size(0), in = weight.size(1);
  const auto positions = weight.size(2) * weight.size(3);
  const auto* from = weight.const_data_ptr();
  auto* to = last.mutable_data_ptr();
  switch (weight.element_size()) {
    case 2: turn<std::uint16_t>(from, to, out, in, positions); break;
    case 4: turn<std::uint32_t>(from, to, out, in, positions); break;
    case 8: turn<std::uint64_t>(from, to, out, in, positions); break;
    default: TORCH_CHECK(false, "kernels are of 2, 4 or 8 bytes, not ", weight.scalar_type());
  }
  return new at::Tensor(std::move(last));
}

}  // namespace spark::kernels
