#include "spark-engine/src/allocator/allocator.hpp"

#include <torch/version.h>

#include <cstdlib>  // Defines __GLIBC__ where that is the library.

#ifdef __GLIBC__
#include <c10/core/Allocator.h>
#include <malloc.h>

#include "spark-engine/src/allocator/pool.hpp"
#endif

// Allocators of all devices have one interface from 2.9 on.
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 9
#define SPARK_HAS_DEVICE_ALLOCATOR
#include <c10/core/CachingDeviceAllocator.h>
#endif

namespace spark {

void keep_freed_memory() {
#ifdef __GLIBC__
  c10::SetAllocator(c10::DeviceType::CPU, &Pool::instance(), 255);
  // The rest of the process: nothing given back, except what is as large as a file of weights.
  mallopt(M_MMAP_THRESHOLD, 1 << 25);
  mallopt(M_TRIM_THRESHOLD, -1);
#endif
}

std::size_t peak_of_tensors() {
#ifdef __GLIBC__
  return Pool::instance().peak();
#else
  return 0;
#endif
}

std::size_t peak_on_cuda(std::int8_t index) {
#ifdef SPARK_HAS_DEVICE_ALLOCATOR
  auto* allocator =
      dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(c10::DeviceType::CUDA));
  if (allocator == nullptr || !allocator->initialized()) return 0;
  const auto all = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto peak = allocator->getDeviceStats(index).allocated_bytes[all].peak;
  allocator->resetPeakStats(index);
  return static_cast<std::size_t>(peak);
#else
  static_cast<void>(index);
  return 0;
#endif
}

}  // namespace spark
