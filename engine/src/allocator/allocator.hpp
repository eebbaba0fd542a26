// How the C library keeps memory that has been freed.
#pragma once

namespace spark {

// Keeps freed memory for the next use, where glibc would give large blocks back to the system at
// once. For whole programs: it concerns everybody in the process.
void keep_freed_memory();

}  // namespace spark
