// What an operator works on, and the kernels. Every kernel does one share of the work, `part` of `parts`, so that
// several threads can do the others.
#pragma once
#include "format.h"

/// Some channels of an activation: uint8, channels innermost. Between two rows lies one pixel of zeros, which is the
/// right border of the one and the left border of the other; above and below lies a row of zeros.
typedef struct {
  u8 *origin;  // first channel of pixel (0, 0)
  i32 height, width, channels;
  i32 row_bytes, pixel_bytes;
} View;

/// A float32 map without borders.
typedef struct {
  float *values;
  i32 height, width;
} Map;

typedef struct {
  i32 part, parts;
} Share;

/// Share of `count` things: from `*begin` to before `*end`.
INLINE void share_out(Share share, i32 count, i32 *begin, i32 *end) {
  *begin = (i32)((i64)count * share.part / share.parts);
  *end = (i32)((i64)count * (share.part + 1) / share.parts);
}

INLINE u8 *pixel(View view, i32 y, i32 x) { return view.origin + y * view.row_bytes + x * view.pixel_bytes; }

/// Distances in channels between two tiles (or pixels) of 16-bit numbers that the convolutions have code for: with the
/// distance known to the compiler, one register addresses four of them.
#define WINOGRAD_STRIDES(USE) \
  USE(8) USE(16) USE(32) USE(64) USE(80) USE(128) USE(256) USE(512) USE(1024)
#define DIRECT_STRIDES(USE) USE(32) USE(128) USE(512) USE(1024)

/// Inside a function: return the first of the strides that `channels` fit in.
#define RETURN_IF_FITS(stride) \
  if (channels <= stride) return stride;

// ---- 3×3 convolution by exact integer Winograd (winograd.c) ----

typedef struct {
  View input, output;
  const i16 *weights;  // transformed: 36 components
  const i32 *bias;     // 576 · bias, modulo 2³²
  const float *scale;  // scale / 64
  i32 stride;          // channels between two tiles of the transformed input
} Winograd;

i32 winograd_stride(i32 channels);
u64 winograd_weight_bytes(i32 output_channels, i32 channels);
u64 winograd_scratch_bytes(i32 output_channels, i32 stride);
void winograd_transform_weights(const i8 *weights, i32 output_channels, i32 channels, i16 *transformed);
void winograd_run(const Winograd *convolution, u8 *scratch, Share share);

// ---- 3×3 convolution, product by product, also dilated (direct.c) ----

typedef struct {
  View input, output;
  const i8 *weights;
  const i32 *bias;
  const float *scale;
  i32 dilation;
  i16 *widened;  // the input as 16-bit numbers with its borders, shared by all threads
  i32 stride;    // channels between two pixels of it
} Direct;

i32 direct_stride(i32 channels);
u64 direct_widened_bytes(i32 height, i32 width, i32 stride, i32 dilation);
void direct_widen(const Direct *convolution, Share share);
void direct_run(const Direct *convolution, Share share);

// ---- first convolution (stem.c) ----

typedef struct {
  const float *input;  // 3 planes
  i32 input_height, input_width;
  View output;
  const i16 *weights;
  const float *multiplier, *bias;
  i32 kernel, step, padding;
  float input_scale;
  i32 input_limit;
  i16 *planes;  // the input as 16-bit numbers with its borders, shared by all threads
} Stem;

u64 stem_plane_bytes(i32 height, i32 width, i32 kernel, i32 step, i32 padding);
void stem_widen(const Stem *stem, Share share);
void stem_run(const Stem *stem, Share share);

// ---- the others, one file each ----

void pool_run(View input, View output, Share share);

/// Places between two samples: `left`, the next one, and the weight of the next.
typedef struct {
  i32 left, right;
  float weight;
} Tap;

void resize_taps(i32 source, i32 target, Tap *taps);
void resize_run(View input, View output, const Tap *rows, const Tap *columns, Share share);

void add_run(View first, View second, View output, float first_scale, float second_scale, Share share);

typedef struct {
  View input, output;
  i32 hidden;
  const float *reduce;  // hidden × channels, then hidden biases
  const float *expand;  // channels × hidden, then channel biases
  float mean_scale, output_scale;
  float *mean, *multiplier;  // one per channel
} Gate;

void gate_measure(const Gate *gate, Share share);
void gate_decide(const Gate *gate, float *hidden, Share share);
void gate_run(const Gate *gate, Share share);

void side_run(View input, Map output, const i16 *weights, float scale, float bias, i32 accumulate, Share share);

typedef struct {
  const Map *maps;
  const float *weights;
  const Tap *const *rows, *const *columns;
  i32 count;
  float bias;
  Map fused;
  const Tap *output_rows, *output_columns;
  Map output;
} Fuse;

void fuse_maps(const Fuse *fuse, float *scratch, Share share);
void fuse_output(const Fuse *fuse, float *scratch, Share share);
