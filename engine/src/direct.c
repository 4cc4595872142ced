// 3×3 convolution of uint8 by int8, product by product: for dilations, for layers whose sums are too large for the
// Winograd kernel, and for those with so few pixels that transforming the weights would cost more than it saves.
//
// The input is first copied to 16-bit numbers with a border as wide as the dilation, so that the products need no
// conversion and no edge needs care. Sums are 32 bits; the packer proves that they cannot overflow.
#include "kernels.h"

i32 direct_stride(i32 channels) {
  DIRECT_STRIDES(RETURN_IF_FITS)
  return 0;
}

INLINE i32 widened_width(i32 width, i32 dilation) { return round_up(width, 4) + 2 * dilation; }

u64 direct_widened_bytes(i32 height, i32 width, i32 stride, i32 dilation) {
  return (u64)(height + 2 * dilation) * (u64)widened_width(width, dilation) * (u64)stride * sizeof(i16);
}

void direct_widen(const Direct *job, Share share) {
  View input = job->input;
  i32 dilation = job->dilation, stride = job->stride, begin, end;
  i32 row = widened_width(input.width, dilation) * stride;
  share_out(share, input.height + 2 * dilation, &begin, &end);
  for (i32 y = begin; y < end; y++) {
    i16 *to = job->widened + y * row;
    __builtin_memset(to, 0, (u32)row * sizeof(i16));
    if (y < dilation || y >= input.height + dilation) continue;
    for (i32 x = 0; x < input.width; x++) {
      const u8 *from = pixel(input, y - dilation, x);
      i16 *wide = to + (x + dilation) * stride;
      for (i32 c = 0; c < input.channels; c += 8) wasm_v128_store(wide + c, wasm_u16x8_load8x8(from + c));
    }
  }
}

INLINE v128_t rescale(v128_t sums, v128_t scale) { return wasm_f32x4_mul(wasm_f32x4_convert_i32x4(sums), scale); }

/// Rows `begin` to `end` of eight output channels, four pixels at a time.
INLINE void convolve_8(const Direct *job, const i32 stride, i32 o, i32 begin, i32 end) {
  View output = job->output;
  i32 channels = job->input.channels, dilation = job->dilation;
  i32 row = widened_width(output.width, dilation) * stride;
  v128_t scale_low = wasm_v128_load(job->scale + o), scale_high = wasm_v128_load(job->scale + o + 4);
  for (i32 y = begin; y < end; y++)
    for (i32 x = 0; x < output.width; x += 4) {
      const i8 *w = job->weights + 9 * o * channels;
      v128_t a0 = wasm_v128_load(job->bias + o), b0 = wasm_v128_load(job->bias + o + 4);
      v128_t a1 = a0, b1 = b0, a2 = a0, b2 = b0, a3 = a0, b3 = b0;
      KEEP_ROLLED for (i32 ky = 0; ky < 3; ky++)
        KEEP_ROLLED for (i32 kx = 0; kx < 3; kx++) {
          const i16 *p = job->widened + (y + ky * dilation) * row + (x + kx * dilation) * stride;
          const i8 *stop = w + 8 * channels;
          KEEP_ROLLED do {
            v128_t low = wasm_i16x8_load8x8(w), high = wasm_i16x8_load8x8(w + 8), pair;
            pair = wasm_v128_load32_splat(p);
            a0 = add_dot(a0, pair, low), b0 = add_dot(b0, pair, high);
            pair = wasm_v128_load32_splat(p + stride);
            a1 = add_dot(a1, pair, low), b1 = add_dot(b1, pair, high);
            pair = wasm_v128_load32_splat(p + 2 * stride);
            a2 = add_dot(a2, pair, low), b2 = add_dot(b2, pair, high);
            pair = wasm_v128_load32_splat(p + 3 * stride);
            a3 = add_dot(a3, pair, low), b3 = add_dot(b3, pair, high);
            w += 16, p += 2;
          } while (w != stop);
        }
      v128_t left = round_to_u8x16(rescale(a0, scale_low), rescale(b0, scale_high), rescale(a1, scale_low),
                                   rescale(b1, scale_high));
      v128_t right = round_to_u8x16(rescale(a2, scale_low), rescale(b2, scale_high), rescale(a3, scale_low),
                                    rescale(b3, scale_high));
      u8 *to = pixel(output, y, x) + o;
      i32 inside = output.width - x;
      wasm_v128_store64_lane(to, left, 0);
      if (inside > 1) wasm_v128_store64_lane(to + output.pixel_bytes, left, 1);
      if (inside > 2) wasm_v128_store64_lane(to + 2 * output.pixel_bytes, right, 0);
      if (inside > 3) wasm_v128_store64_lane(to + 3 * output.pixel_bytes, right, 1);
    }
}

/// The same for a last block of four output channels.
INLINE void convolve_4(const Direct *job, const i32 stride, i32 o, i32 begin, i32 end) {
  View output = job->output;
  i32 channels = job->input.channels, dilation = job->dilation;
  i32 row = widened_width(output.width, dilation) * stride;
  v128_t scale = wasm_v128_load(job->scale + o);
  for (i32 y = begin; y < end; y++)
    for (i32 x = 0; x < output.width; x += 4) {
      const i8 *w = job->weights + 9 * o * channels;
      v128_t a0 = wasm_v128_load(job->bias + o), a1 = a0, a2 = a0, a3 = a0;
      KEEP_ROLLED for (i32 ky = 0; ky < 3; ky++)
        KEEP_ROLLED for (i32 kx = 0; kx < 3; kx++) {
          const i16 *p = job->widened + (y + ky * dilation) * row + (x + kx * dilation) * stride;
          const i8 *stop = w + 4 * channels;
          KEEP_ROLLED do {
            v128_t low = wasm_i16x8_load8x8(w);
            a0 = add_dot(a0, wasm_v128_load32_splat(p), low);
            a1 = add_dot(a1, wasm_v128_load32_splat(p + stride), low);
            a2 = add_dot(a2, wasm_v128_load32_splat(p + 2 * stride), low);
            a3 = add_dot(a3, wasm_v128_load32_splat(p + 3 * stride), low);
            w += 8, p += 2;
          } while (w != stop);
        }
      v128_t pixels = round_to_u8x16(rescale(a0, scale), rescale(a1, scale), rescale(a2, scale), rescale(a3, scale));
      u8 *to = pixel(output, y, x) + o;
      i32 inside = output.width - x;
      wasm_v128_store32_lane(to, pixels, 0);
      if (inside > 1) wasm_v128_store32_lane(to + output.pixel_bytes, pixels, 1);
      if (inside > 2) wasm_v128_store32_lane(to + 2 * output.pixel_bytes, pixels, 2);
      if (inside > 3) wasm_v128_store32_lane(to + 3 * output.pixel_bytes, pixels, 3);
    }
}

INLINE void convolve(const Direct *job, const i32 stride, i32 begin, i32 end) {
  i32 o = 0;
  for (; o + 8 <= job->output.channels; o += 8) convolve_8(job, stride, o, begin, end);
  if (o < job->output.channels) convolve_4(job, stride, o, begin, end);
}

#define CONVOLVE(s) \
  APART void convolve_at_##s(const Direct *job, i32 begin, i32 end) { convolve(job, s, begin, end); }
DIRECT_STRIDES(CONVOLVE)

void direct_run(const Direct *job, Share share) {
  i32 begin, end;
  share_out(share, job->output.height, &begin, &end);
  switch (job->stride) {
#define CASE(s) \
  case s: \
    convolve_at_##s(job, begin, end); \
    return;
    DIRECT_STRIDES(CASE)
  }
}
