// How memory that has been freed is kept.
#pragma once

#include <cstddef>
#include <cstdint>

namespace spark {

// Keeps freed memory for the next use, where glibc would give large blocks back to the system at
// once. For whole programs: it concerns everybody in the process.
void keep_freed_memory();

// The most bytes that large tensors took since the last call; 0 where nothing is kept.
std::size_t peak_of_tensors();

// The most bytes that tensors on the CUDA device of this index took since the last call; 0 where
// libtorch has no way to ask without CUDA's headers.
std::size_t peak_on_cuda(std::int8_t index);

}  // namespace spark
