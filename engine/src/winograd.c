// 3×3 convolution of uint8 by int8 with a quarter of the multiplications, in integers, exactly.
//
// Winograd's F(4×4, 3×3) (Lavin and Gray, arXiv 1509.09308) gives a 4×4 tile of outputs from a 6×6 tile of inputs d and
// the 3×3 weights g as Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A. G holds fractions; 24·G does not:
//
//        6   0   0            4   0  −5   0   1   0            1   1   1   1   1   0
//       −4  −4  −4            0  −4  −4   1   1   0       Aᵀ = 0   1  −1   2  −2   0
//  G' = −4   4  −4       Bᵀ = 0   4  −4  −1   1   0            0   1   1   4   4   0
//        1   2   4            0  −2  −1   2   1   0            0   1  −1   8  −8   2
//        1  −2   4            0   2  −1  −2   1   0
//        0   0  12            0   4   0  −5   0   1
//
// G' is 24·G but for its last row, which is halved so that the transformed weights fit 16 bits; the 2 at the end of Aᵀ
// (where Winograd has 1) doubles it back. So the result is 24² = 576 times the convolution.
//
// Nothing is lost on the way:
// - |Bᵀ d B| ≤ 12,750: in a row of Bᵀ the positive and the negative entries add up to at most 5 each, so a product of
//   two rows has at most 25 + 25 positive ones, times 255. It fits 16 bits, and so does every sum on the way there.
// - |G' g G'ᵀ| ≤ 144 · 128 = 18,432 (12 is the largest sum of a row of |G'|). It fits 16 bits.
// - The products are added modulo 2³², and so are the sums of Aᵀ…A. Modulo 2³² the result is 576·(a + bias), a being
//   the convolution. 576 = 9 · 64 and 9 has an inverse modulo 2³², 0x38e38e39; multiplied by it the result is
//   64·(a + bias) modulo 2³², which is the number itself where |a + bias| < 2²⁵. The loader proves that from the weights
//   or takes the direct kernel.
// - 64 is a power of two: the float of 64·x times scale / 64 is the float of x times scale, bit for bit.
//
// The bias enters as 576·bias in component (1, 1): the second column of Aᵀ is all ones, so it reaches all 16 outputs.
#include "kernels.h"

enum {
  COMPONENTS = 36,
  BIAS_COMPONENT = 7,
  MAX_TILES = 32,   // tiles worked on at a time; a multiple of 4
  CACHE_LINE = 64,
};

i32 no_bias[MAX_CHANNELS];  // zeros; neither static nor const, or the compiler would store them in the program

// ---- the three transforms ------------------------------------------------------------------------------------------

/// Bᵀ times six vectors of 16-bit numbers, to `out[0]`, `out[step]`, ….
INLINE void input_transform(v128_t d0, v128_t d1, v128_t d2, v128_t d3, v128_t d4, v128_t d5, v128_t *out, i32 step) {
  v128_t d42 = wasm_i16x8_sub(d4, d2), d31 = wasm_i16x8_sub(d3, d1), twice = wasm_i16x8_shl(d31, 1);
  v128_t even = wasm_i16x8_sub(d4, wasm_i16x8_shl(d2, 2)), odd = wasm_i16x8_sub(d3, wasm_i16x8_shl(d1, 2));
  out[0] = wasm_i16x8_add(wasm_i16x8_shl(wasm_i16x8_sub(d0, d2), 2), d42);
  out[step] = wasm_i16x8_add(even, odd);
  out[2 * step] = wasm_i16x8_sub(even, odd);
  out[3 * step] = wasm_i16x8_add(d42, twice);
  out[4 * step] = wasm_i16x8_sub(d42, twice);
  out[5 * step] = wasm_i16x8_sub(wasm_i16x8_sub(d5, d3), wasm_i16x8_shl(d31, 2));
}

/// Bᵀ d B of eight channels of one tile. `from` is pixel (−1, −1) of the tile.
INLINE void transform_input_tile(const u8 *from, i32 row_bytes, i32 pixel_bytes, i16 *to, i32 component_stride) {
  v128_t rows[36];
  UNROLL for (i32 r = 0; r < 6; r++) {
    const u8 *p = from + r * row_bytes;
    input_transform(wasm_u16x8_load8x8(p), wasm_u16x8_load8x8(p + pixel_bytes), wasm_u16x8_load8x8(p + 2 * pixel_bytes),
                    wasm_u16x8_load8x8(p + 3 * pixel_bytes), wasm_u16x8_load8x8(p + 4 * pixel_bytes),
                    wasm_u16x8_load8x8(p + 5 * pixel_bytes), rows + 6 * r, 1);
  }
  UNROLL for (i32 c = 0; c < 6; c++) {
    v128_t column[6];
    input_transform(rows[c], rows[6 + c], rows[12 + c], rows[18 + c], rows[24 + c], rows[30 + c], column, 1);
    UNROLL for (i32 r = 0; r < 6; r++) wasm_v128_store(to + (r * 6 + c) * component_stride, column[r]);
  }
}

/// G' times three vectors of 16-bit numbers, to `out[0]`, `out[step]`, ….
INLINE void weight_transform(v128_t g0, v128_t g1, v128_t g2, v128_t *out, i32 step) {
  v128_t g02 = wasm_i16x8_add(g0, g2), outer = wasm_i16x8_add(g0, wasm_i16x8_shl(g2, 2));
  v128_t twice = wasm_i16x8_shl(g1, 1);
  out[0] = wasm_i16x8_mul(g0, wasm_i16x8_const_splat(6));
  out[step] = wasm_i16x8_mul(wasm_i16x8_add(g02, g1), wasm_i16x8_const_splat(-4));
  out[2 * step] = wasm_i16x8_mul(wasm_i16x8_sub(g02, g1), wasm_i16x8_const_splat(-4));
  out[3 * step] = wasm_i16x8_add(outer, twice);
  out[4 * step] = wasm_i16x8_sub(outer, twice);
  out[5 * step] = wasm_i16x8_mul(g2, wasm_i16x8_const_splat(12));
}

/// Aᵀ times six vectors of 32-bit numbers, to `out[0]`, `out[step]`, ….
INLINE void output_transform(v128_t m0, v128_t m1, v128_t m2, v128_t m3, v128_t m4, v128_t m5, v128_t *out, i32 step) {
  v128_t p12 = wasm_i32x4_add(m1, m2), n12 = wasm_i32x4_sub(m1, m2);
  v128_t p34 = wasm_i32x4_add(m3, m4), n34 = wasm_i32x4_sub(m3, m4);
  out[0] = wasm_i32x4_add(m0, wasm_i32x4_add(p12, p34));
  out[step] = wasm_i32x4_add(n12, wasm_i32x4_shl(n34, 1));
  out[2 * step] = wasm_i32x4_add(p12, wasm_i32x4_shl(p34, 2));
  out[3 * step] = wasm_i32x4_add(wasm_i32x4_add(n12, wasm_i32x4_shl(n34, 3)), wasm_i32x4_shl(m5, 1));
}

/// 576·x to x · scale, for `scale` already divided by 64.
INLINE v128_t rescale(v128_t sums, v128_t scale) {
  return wasm_f32x4_mul(wasm_f32x4_convert_i32x4(wasm_i32x4_mul(sums, wasm_i32x4_splat(0x38e38e39))), scale);
}

/// Four output channels of one tile: four vectors, one per row, each of four pixels of four channels.
INLINE void transform_output_tile(const i32 *from, i32 component_stride, v128_t scale, v128_t *out) {
  v128_t columns[24];
  UNROLL for (i32 c = 0; c < 6; c++) {
    const i32 *p = from + c * component_stride;
    output_transform(wasm_v128_load(p), wasm_v128_load(p + 6 * component_stride),
                     wasm_v128_load(p + 12 * component_stride), wasm_v128_load(p + 18 * component_stride),
                     wasm_v128_load(p + 24 * component_stride), wasm_v128_load(p + 30 * component_stride), columns + c,
                     6);
  }
  UNROLL for (i32 r = 0; r < 4; r++) {
    v128_t *t = columns + 6 * r, row[4];
    output_transform(t[0], t[1], t[2], t[3], t[4], t[5], row, 1);
    out[r] = round_to_u8x16(rescale(row[0], scale), rescale(row[1], scale), rescale(row[2], scale),
                            rescale(row[3], scale));
  }
}

/// Eight output channels of one tile, written.
INLINE void write_tile_8(const i32 *from, i32 component_stride, const float *scale, u8 *to, i32 row_bytes,
                         i32 pixel_bytes) {
  v128_t low[4], high[4];
  transform_output_tile(from, component_stride, wasm_v128_load(scale), low);
  transform_output_tile(from + 4, component_stride, wasm_v128_load(scale + 4), high);
  UNROLL for (i32 r = 0; r < 4; r++) {
    v128_t first = wasm_i32x4_shuffle(low[r], high[r], 0, 4, 1, 5);
    v128_t last = wasm_i32x4_shuffle(low[r], high[r], 2, 6, 3, 7);
    u8 *p = to + r * row_bytes;
    wasm_v128_store64_lane(p, first, 0);
    wasm_v128_store64_lane(p + pixel_bytes, first, 1);
    wasm_v128_store64_lane(p + 2 * pixel_bytes, last, 0);
    wasm_v128_store64_lane(p + 3 * pixel_bytes, last, 1);
  }
}

/// Four output channels of one tile, written.
INLINE void write_tile_4(const i32 *from, i32 component_stride, const float *scale, u8 *to, i32 row_bytes,
                         i32 pixel_bytes) {
  v128_t rows[4];
  transform_output_tile(from, component_stride, wasm_v128_load(scale), rows);
  UNROLL for (i32 r = 0; r < 4; r++) {
    u8 *p = to + r * row_bytes;
    wasm_v128_store32_lane(p, rows[r], 0);
    wasm_v128_store32_lane(p + pixel_bytes, rows[r], 1);
    wasm_v128_store32_lane(p + 2 * pixel_bytes, rows[r], 2);
    wasm_v128_store32_lane(p + 3 * pixel_bytes, rows[r], 3);
  }
}

// ---- the products ---------------------------------------------------------------------------------------------------

/// Four tiles by eight output channels at a time. `stride`, a constant for the compiler, lets one register address four
/// tiles.
INLINE void multiply_8(const i16 *input, const i32 stride, i32 channels, const i16 *weights, i32 *sums,
                       i32 output_channels, i32 tiles, const i32 *start) {
  const i16 *end = weights + channels * 8;
  v128_t start_low = wasm_v128_load(start), start_high = wasm_v128_load(start + 4);
  for (i32 t = 0; t < tiles; t += 4) {
    const i16 *x = input + t * stride, *w = weights;
    v128_t a0 = start_low, b0 = start_high, a1 = a0, b1 = b0, a2 = a0, b2 = b0, a3 = a0, b3 = b0;
    KEEP_ROLLED do {
      v128_t low = wasm_v128_load(w), high = wasm_v128_load(w + 8), pair;
      pair = wasm_v128_load32_splat(x);
      a0 = add_dot(a0, pair, low), b0 = add_dot(b0, pair, high);
      pair = wasm_v128_load32_splat(x + stride);
      a1 = add_dot(a1, pair, low), b1 = add_dot(b1, pair, high);
      pair = wasm_v128_load32_splat(x + 2 * stride);
      a2 = add_dot(a2, pair, low), b2 = add_dot(b2, pair, high);
      pair = wasm_v128_load32_splat(x + 3 * stride);
      a3 = add_dot(a3, pair, low), b3 = add_dot(b3, pair, high);
      w += 16, x += 2;
    } while (w != end);
    i32 *to = sums + t * output_channels;
    wasm_v128_store(to, a0), wasm_v128_store(to + 4, b0), to += output_channels;
    wasm_v128_store(to, a1), wasm_v128_store(to + 4, b1), to += output_channels;
    wasm_v128_store(to, a2), wasm_v128_store(to + 4, b2), to += output_channels;
    wasm_v128_store(to, a3), wasm_v128_store(to + 4, b3);
  }
}

/// The same for a last block of four output channels.
INLINE void multiply_4(const i16 *input, const i32 stride, i32 channels, const i16 *weights, i32 *sums,
                       i32 output_channels, i32 tiles, const i32 *start) {
  const i16 *end = weights + channels * 4;
  for (i32 t = 0; t < tiles; t += 4) {
    const i16 *x = input + t * stride, *w = weights;
    v128_t a0 = wasm_v128_load(start), a1 = a0, a2 = a0, a3 = a0;
    KEEP_ROLLED do {
      v128_t low = wasm_v128_load(w);
      a0 = add_dot(a0, wasm_v128_load32_splat(x), low);
      a1 = add_dot(a1, wasm_v128_load32_splat(x + stride), low);
      a2 = add_dot(a2, wasm_v128_load32_splat(x + 2 * stride), low);
      a3 = add_dot(a3, wasm_v128_load32_splat(x + 3 * stride), low);
      w += 8, x += 2;
    } while (w != end);
    i32 *to = sums + t * output_channels;
    wasm_v128_store(to, a0), to += output_channels;
    wasm_v128_store(to, a1), to += output_channels;
    wasm_v128_store(to, a2), to += output_channels;
    wasm_v128_store(to, a3);
  }
}

INLINE void multiply_components(const i16 *input, i32 input_step, const i32 stride, i32 channels, const i16 *weights,
                                i32 *sums, i32 sums_step, i32 output_channels, i32 tiles, const i32 *bias) {
  for (i32 k = 0; k < COMPONENTS; k++) {
    const i32 *start = k == BIAS_COMPONENT ? bias : no_bias;
    i32 o = 0;
    for (; o + 8 <= output_channels; o += 8)
      multiply_8(input, stride, channels, weights + o * channels, sums + o, output_channels, tiles, start + o);
    if (o < output_channels)
      multiply_4(input, stride, channels, weights + o * channels, sums + o, output_channels, tiles, start + o);
    weights += output_channels * channels, input += input_step, sums += sums_step;
  }
}

i32 winograd_stride(i32 channels) {
  WINOGRAD_STRIDES(RETURN_IF_FITS)
  return 0;
}

/// Its numbers one by one: taken out of the job inside, they cost 4 % of a run in V8.
#define MULTIPLY(s) \
  APART void multiply_at_##s(const i16 *input, i32 input_step, i32 channels, const i16 *weights, i32 *sums, \
                             i32 sums_step, i32 output_channels, i32 tiles, const i32 *bias) { \
    multiply_components(input, input_step, s, channels, weights, sums, sums_step, output_channels, tiles, bias); \
  }
WINOGRAD_STRIDES(MULTIPLY)

INLINE void multiply(const i16 *input, i32 input_step, i32 stride, i32 channels, const i16 *weights, i32 *sums,
                     i32 sums_step, i32 output_channels, i32 tiles, const i32 *bias) {
  switch (stride) {
#define CASE(s) \
  case s: \
    multiply_at_##s(input, input_step, channels, weights, sums, sums_step, output_channels, tiles, bias); \
    return;
    WINOGRAD_STRIDES(CASE)
  }
}

// ---- the convolution ------------------------------------------------------------------------------------------------

/// Bytes from one component to the next: an odd number of cache lines, so that the 36 of them, which are written and
/// read together, do not fall into the same sets of the cache.
INLINE i32 component_bytes(i32 bytes) { return ((bytes + CACHE_LINE - 1) / CACHE_LINE | 1) * CACHE_LINE; }

INLINE i32 input_component(i32 stride) { return component_bytes(MAX_TILES * stride * (i32)sizeof(i16)); }
INLINE i32 sums_component(i32 output_channels) {
  return component_bytes(MAX_TILES * output_channels * (i32)sizeof(i32));
}

u64 winograd_weight_bytes(i32 output_channels, i32 channels) {
  return COMPONENTS * (u64)output_channels * (u64)channels * sizeof(i16);
}

u64 winograd_scratch_bytes(i32 output_channels, i32 stride) {
  return COMPONENTS * ((u64)input_component(stride) + (u64)sums_component(output_channels));
}

/// Weights as `docs/engine.md` stores them, to 36 components of the same blocks: eight output channels (four in a last
/// block), pairs of input channels.
void winograd_transform_weights(const i8 *weights, i32 output_channels, i32 channels, i16 *transformed) {
  i32 component = output_channels * channels;
  for (i32 o = 0; o < output_channels; o += 8) {
    i32 block = min_i32(8, output_channels - o) * channels;  // numbers of a block in one component, or at one tap
    const i8 *from = weights + 9 * o * channels;
    i16 *to = transformed + o * channels;
    for (i32 n = 0; n < block; n += 8) {  // channels come in fours
      v128_t half[18];
      UNROLL for (i32 x = 0; x < 3; x++)
        weight_transform(wasm_i16x8_load8x8(from + x * block + n), wasm_i16x8_load8x8(from + (3 + x) * block + n),
                         wasm_i16x8_load8x8(from + (6 + x) * block + n), half + x, 3);
      UNROLL for (i32 i = 0; i < 6; i++) {
        v128_t row[6];
        weight_transform(half[3 * i], half[3 * i + 1], half[3 * i + 2], row, 1);
        UNROLL for (i32 j = 0; j < 6; j++) wasm_v128_store(to + (i * 6 + j) * component + n, row[j]);
      }
    }
  }
}

/// A tile that hangs over the right or lower edge: only what lies inside is written.
static void copy_inside(const u8 *tile, View output, i32 y, i32 x, i32 channel, i32 channels) {
  for (i32 r = 0; r < 4 && y + r < output.height; r++)
    for (i32 c = 0; c < 4 && x + c < output.width; c++)
      __builtin_memcpy(pixel(output, y + r, x + c) + channel, tile + (r * 4 + c) * 8, (u32)channels);
}

/// Tiles `first` to before `first + count`, transformed. Those that hang over the edge read what lies behind the last
/// row; such numbers reach no output that is kept.
APART void read_tiles(const Winograd *job, i16 *transformed, i32 input_step, i32 first, i32 count) {
  View input = job->input;
  i32 across = (input.width + 3) / 4, ty = first / across, tx = first % across;
  for (i32 t = 0; t < count; t++) {
    const u8 *from = pixel(input, ty * 4 - 1, tx * 4 - 1);
    for (i32 c = 0; c < input.channels; c += 8)
      transform_input_tile(from + c, input.row_bytes, input.pixel_bytes, transformed + t * job->stride + c, input_step);
    if (++tx == across) tx = 0, ty++;
  }
}

APART void write_tiles(const Winograd *job, const i32 *sums, i32 sums_step, i32 first, i32 count) {
  View output = job->output;
  i32 across = (output.width + 3) / 4;
  for (i32 o = 0; o < output.channels; o += 8) {
    i32 wide = output.channels - o >= 8;
    i32 ty = first / across, tx = first % across;
    for (i32 t = 0; t < count; t++) {
      const i32 *from = sums + t * output.channels + o;
      i32 y = ty * 4, x = tx * 4;
      i32 inside = y + 4 <= output.height && x + 4 <= output.width;
      u8 hanging[4 * 4 * 8], *to = inside ? pixel(output, y, x) + o : hanging;
      i32 row_bytes = inside ? output.row_bytes : 32, pixel_bytes = inside ? output.pixel_bytes : 8;
      if (wide)
        write_tile_8(from, sums_step, job->scale + o, to, row_bytes, pixel_bytes);
      else
        write_tile_4(from, sums_step, job->scale + o, to, row_bytes, pixel_bytes);
      if (!inside) copy_inside(hanging, output, y, x, o, wide ? 8 : 4);
      if (++tx == across) tx = 0, ty++;
    }
  }
}

void winograd_run(const Winograd *job, u8 *scratch, Share share) {
  View input = job->input;
  i32 across = (input.width + 3) / 4, down = (input.height + 3) / 4, begin, end;
  share_out(share, (across * down + 3) / 4, &begin, &end);
  begin *= 4, end = min_i32(end * 4, across * down);
  i32 input_step = input_component(job->stride) / (i32)sizeof(i16);
  i32 sums_step = sums_component(job->output.channels) / (i32)sizeof(i32);
  i16 *transformed = (i16 *)scratch;
  i32 *sums = (i32 *)(scratch + COMPONENTS * input_component(job->stride));
  for (i32 first = begin; first < end; first += MAX_TILES) {
    i32 count = min_i32(MAX_TILES, end - first);
    read_tiles(job, transformed, input_step, first, count);
    multiply(transformed, input_step, job->stride, input.channels, job->weights, sums, sums_step,
             job->output.channels, round_up(count, 4), job->bias);
    write_tiles(job, sums, sums_step, first, count);
  }
}
