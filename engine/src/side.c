// A side map: 3×3 convolution to one channel, uint8 by 16-bit weights, one scale, float32 out. The packer scales the
// weights so that no sum of 32 bits can overflow. Weights: nine taps of the channels, rounded up to 8 with zeros.
#include "kernels.h"

void side_run(View input, Map output, const i16 *weights, float scale, float bias, i32 accumulate, Share share) {
  i32 begin, end, channels = round_up(input.channels, 8);
  share_out(share, output.height, &begin, &end);
  for (i32 y = begin; y < end; y++)
    for (i32 x = 0; x < output.width; x++) {
      const i16 *w = weights;
      v128_t sums = zero();
      for (i32 ky = -1; ky <= 1; ky++)
        for (i32 kx = -1; kx <= 1; kx++) {
          const u8 *from = pixel(input, y + ky, x + kx);
          for (i32 c = 0; c < channels; c += 8, w += 8)
            sums = add_dot(sums, wasm_u16x8_load8x8(from + c), wasm_v128_load(w));
        }
      // modulo 2³², as the lanes are
      u32 sum = (u32)wasm_i32x4_extract_lane(sums, 0) + (u32)wasm_i32x4_extract_lane(sums, 1) +
                (u32)wasm_i32x4_extract_lane(sums, 2) + (u32)wasm_i32x4_extract_lane(sums, 3);
      float value = (float)(i32)sum * scale + bias, *to = output.values + y * output.width + x;
      *to = accumulate ? *to + value : value;
    }
}
