#include "spark-engine/src/allocator/allocator.hpp"

#include <cstdlib>  // Defines __GLIBC__ where that is the library.

#ifdef __GLIBC__
#include <c10/core/Allocator.h>
#include <malloc.h>

#include "spark-engine/src/allocator/pool.hpp"
#endif

namespace spark {

void keep_freed_memory() {
#ifdef __GLIBC__
  c10::SetAllocator(c10::DeviceType::CPU, &Pool::instance(), 255);
  // The rest of the process: not blocks of their own from the system, and nothing given back.
  mallopt(M_MMAP_MAX, 0);
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

}  // namespace spark
