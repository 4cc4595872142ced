// The end of the network: side maps brought to one size, their weighted sum, the size of the output, the sigmoid.
#include "kernels.h"

INLINE float blend(float from, float to, float weight) { return from + (to - from) * weight; }

/// One row of `map` at its own width, between the two rows of the tap.
static void blend_rows(Map map, Tap tap, float *row) {
  const float *upper = map.values + tap.left * map.width, *lower = map.values + tap.right * map.width;
  v128_t weight = wasm_f32x4_splat(tap.weight);
  i32 x = 0;
  for (; x + 4 <= map.width; x += 4) {
    v128_t a = wasm_v128_load(upper + x), b = wasm_v128_load(lower + x);
    wasm_v128_store(row + x, wasm_f32x4_add(a, wasm_f32x4_mul(wasm_f32x4_sub(b, a), weight)));
  }
  for (; x < map.width; x++) row[x] = blend(upper[x], lower[x], tap.weight);
}

/// One row of `count` values to `factor` times as many: `emit` gets them in fours, `to` being where they belong.
///
/// Between the centres of two neighbours lie `factor` values that both share, with the weights of the taps; before the
/// first centre and behind the last lie factor / 2 copies of the value there (a + (a − a) · w is a).
static void stretch_row(const float *row, i32 count, i32 factor, const Tap *taps, float *to) {
  i32 half = factor / 2, x = 0;
  for (; x < half; x++) to[x] = row[0];
  if (factor == 2) {
    v128_t near = wasm_f32x4_splat(0.25f), far = wasm_f32x4_splat(0.75f);
    for (i32 i = 0; i + 5 <= count; i += 4, x += 8) {
      v128_t a = wasm_v128_load(row + i), slope = wasm_f32x4_sub(wasm_v128_load(row + i + 1), a);
      v128_t odd = wasm_f32x4_add(a, wasm_f32x4_mul(slope, near)), even = wasm_f32x4_add(a, wasm_f32x4_mul(slope, far));
      wasm_v128_store(to + x, wasm_i32x4_shuffle(odd, even, 0, 4, 1, 5));
      wasm_v128_store(to + x + 4, wasm_i32x4_shuffle(odd, even, 2, 6, 3, 7));
    }
  } else {
    for (i32 i = 0; i + 1 < count; i++)
      for (i32 j = 0; j < factor; j += 4, x += 4) {
        const Tap *tap = taps + x;
        v128_t weights = wasm_f32x4_make(tap[0].weight, tap[1].weight, tap[2].weight, tap[3].weight);
        v128_t a = wasm_f32x4_splat(row[i]), slope = wasm_f32x4_splat(row[i + 1] - row[i]);
        wasm_v128_store(to + x, wasm_f32x4_add(a, wasm_f32x4_mul(slope, weights)));
      }
  }
  for (; x < count * factor; x++) to[x] = blend(row[taps[x].left], row[taps[x].right], taps[x].weight);
}

/// A row at the width of `taps`; `spare` is for what is in between. Returns where it is.
static const float *resize_row(Map map, Tap row, const Tap *taps, i32 width, float *spare) {
  blend_rows(map, row, spare);
  if (map.width == width) return spare;
  float *to = spare + round_up(map.width, 4);
  i32 factor = width / map.width;
  if (map.width * factor == width && (factor == 2 || factor % 4 == 0))
    stretch_row(spare, map.width, factor, taps, to);
  else
    for (i32 x = 0; x < width; x++) to[x] = blend(spare[taps[x].left], spare[taps[x].right], taps[x].weight);
  return to;
}

/// fused = bias + Σ weight · map, the maps in their order, each resized bilinearly, rows first.
void fuse_maps(const Fuse *fuse, float *scratch, Share share) {
  i32 begin, end, width = fuse->fused.width;
  share_out(share, fuse->fused.height, &begin, &end);
  for (i32 y = begin; y < end; y++) {
    float *to = fuse->fused.values + y * width;
    for (i32 x = 0; x < width; x++) to[x] = fuse->bias;
    for (i32 m = 0; m < fuse->count; m++) {
      const float *from = resize_row(fuse->maps[m], fuse->rows[m][y], fuse->columns[m], width, scratch);
      v128_t weight = wasm_f32x4_splat(fuse->weights[m]);
      i32 x = 0;
      for (; x + 4 <= width; x += 4)
        wasm_v128_store(to + x, wasm_f32x4_add(wasm_v128_load(to + x), wasm_f32x4_mul(weight, wasm_v128_load(from + x))));
      for (; x < width; x++) to[x] += fuse->weights[m] * from[x];
    }
  }
}

/// 1 / (1 + e⁻ˣ); e⁻ˣ as 2ⁿ times a polynomial (Cephes' expf: relative error below 2⁻²³ before roundings).
INLINE v128_t sigmoid(v128_t x) {
  v128_t t = wasm_f32x4_pmin(wasm_f32x4_pmax(wasm_f32x4_neg(x), wasm_f32x4_splat(-87.0f)), wasm_f32x4_splat(88.0f));
  v128_t n = wasm_f32x4_nearest(wasm_f32x4_mul(t, wasm_f32x4_splat(1.44269504f)));
  t = wasm_f32x4_sub(t, wasm_f32x4_mul(n, wasm_f32x4_splat(0.693359375f)));
  t = wasm_f32x4_add(t, wasm_f32x4_mul(n, wasm_f32x4_splat(2.12194440e-4f)));
  v128_t p = wasm_f32x4_splat(1.9875691500e-4f);
#define HORNER(coefficient) p = wasm_f32x4_add(wasm_f32x4_mul(p, t), wasm_f32x4_splat(coefficient))
  HORNER(1.3981999507e-3f);
  HORNER(8.3334519073e-3f);
  HORNER(4.1665795894e-2f);
  HORNER(1.6666665459e-1f);
  HORNER(5.0000001201e-1f);
  p = wasm_f32x4_add(wasm_f32x4_add(wasm_f32x4_mul(p, wasm_f32x4_mul(t, t)), t), wasm_f32x4_splat(1.0f));
  v128_t power = wasm_i32x4_shl(wasm_i32x4_add(wasm_i32x4_trunc_sat_f32x4(n), wasm_i32x4_splat(127)), 23);
  return wasm_f32x4_div(wasm_f32x4_splat(1.0f),
                        wasm_f32x4_add(wasm_f32x4_splat(1.0f), wasm_f32x4_mul(p, power)));
}

void fuse_output(const Fuse *fuse, float *scratch, Share share) {
  i32 begin, end, width = fuse->output.width;
  share_out(share, fuse->output.height, &begin, &end);
  for (i32 y = begin; y < end; y++) {
    float *to = fuse->output.values + y * width;
    const float *from = resize_row(fuse->fused, fuse->output_rows[y], fuse->output_columns, width, scratch);
    for (i32 x = 0; x < width; x += 4) {
      // a last vector that hangs over the edge is moved back: what it does twice comes out the same
      i32 at = width >= 4 ? min_i32(x, width - 4) : 0;
      wasm_v128_store(to + at, sigmoid(wasm_v128_load(from + at)));
    }
  }
}
