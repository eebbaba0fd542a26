// Code for the processor it runs on.
#pragma once

#include <cstdlib>  // Defines __GLIBC__ where that is the library.

// The compiler makes a version of a function for each of these processors; the right one is
// chosen when the library is loaded, which takes glibc's loader. Other compilers make one for all.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && __GNUC__ >= 12
#define SPARK_FOR_EVERY_PROCESSOR \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SPARK_FOR_EVERY_PROCESSOR
#endif
