// Conversions between element types that compilers make vectors of.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace spark::kernels {

#define SPARK_INLINE __attribute__((always_inline)) inline

SPARK_INLINE float widen(float value) { return value; }
SPARK_INLINE double widen(double value) { return value; }
SPARK_INLINE float widen(c10::BFloat16 value) {
  const auto bits = static_cast<std::uint32_t>(value.x) << 16;
  float wide;
  __builtin_memcpy(&wide, &bits, sizeof wide);
  return wide;
}
SPARK_INLINE void narrow(float value, float* to) { *to = value; }
SPARK_INLINE void narrow(double value, double* to) { *to = value; }
SPARK_INLINE void narrow(float value, c10::BFloat16* to) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  const auto rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to->x = static_cast<std::uint16_t>(value != value ? 0x7fc0 : rounded);
}

}  // namespace spark::kernels
