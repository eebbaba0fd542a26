// Code for the processor it runs on.
#pragma once

// The compiler makes a version of a function for each of these processors; the right one is
// chosen when the library is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SPARK_FOR_EVERY_PROCESSOR \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SPARK_FOR_EVERY_PROCESSOR
#endif
