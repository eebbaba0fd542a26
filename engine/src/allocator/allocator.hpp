// How memory that has been freed is kept.
#pragma once

#include <cstddef>

namespace spark {

// Keeps freed memory for the next use, where glibc would give large blocks back to the system at
// once. For whole programs: it concerns everybody in the process.
void keep_freed_memory();

// The most bytes that large tensors took since the last call; 0 where nothing is kept.
std::size_t peak_of_tensors();

}  // namespace spark
