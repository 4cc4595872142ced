// The sum of two activations of different scales: round(a · first_scale + b · second_scale).
#include "kernels.h"

INLINE v128_t weighted(v128_t a, v128_t b, v128_t first_scale, v128_t second_scale) {
  return wasm_f32x4_add(wasm_f32x4_mul(wasm_f32x4_convert_i32x4(a), first_scale),
                        wasm_f32x4_mul(wasm_f32x4_convert_i32x4(b), second_scale));
}

void add_run(View first, View second, View output, float first_scale, float second_scale, Share share) {
  i32 begin, end;
  v128_t fa = wasm_f32x4_splat(first_scale), fb = wasm_f32x4_splat(second_scale);
  share_out(share, output.height, &begin, &end);
  for (i32 y = begin; y < end; y++)
    for (i32 x = 0; x < output.width; x++) {
      const u8 *p = pixel(first, y, x), *q = pixel(second, y, x);
      u8 *to = pixel(output, y, x);
      for (i32 c = 0; c < output.channels; c += 8) {
        v128_t a = wasm_u16x8_load8x8(p + c), b = wasm_u16x8_load8x8(q + c);
        v128_t low = weighted(wasm_u32x4_extend_low_u16x8(a), wasm_u32x4_extend_low_u16x8(b), fa, fb);
        v128_t high = weighted(wasm_u32x4_extend_high_u16x8(a), wasm_u32x4_extend_high_u16x8(b), fa, fb);
        store_channels(to + c, round_to_u8x16(low, high, low, high), min_i32(8, output.channels - c));
      }
    }
}
