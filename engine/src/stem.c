// The first convolution: float32 planes in, uint8 channels out, with a stride where the network folds the picture.
//
// The picture becomes 16-bit fixed point, cut to ±input_limit, and the weights are 16-bit integers with a multiplier per
// output channel; the packer chooses both so that no sum of 32 bits can overflow. Weights lie in blocks of 16 output
// channels; in a block, pairs of taps along a row of the kernel, whose width is rounded up to even with zeros.
#include "kernels.h"

INLINE i32 plane_width(i32 width, i32 kernel, i32 step, i32 padding) {
  return round_up(round_up(width, 8) + 2 * padding + kernel + step, 8);
}

u64 stem_plane_bytes(i32 height, i32 width, i32 kernel, i32 step, i32 padding) {
  return 3 * (u64)(height + 2 * padding + kernel) * (u64)plane_width(width, kernel, step, padding) * sizeof(i16);
}

void stem_widen(const Stem *stem, Share share) {
  i32 height = stem->input_height, width = stem->input_width, padding = stem->padding, begin, end;
  i32 padded = height + 2 * padding + stem->kernel;
  i32 row = plane_width(width, stem->kernel, stem->step, padding);
  v128_t scale = wasm_f32x4_splat(stem->input_scale);
  v128_t most = wasm_i16x8_splat((i16)stem->input_limit), least = wasm_i16x8_splat((i16)-stem->input_limit);
  share_out(share, 3 * padded, &begin, &end);
  for (i32 line = begin; line < end; line++) {
    i32 y = line % padded - padding;
    i16 *to = stem->planes + line * row;
    __builtin_memset(to, 0, (u32)row * sizeof(i16));
    if (y < 0 || y >= height) continue;
    const float *from = stem->input + (line / padded * height + y) * width;
    for (i32 x = 0; x < width; x += 8) {
      float last[8] = {0};
      const float *p = from + x;
      if (width - x < 8) {
        __builtin_memcpy(last, p, (u32)(width - x) * sizeof(float));
        p = last;
      }
      v128_t low = round_to_i32(wasm_f32x4_mul(wasm_v128_load(p), scale));
      v128_t high = round_to_i32(wasm_f32x4_mul(wasm_v128_load(p + 4), scale));
      v128_t both = wasm_i16x8_narrow_i32x4(low, high);
      both = wasm_i16x8_max(wasm_i16x8_min(both, most), least);
      wasm_v128_store(to + padding + x, both);
    }
  }
}

void stem_run(const Stem *stem, Share share) {
  View output = stem->output;
  i32 kernel = stem->kernel, step = stem->step, pairs = (kernel + 1) / 2, begin, end;
  i32 padded = stem->input_height + 2 * stem->padding + kernel;
  i32 row = plane_width(stem->input_width, kernel, step, stem->padding);
  i32 block = 3 * kernel * pairs * 32;
  share_out(share, output.height, &begin, &end);
  for (i32 o = 0; o < output.channels; o += 16) {
    const i16 *weights = stem->weights + o / 16 * block;
    const float *multiplier = stem->multiplier + o, *bias = stem->bias + o;
    i32 channels = min_i32(16, output.channels - o);
    for (i32 y = begin; y < end; y++)
      for (i32 x = 0; x < output.width; x += 2) {
        const i16 *w = weights;
        v128_t a0 = zero(), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
        for (i32 plane = 0; plane < 3; plane++)
          for (i32 ky = 0; ky < kernel; ky++) {
            const i16 *p = stem->planes + (plane * padded + y * step + ky) * row + x * step, *stop = p + 2 * pairs;
            KEEP_ROLLED do {
              v128_t w0 = wasm_v128_load(w), w1 = wasm_v128_load(w + 8);
              v128_t w2 = wasm_v128_load(w + 16), w3 = wasm_v128_load(w + 24);
              v128_t first = wasm_v128_load32_splat(p), second = wasm_v128_load32_splat(p + step);
              a0 = add_dot(a0, first, w0), a1 = add_dot(a1, first, w1);
              a2 = add_dot(a2, first, w2), a3 = add_dot(a3, first, w3);
              b0 = add_dot(b0, second, w0), b1 = add_dot(b1, second, w1);
              b2 = add_dot(b2, second, w2), b3 = add_dot(b3, second, w3);
              w += 32, p += 2;
            } while (p != stop);
          }
#define VALUE(sums, n) \
  wasm_f32x4_add(wasm_f32x4_mul(wasm_f32x4_convert_i32x4(sums), wasm_v128_load(multiplier + n)), wasm_v128_load(bias + n))
        u8 *to = pixel(output, y, x) + o;
        store_channels(to, round_to_u8x16(VALUE(a0, 0), VALUE(a1, 4), VALUE(a2, 8), VALUE(a3, 12)), channels);
        if (x + 1 < output.width)
          store_channels(to + output.pixel_bytes,
                         round_to_u8x16(VALUE(b0, 0), VALUE(b1, 4), VALUE(b2, 8), VALUE(b3, 12)), channels);
      }
  }
}
