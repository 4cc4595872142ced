// Max-pooling 2×2 with stride 2; an odd last row or column is pooled alone. What it then reads beyond the edge is the
// border of zeros, and no activation is below zero.
#include "kernels.h"

void pool_run(View input, View output, Share share) {
  i32 begin, end, right = input.pixel_bytes, below = input.row_bytes;
  share_out(share, output.height, &begin, &end);
  for (i32 y = begin; y < end; y++)
    for (i32 x = 0; x < output.width; x++) {
      const u8 *from = pixel(input, 2 * y, 2 * x);
      u8 *to = pixel(output, y, x);
      for (i32 c = 0; c < output.channels; c += 16) {
        v128_t upper = wasm_u8x16_max(wasm_v128_load(from + c), wasm_v128_load(from + c + right));
        v128_t lower = wasm_u8x16_max(wasm_v128_load(from + c + below), wasm_v128_load(from + c + below + right));
        store_channels(to + c, wasm_u8x16_max(upper, lower), output.channels - c);
      }
    }
}
