// Squeeze and excitation (Hu et al., arXiv 1709.01507) on a skip connection: every channel is multiplied by a number
// that two small dense layers make of the channels' means. Float32 sums run in the order of the channels.
#include "kernels.h"

/// Means of a share of the channels, four at a time. Sums of uint8 over 2048 × 2048 pixels fit 32 bits.
void gate_measure(const Gate *gate, Share share) {
  View input = gate->input;
  i32 begin, end;
  share_out(share, input.channels / 4, &begin, &end);
  for (i32 c = 4 * begin; c < 4 * end; c += 4) {
    v128_t sums = zero();
    for (i32 y = 0; y < input.height; y++)
      for (i32 x = 0; x < input.width; x++) {
        v128_t bytes = wasm_v128_load32_zero(pixel(input, y, x) + c);
        sums = wasm_i32x4_add(sums, wasm_u32x4_extend_low_u16x8(wasm_u16x8_extend_low_u8x16(bytes)));
      }
    wasm_v128_store(gate->mean + c, wasm_f32x4_mul(wasm_f32x4_convert_u32x4(sums), wasm_f32x4_splat(gate->mean_scale)));
  }
}

/// max(0, min(1, x / 6 + 1 / 2)), ONNX's HardSigmoid with the exporter's numbers.
INLINE float hard_sigmoid(float x) {
  float y = x * (1.0f / 6.0f) + 0.5f;
  return y < 0.0f ? 0.0f : y > 1.0f ? 1.0f : y;
}

/// Multipliers of a share of the channels. Every thread computes the hidden layer for itself: it is small.
void gate_decide(const Gate *gate, float *hidden, Share share) {
  i32 channels = gate->input.channels, begin, end;
  for (i32 h = 0; h < gate->hidden; h++) {
    float sum = gate->reduce[gate->hidden * channels + h];
    for (i32 c = 0; c < channels; c++) sum += gate->reduce[h * channels + c] * gate->mean[c];
    hidden[h] = sum < 0.0f ? 0.0f : sum;
  }
  share_out(share, channels, &begin, &end);
  for (i32 c = begin; c < end; c++) {
    float sum = gate->expand[channels * gate->hidden + c];
    for (i32 h = 0; h < gate->hidden; h++) sum += gate->expand[c * gate->hidden + h] * hidden[h];
    gate->multiplier[c] = hard_sigmoid(sum) * gate->output_scale;
  }
}

void gate_run(const Gate *gate, Share share) {
  View input = gate->input, output = gate->output;
  i32 begin, end;
  share_out(share, output.height, &begin, &end);
  for (i32 y = begin; y < end; y++)
    for (i32 x = 0; x < output.width; x++) {
      const u8 *from = pixel(input, y, x);
      u8 *to = pixel(output, y, x);
      for (i32 c = 0; c < output.channels; c += 4) {
        v128_t bytes = wasm_u16x8_extend_low_u8x16(wasm_v128_load32_zero(from + c));
        v128_t value = wasm_f32x4_mul(wasm_f32x4_convert_i32x4(wasm_u32x4_extend_low_u16x8(bytes)),
                                      wasm_v128_load(gate->multiplier + c));
        store_channels(to + c, round_to_u8x16(value, value, value, value), 4);
      }
    }
}
