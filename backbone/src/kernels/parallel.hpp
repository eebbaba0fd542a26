// Work on libtorch's own threads.
#pragma once

#include <ATen/Parallel.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>

namespace spark::kernels {

// Calls body(begin, end), which must not throw, for parts of 0..size on libtorch's threads; on this
// one alone where two would have less than `grain` each.
//
// at::parallel_for is compiled into its caller and would need OpenMP linked here: a second
// runtime beside the one that came with libtorch, whose idle threads spin against the first's.
// So the entry point of the one that is loaded is looked up.
template <typename Body>
void parallel_for(std::int64_t size, std::int64_t grain, const Body& body) {
  using Region = void (*)(void (*)(void*), void*, unsigned, unsigned);
  using Number = int (*)();
  static const auto region = reinterpret_cast<Region>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  static const auto number = reinterpret_cast<Number>(dlsym(RTLD_DEFAULT, "omp_get_thread_num"));
  static const auto count = reinterpret_cast<Number>(dlsym(RTLD_DEFAULT, "omp_get_num_threads"));
  const bool found = region != nullptr && number != nullptr && count != nullptr;
  const auto threads = std::min<std::int64_t>(at::get_num_threads(), size / grain);
  if (!found || threads < 2 || at::in_parallel_region()) {
    if (size > 0) body(std::int64_t{0}, size);
    return;
  }
  struct Work {
    const Body& body;
    std::int64_t size;
    Number number;
    Number count;
  } work{body, size, number, count};
  const auto share = [](void* data) {
    const auto& work = *static_cast<Work*>(data);
    const std::int64_t part = work.number(), parts = work.count();
    work.body(work.size * part / parts, work.size * (part + 1) / parts);
  };
  // 0: as many threads as libtorch has been told to use.
  region(share, &work, 0, 0);
}

}  // namespace spark::kernels
