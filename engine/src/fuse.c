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

/// fused = bias + Σ weight · map, the maps in their order, each resized bilinearly, rows first.
void fuse_maps(const Fuse *fuse, float *scratch, Share share) {
  i32 begin, end, width = fuse->fused.width;
  share_out(share, fuse->fused.height, &begin, &end);
  for (i32 y = begin; y < end; y++) {
    float *to = fuse->fused.values + y * width;
    for (i32 x = 0; x < width; x++) to[x] = fuse->bias;
    for (i32 m = 0; m < fuse->count; m++) {
      const Tap *columns = fuse->columns[m];
      float weight = fuse->weights[m];
      blend_rows(fuse->maps[m], fuse->rows[m][y], scratch);
      for (i32 x = 0; x < width; x++)
        to[x] += weight * blend(scratch[columns[x].left], scratch[columns[x].right], columns[x].weight);
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
  const Tap *columns = fuse->output_columns;
  share_out(share, fuse->output.height, &begin, &end);
  for (i32 y = begin; y < end; y++) {
    float *to = fuse->output.values + y * width;
    blend_rows(fuse->fused, fuse->output_rows[y], scratch);
    for (i32 x = 0; x < width; x += 4) {
      float four[4] = {0};
      i32 count = min_i32(4, width - x);
      for (i32 i = 0; i < count; i++)
        four[i] = blend(scratch[columns[x + i].left], scratch[columns[x + i].right], columns[x + i].weight);
      wasm_v128_store(four, sigmoid(wasm_v128_load(four)));
      __builtin_memcpy(to + x, four, (u32)count * sizeof(float));
    }
  }
}
