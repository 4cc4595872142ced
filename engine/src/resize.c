// Bilinear resizing with half-pixel centres, as the preprocessing and ONNX's `half_pixel` have it.
//
// Exactly twice as large is the rule in a U²-Net. The weights are then 1/4 and 3/4, the sum of sixteenths is an integer
// below 2¹⁶, and the result is exact, ties to even. Any other size is computed in float32 in the order written here.
#include "kernels.h"

/// The taps of `target` samples of `source` values; positions are exact until the one division.
void resize_taps(i32 source, i32 target, Tap *taps) {
  for (i32 i = 0; i < target; i++) {
    // (i + 1/2) · source / target − 1/2, as a fraction of 2 · target
    i32 position = (2 * i + 1) * source - target, whole = 2 * target;
    position = max_i32(0, min_i32(position, (source - 1) * whole));
    taps[i].left = position / whole;
    taps[i].right = min_i32(taps[i].left + 1, source - 1);
    taps[i].weight = (float)(position % whole) / (float)whole;
  }
}

/// Sixteenths to the nearest integer, ties to even.
INLINE v128_t round_sixteenths(v128_t x) {
  v128_t odd = wasm_v128_and(wasm_u16x8_shr(x, 4), wasm_i16x8_splat(1));
  return wasm_u16x8_shr(wasm_i16x8_add(wasm_i16x8_add(x, wasm_i16x8_splat(7)), odd), 4);
}

INLINE v128_t three_and_one(v128_t three, v128_t one) {
  return wasm_i16x8_add(wasm_i16x8_add(wasm_i16x8_shl(three, 1), three), one);
}

INLINE void store_8(u8 *to, v128_t values, i32 channels) {
  store_channels(to, wasm_u8x16_narrow_i16x8(values, values), min_i32(channels, 8));
}

static void resize_twice(View input, View output, i32 begin, i32 end) {
  for (i32 y = begin; y < end; y++) {
    i32 near = y / 2, far = max_i32(0, min_i32(input.height - 1, y % 2 ? near + 1 : near - 1));
    for (i32 c = 0; c < output.channels; c += 8) {
      const u8 *three = pixel(input, near, 0) + c, *one = pixel(input, far, 0) + c;
      u8 *to = pixel(output, y, 0) + c;
      v128_t here = three_and_one(wasm_u16x8_load8x8(three), wasm_u16x8_load8x8(one)), before = here;
      for (i32 x = 0; x < input.width; x++) {
        v128_t after = here;
        if (x + 1 < input.width) {
          three += input.pixel_bytes, one += input.pixel_bytes;
          after = three_and_one(wasm_u16x8_load8x8(three), wasm_u16x8_load8x8(one));
        }
        store_8(to, round_sixteenths(three_and_one(here, before)), output.channels - c);
        store_8(to + output.pixel_bytes, round_sixteenths(three_and_one(here, after)), output.channels - c);
        to += 2 * output.pixel_bytes;
        before = here, here = after;
      }
    }
  }
}

INLINE v128_t load_4(const u8 *from) {
  return wasm_f32x4_convert_i32x4(wasm_u32x4_extend_low_u16x8(wasm_u16x8_extend_low_u8x16(wasm_v128_load32_zero(from))));
}

INLINE v128_t blend(v128_t from, v128_t to, v128_t weight) {
  return wasm_f32x4_add(from, wasm_f32x4_mul(wasm_f32x4_sub(to, from), weight));
}

static void resize_freely(View input, View output, const Tap *rows, const Tap *columns, i32 begin, i32 end) {
  for (i32 y = begin; y < end; y++)
    for (i32 x = 0; x < output.width; x++) {
      Tap row = rows[y], column = columns[x];
      const u8 *upper = pixel(input, row.left, 0), *lower = pixel(input, row.right, 0);
      i32 left = column.left * input.pixel_bytes, right = column.right * input.pixel_bytes;
      v128_t down = wasm_f32x4_splat(row.weight), along = wasm_f32x4_splat(column.weight);
      u8 *to = pixel(output, y, x);
      for (i32 c = 0; c < output.channels; c += 4) {
        v128_t a = blend(load_4(upper + left + c), load_4(lower + left + c), down);
        v128_t b = blend(load_4(upper + right + c), load_4(lower + right + c), down);
        v128_t value = blend(a, b, along);
        store_channels(to + c, round_to_u8x16(value, value, value, value), 4);
      }
    }
}

void resize_run(View input, View output, const Tap *rows, const Tap *columns, Share share) {
  i32 begin, end;
  share_out(share, output.height, &begin, &end);
  if (output.height == 2 * input.height && output.width == 2 * input.width)
    resize_twice(input, output, begin, end);
  else
    resize_freely(input, output, rows, columns, begin, end);
}
