#include "spark-engine/src/allocator/allocator.hpp"

#include <cstdlib>  // Defines __GLIBC__ where that is the library.

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace spark {

void keep_freed_memory() {
#ifdef __GLIBC__
  // Not blocks of their own from the system, and nothing given back to it.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
#endif
}

}  // namespace spark
