// Names for the 128-bit lanes that all kernels use, and the one rounding that all of them share.
#pragma once
#include <wasm_simd128.h>

typedef signed char i8;
typedef unsigned char u8;
typedef short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned u32;
typedef long long i64;
typedef unsigned long long u64;

#define INLINE static inline __attribute__((always_inline))

/// A function that must stay one. Browsers compile each function well once it is hot, and that takes longer than in
/// proportion to its length: until then the first picture is computed with code that was compiled in haste.
#define APART static __attribute__((noinline))

/// A loop that must stay a loop. LLVM moves unrolled chains of sums to their last use, which keeps every load alive and
/// spills registers; rolled, the loop runs at the speed of its multiplications.
#define KEEP_ROLLED _Pragma("clang loop unroll(disable)")
#define UNROLL _Pragma("unroll")

INLINE v128_t zero(void) { return wasm_i32x4_const(0, 0, 0, 0); }

/// sums + x·y, x and y being pairs of 16-bit numbers: eight multiplications.
INLINE v128_t add_dot(v128_t sums, v128_t x, v128_t y) { return wasm_i32x4_add(sums, wasm_i32x4_dot_i16x8(x, y)); }

/// Four floats to the nearest integers, ties to even.
///
/// 12582912 is 1.5 · 2²³: floats there are one apart, so the addition rounds as the processor rounds, and the low bits
/// of the sum are the integer above the bits of 12582912. Right for |x| < 2²². Above, the difference only grows, so
/// that it is still cut to 255 later; below, down to −12582912, it only falls, so that it is still cut to 0.
INLINE v128_t round_to_i32(v128_t x) {
  return wasm_i32x4_sub(wasm_f32x4_add(x, wasm_f32x4_splat(12582912.0f)), wasm_i32x4_splat(0x4b400000));
}

/// Four times four floats, rounded and cut to 0 … 255.
INLINE v128_t round_to_u8x16(v128_t a, v128_t b, v128_t c, v128_t d) {
  return wasm_u8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(round_to_i32(a), round_to_i32(b)),
                                 wasm_i16x8_narrow_i32x4(round_to_i32(c), round_to_i32(d)));
}

/// Write the first `count` of sixteen bytes; `count` is a multiple of 4, 16 at most.
INLINE void store_channels(u8 *to, v128_t bytes, i32 count) {
  if (count >= 16) {
    wasm_v128_store(to, bytes);
    return;
  }
  if (count >= 8) {
    wasm_v128_store64_lane(to, bytes, 0);
    if (count > 8) wasm_v128_store32_lane(to + 8, bytes, 2);
    return;
  }
  wasm_v128_store32_lane(to, bytes, 0);
}

INLINE i32 min_i32(i32 a, i32 b) { return a < b ? a : b; }
INLINE i32 max_i32(i32 a, i32 b) { return a > b ? a : b; }
INLINE i32 round_up(i32 value, i32 step) { return (value + step - 1) / step * step; }
