// A side map: 3×3 convolution to one channel, uint8 by 16-bit weights, one scale, float32 out. The packer scales the
// weights so that no sum of 32 bits can overflow. Weights: nine taps of the channels, rounded up to 8 with zeros.
#include "kernels.h"

/// One number from each of four vectors: the sum of its lanes.
INLINE v128_t sums_of_four(v128_t a, v128_t b, v128_t c, v128_t d) {
  v128_t ab = wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), wasm_i32x4_shuffle(a, b, 2, 6, 3, 7));
  v128_t cd = wasm_i32x4_add(wasm_i32x4_shuffle(c, d, 0, 4, 1, 5), wasm_i32x4_shuffle(c, d, 2, 6, 3, 7));
  return wasm_i32x4_add(wasm_i64x2_shuffle(ab, cd, 0, 2), wasm_i64x2_shuffle(ab, cd, 1, 3));
}

/// Four pixels share the loads of the weights. Those beyond the right edge are computed and not kept.
void side_run(View input, Map output, const i16 *weights, float scale, float bias, i32 accumulate, Share share) {
  i32 begin, end, channels = round_up(input.channels, 8), step = input.pixel_bytes;
  share_out(share, output.height, &begin, &end);
  for (i32 y = begin; y < end; y++)
    for (i32 x = 0; x < output.width; x += 4) {
      const i16 *w = weights;
      v128_t a = zero(), b = a, c = a, d = a;
      for (i32 ky = -1; ky <= 1; ky++)
        for (i32 kx = -1; kx <= 1; kx++) {
          const u8 *p = pixel(input, y + ky, x + kx);
          const i16 *stop = w + channels;
          KEEP_ROLLED do {
            v128_t eight = wasm_v128_load(w);
            a = add_dot(a, wasm_u16x8_load8x8(p), eight);
            b = add_dot(b, wasm_u16x8_load8x8(p + step), eight);
            c = add_dot(c, wasm_u16x8_load8x8(p + 2 * step), eight);
            d = add_dot(d, wasm_u16x8_load8x8(p + 3 * step), eight);
            w += 8, p += 8;
          } while (w != stop);
        }
      float *to = output.values + y * output.width + x;
      i32 inside = min_i32(4, output.width - x);
      float four[4] = {0};
      v128_t values = wasm_f32x4_mul(wasm_f32x4_convert_i32x4(sums_of_four(a, b, c, d)), wasm_f32x4_splat(scale));
      values = wasm_f32x4_add(values, wasm_f32x4_splat(bias));
      if (accumulate) {
        __builtin_memcpy(four, to, (u32)inside * sizeof(float));
        values = wasm_f32x4_add(wasm_v128_load(four), values);
      }
      wasm_v128_store(four, values);
      __builtin_memcpy(to, four, (u32)inside * sizeof(float));
    }
}
