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

}  // namespace spark
