// From a file, which is not trusted, to a network that can run without a further check.
//
// Everything that a kernel will touch follows from records that are checked here: buffers lie inside the arena, slices
// inside their buffers, constants inside the file, shapes agree, an operator reads only what an earlier one wrote, and
// no two buffers that are needed at the same time share memory. A file that passes can give a wrong mask; it cannot
// make a kernel leave its memory.
#include "checksum.h"
#include "memory.h"
#include "network.h"

// Small before fast: all of this runs once for a model.
#pragma clang attribute push(__attribute__((minsize)), apply_to = function)

enum {
  MAX_FUSED_MAPS = 16,
  MAX_HIDDEN = 1024,
  MAX_STEP = 8,
  WINOGRAD_BOUND = 1 << 25,
};

/// A share of the work takes some 30 microseconds at least: several times what waking a thread takes.
static const u64 LEAST_SHARE = 3 * 1000 * 1000;
/// Shares for each thread, so that one that was interrupted holds up little.
static const u64 SHARES_PER_THREAD = 4;
/// Shares at least, with one thread too: browsers begin with code that was compiled in haste, and take the better one, once
/// they have it, where a function is called again.
static const u64 LEAST_SHARES = 16;

/// Multiplications of one run: 1.5 times those of the largest U²-Net at 1024 × 1024.
static const u64 MAX_PRODUCTS = 600ull * 1000 * 1000 * 1000;

typedef struct {
  const FileHeader *header;
  const BufferRecord *buffers;
  const OperatorRecord *operators;
  const u8 *constants;
  u64 constant_bytes;
  u8 *arena;
  Network *network;
  u64 products;
  u64 work;           // of the operator being loaded, in products of the fastest kernel
  u64 scratch_bytes;  // of one thread
} Loader;

// ---- buffers ---------------------------------------------------------------------------------------------------------

static u64 buffer_bytes(const BufferRecord *buffer) {
  if (buffer->type == BUFFER_MAP) return (u64)buffer->height * buffer->width * sizeof(float);
  // rows with a border above and below, one pixel of border before each, and one after the last
  return (((u64)buffer->height + 2) * ((u64)buffer->width + 1) + 1) * buffer->channels;
}

static i32 buffer_is_valid(const BufferRecord *buffer) {
  if (buffer->type > BUFFER_MAP || buffer->offset % ALIGNMENT) return 0;
  if (buffer->height < 1 || buffer->height > MAX_SIDE || buffer->width < 1 || buffer->width > MAX_SIDE) return 0;
  if (buffer->type == BUFFER_MAP) return buffer->channels == 1;
  return buffer->channels % 4 == 0 && buffer->channels >= 4 && buffer->channels <= MAX_CHANNELS;
}

/// How far behind the arena a kernel may read: a tile that hangs over the lower edge reads three rows too many, and
/// sixteen channels may be read where four are meant.
static u64 overhang(const Loader *loader) {
  u64 most = 0;
  for (u32 i = 0; i < loader->header->buffers; i++) {
    const BufferRecord *buffer = &loader->buffers[i];
    u64 row = buffer->type == BUFFER_MAP ? 0 : ((u64)buffer->width + 1) * buffer->channels;
    if (row > most) most = row;
  }
  return 4 * most + 8 * MAX_CHANNELS;
}

static i32 slice_is_valid(const Loader *loader, Slice slice, u32 type) {
  if (slice.buffer >= loader->header->buffers) return 0;
  const BufferRecord *buffer = &loader->buffers[slice.buffer];
  if (buffer->type != type || slice.channels < 1 || slice.first >= buffer->channels) return 0;
  if (slice.channels > buffer->channels - slice.first) return 0;
  return type == BUFFER_MAP || (slice.first % 4 == 0 && slice.channels % 4 == 0);
}

static View view_of(const Loader *loader, Slice slice) {
  const BufferRecord *buffer = &loader->buffers[slice.buffer];
  i32 pixel_bytes = (i32)buffer->channels, row_bytes = ((i32)buffer->width + 1) * pixel_bytes;
  u8 *origin = loader->arena + buffer->offset + row_bytes + pixel_bytes + slice.first;
  return (View){origin, (i32)buffer->height, (i32)buffer->width, (i32)slice.channels, row_bytes, pixel_bytes};
}

static Map map_of(const Loader *loader, u32 index) {
  const BufferRecord *buffer = &loader->buffers[index];
  return (Map){(float *)(loader->arena + buffer->offset), (i32)buffer->height, (i32)buffer->width};
}

/// `count` constants of `size` bytes each at `offset`; 0 where they do not lie inside the file.
static const void *constant(const Loader *loader, u32 offset, u64 count, u32 size) {
  if (offset % 4 || offset > loader->constant_bytes || count * size > loader->constant_bytes - offset) return 0;
  return loader->constants + offset;
}

// ---- the plan --------------------------------------------------------------------------------------------------------

static i32 same_place(Slice a, Slice b) {
  return a.buffer == b.buffer && a.first < b.first + b.channels && b.first < a.first + a.channels;
}

/// Slices that an operator reads, up to `MAX_FUSED_MAPS`; those of a fusion lie in the constants.
static i32 inputs_of(const Loader *loader, const OperatorRecord *record, Slice *slices) {
  switch (record->kind) {
    case OPERATOR_STEM:
      return 0;
    case OPERATOR_ADD:
      slices[0] = record->input, slices[1] = record->second;
      return 2;
    case OPERATOR_SIDE:
      slices[0] = record->input, slices[1] = record->output;  // it may add to what is there
      return record->integers[0] ? 2 : 1;
    case OPERATOR_FUSE: {
      u32 count = min_i32((i32)(record->integers[0] & 0xff), MAX_FUSED_MAPS);
      const u32 *maps = constant(loader, record->constants[0], count, sizeof(u32));
      if (!maps) return 0;
      for (u32 i = 0; i < count; i++) slices[i] = (Slice){maps[i], 0, 1};
      return (i32)count;
    }
    default:
      slices[0] = record->input;
      return 1;
  }
}

/// Whether every channel of `slice` has been written before operator `before`.
static i32 is_written(const Loader *loader, Slice slice, u32 before) {
  u32 next = slice.first, end = slice.first + slice.channels;
  while (next < end) {
    u32 reach = next;
    for (u32 i = 0; i < before; i++) {
      Slice output = loader->operators[i].output;
      if (output.buffer == slice.buffer && output.first <= next && output.first + output.channels > reach)
        reach = output.first + output.channels;
    }
    if (reach == next) return 0;
    next = reach;
  }
  return 1;
}

/// Operators read what was written, do not write where they read, every buffer is used, and buffers needed at one time
/// do not overlap.
static enum Status check_plan(const Loader *loader, u32 *place) {
  u32 buffers = loader->header->buffers, operators = loader->header->operators;
  u32 *first = allocate(buffers * sizeof(u32)), *last = allocate(buffers * sizeof(u32));
  if (!first || !last) return STATUS_MEMORY;
  for (u32 i = 0; i < buffers; i++) first[i] = ~0u, last[i] = 0;
  for (u32 i = 0; i < operators; i++) {
    const OperatorRecord *record = &loader->operators[i];
    Slice inputs[MAX_FUSED_MAPS];
    i32 count = inputs_of(loader, record, inputs);
    *place = i;
    if (record->output.buffer >= buffers) return STATUS_MALFORMED;
    for (i32 k = 0; k < count; k++) {
      i32 accumulates = record->kind == OPERATOR_SIDE && k == 1;
      if (inputs[k].buffer >= buffers || !is_written(loader, inputs[k], i)) return STATUS_MALFORMED;
      if (!accumulates && same_place(inputs[k], record->output)) return STATUS_MALFORMED;
      last[inputs[k].buffer] = i;
    }
    if (first[record->output.buffer] == ~0u) first[record->output.buffer] = i;
    last[record->output.buffer] = i;
  }
  for (u32 a = 0; a < buffers; a++) {
    *place = a;
    if (first[a] == ~0u) return STATUS_MALFORMED;
    for (u32 b = a + 1; b < buffers; b++) {
      if (first[b] == ~0u || last[a] < first[b] || last[b] < first[a]) continue;
      u64 start_a = loader->buffers[a].offset, start_b = loader->buffers[b].offset;
      if (start_a < start_b + buffer_bytes(&loader->buffers[b]) && start_b < start_a + buffer_bytes(&loader->buffers[a]))
        return STATUS_MALFORMED;
    }
  }
  return STATUS_OK;
}

// ---- operators -------------------------------------------------------------------------------------------------------

static void need_scratch(Loader *loader, u64 bytes) {
  if (bytes > loader->scratch_bytes) loader->scratch_bytes = bytes;
}

static i32 same_shape(View a, View b) {
  return a.height == b.height && a.width == b.width && a.channels == b.channels;
}

/// Count `products`, each of which takes `cost` times the time of one in the Winograd kernel.
static void count_products(Loader *loader, u64 products, u64 cost) {
  loader->products += products;
  loader->work += products * cost;
}

static u64 pixels(View view) { return (u64)view.height * (u64)view.width; }

static enum Status load_stem(Loader *loader, const OperatorRecord *record, Step *step) {
  if (!slice_is_valid(loader, record->output, BUFFER_ACTIVATION)) return STATUS_MALFORMED;
  View output = view_of(loader, record->output);
  const FileHeader *header = loader->header;
  u32 kernel = record->integers[0], stride = record->integers[1], padding = record->integers[2];
  if (kernel < 1 || kernel > MAX_KERNEL || stride < 1 || stride > MAX_STEP || padding > MAX_KERNEL)
    return STATUS_MALFORMED;
  if (header->input_height + 2 * padding < kernel || header->input_width + 2 * padding < kernel)
    return STATUS_MALFORMED;
  if ((header->input_height + 2 * padding - kernel) / stride + 1 != (u32)output.height ||
      (header->input_width + 2 * padding - kernel) / stride + 1 != (u32)output.width)
    return STATUS_MALFORMED;
  if (record->integers[3] < 1 || record->integers[3] > 32767) return STATUS_MALFORMED;
  u32 channels = (u32)round_up(output.channels, 16);
  u64 taps = 3 * kernel * ((kernel + 1) / 2 * 2);
  Stem stem = {
      .input = loader->network->input,
      .input_height = (i32)header->input_height,
      .input_width = (i32)header->input_width,
      .output = output,
      .weights = constant(loader, record->constants[0], taps * channels, sizeof(i16)),
      .multiplier = constant(loader, record->constants[1], channels, sizeof(float)),
      .bias = constant(loader, record->constants[2], channels, sizeof(float)),
      .kernel = (i32)kernel,
      .step = (i32)stride,
      .padding = (i32)padding,
      .input_scale = record->floats[0],
      .input_limit = (i32)record->integers[3],
  };
  if (!stem.weights || !stem.multiplier || !stem.bias) return STATUS_MALFORMED;
  stem.planes = allocate(stem_plane_bytes(stem.input_height, stem.input_width, stem.kernel, stem.step, stem.padding));
  if (!stem.planes) return STATUS_MEMORY;
  count_products(loader, taps * (u64)output.channels * pixels(output), 2);
  step->kind = STEP_STEM, step->phases = 2, step->stem = stem;
  return STATUS_OK;
}

/// The largest |convolution + bias| that any input can give, over all output channels.
static u64 largest_sum(const i8 *weights, const i32 *bias, i32 output_channels, i32 channels) {
  const v128_t none = zero(), ones = wasm_i16x8_const_splat(1);
  u64 most = 0;
  for (i32 o = 0; o < output_channels; o += 4) {
    i32 block = min_i32(8, output_channels - o / 8 * 8);
    const i8 *w = weights + 9 * (o / 8 * 8) * channels + o % 8 * 2;
    v128_t positive = none, negative = none;  // of four output channels
    for (i32 n = 0; n < 9 * channels / 2; n++, w += 2 * block) {
      v128_t pairs = wasm_i16x8_load8x8(w);
      positive = wasm_i32x4_add(positive, wasm_i32x4_dot_i16x8(wasm_i16x8_max(pairs, none), ones));
      negative = wasm_i32x4_add(negative, wasm_i32x4_dot_i16x8(wasm_i16x8_min(pairs, none), ones));
    }
    i32 sums[2][4];
    wasm_v128_store(sums[0], positive), wasm_v128_store(sums[1], negative);
    for (i32 i = 0; i < 4; i++) {
      i64 high = 255 * (i64)sums[0][i] + bias[o + i], low = 255 * (i64)sums[1][i] + bias[o + i];
      if (high > 0 && (u64)high > most) most = (u64)high;
      if (low < 0 && (u64)-low > most) most = (u64)-low;
    }
  }
  return most;
}

/// Whether the Winograd kernel pays: enough tiles for what its weights take, and sums that it can hold.
static i32 suits_winograd(const OperatorRecord *record, View input, View output, const i8 *weights, const i32 *bias) {
  if (record->integers[0] != 1) return 0;
  i32 tiles = ((output.height + 3) / 4) * ((output.width + 3) / 4);
  if (tiles < 64 && winograd_weight_bytes(output.channels, input.channels) > 1 << 19) return 0;
  return largest_sum(weights, bias, output.channels, input.channels) < WINOGRAD_BOUND;
}

static enum Status load_convolution(Loader *loader, const OperatorRecord *record, Step *step) {
  if (!slice_is_valid(loader, record->output, BUFFER_ACTIVATION)) return STATUS_MALFORMED;
  if (!slice_is_valid(loader, record->input, BUFFER_ACTIVATION)) return STATUS_MALFORMED;
  View input = view_of(loader, record->input), output = view_of(loader, record->output);
  if (input.height != output.height || input.width != output.width) return STATUS_MALFORMED;
  if (record->integers[0] < 1 || record->integers[0] > MAX_DILATION) return STATUS_MALFORMED;
  u64 channels = (u64)output.channels;
  const i8 *weights = constant(loader, record->constants[0], 9 * channels * (u64)input.channels, 1);
  const i32 *bias = constant(loader, record->constants[1], channels, sizeof(i32));
  const float *scale = constant(loader, record->constants[2], channels, sizeof(float));
  if (!weights || !bias || !scale) return STATUS_MALFORMED;
  count_products(loader, 9 * channels * (u64)input.channels * pixels(output), record->integers[0] == 1 ? 1 : 2);
  if (suits_winograd(record, input, output, weights, bias)) {
    i16 *transformed = allocate(winograd_weight_bytes(output.channels, input.channels));
    i32 *scaled_bias = allocate(channels * sizeof(i32));
    float *scaled_scale = allocate(channels * sizeof(float));
    if (!transformed || !scaled_bias || !scaled_scale) return STATUS_MEMORY;
    winograd_transform_weights(weights, output.channels, input.channels, transformed);
    for (i32 o = 0; o < output.channels; o++) {
      scaled_bias[o] = (i32)(576u * (u32)bias[o]);
      scaled_scale[o] = scale[o] * 0.015625f;
    }
    i32 stride = winograd_stride(input.channels);
    need_scratch(loader, winograd_scratch_bytes(output.channels, stride));
    step->kind = STEP_WINOGRAD, step->phases = 1;
    step->winograd = (Winograd){input, output, transformed, scaled_bias, scaled_scale, stride};
    return STATUS_OK;
  }
  i32 stride = direct_stride(input.channels);
  i16 *widened = allocate(direct_widened_bytes(input.height, input.width, stride, (i32)record->integers[0]));
  if (!widened) return STATUS_MEMORY;
  step->kind = STEP_DIRECT, step->phases = 2;
  step->direct = (Direct){input, output, weights, bias, scale, (i32)record->integers[0], widened, stride};
  return STATUS_OK;
}

static enum Status load_pool(Loader *loader, const OperatorRecord *record, Step *step) {
  if (!slice_is_valid(loader, record->output, BUFFER_ACTIVATION)) return STATUS_MALFORMED;
  if (!slice_is_valid(loader, record->input, BUFFER_ACTIVATION)) return STATUS_MALFORMED;
  View input = view_of(loader, record->input), output = view_of(loader, record->output);
  if ((input.height + 1) / 2 != output.height || (input.width + 1) / 2 != output.width) return STATUS_MALFORMED;
  if (input.channels != output.channels) return STATUS_MALFORMED;
  loader->work += 8 * pixels(output) * (u64)output.channels;
  step->kind = STEP_POOL, step->phases = 1;
  step->pool.input = input, step->pool.output = output;
  return STATUS_OK;
}

static Tap *taps_for(i32 source, i32 target) {
  Tap *taps = allocate((u64)target * sizeof(Tap));
  if (taps) resize_taps(source, target, taps);
  return taps;
}

static enum Status load_resize(Loader *loader, const OperatorRecord *record, Step *step) {
  if (!slice_is_valid(loader, record->output, BUFFER_ACTIVATION)) return STATUS_MALFORMED;
  if (!slice_is_valid(loader, record->input, BUFFER_ACTIVATION)) return STATUS_MALFORMED;
  View input = view_of(loader, record->input), output = view_of(loader, record->output);
  if (input.channels != output.channels) return STATUS_MALFORMED;
  loader->work += 8 * pixels(output) * (u64)output.channels;
  step->kind = STEP_RESIZE, step->phases = 1;
  step->resize.input = input, step->resize.output = output;
  step->resize.rows = taps_for(input.height, output.height);
  step->resize.columns = taps_for(input.width, output.width);
  return step->resize.rows && step->resize.columns ? STATUS_OK : STATUS_MEMORY;
}

static enum Status load_add(Loader *loader, const OperatorRecord *record, Step *step) {
  if (!slice_is_valid(loader, record->output, BUFFER_ACTIVATION)) return STATUS_MALFORMED;
  if (!slice_is_valid(loader, record->input, BUFFER_ACTIVATION)) return STATUS_MALFORMED;
  if (!slice_is_valid(loader, record->second, BUFFER_ACTIVATION)) return STATUS_MALFORMED;
  View first = view_of(loader, record->input), second = view_of(loader, record->second);
  View output = view_of(loader, record->output);
  if (!same_shape(first, output) || !same_shape(second, output)) return STATUS_MALFORMED;
  loader->work += 8 * pixels(output) * (u64)output.channels;
  step->kind = STEP_ADD, step->phases = 1;
  step->add.first = first, step->add.second = second, step->add.output = output;
  step->add.first_scale = record->floats[0], step->add.second_scale = record->floats[1];
  return STATUS_OK;
}

static enum Status load_gate(Loader *loader, const OperatorRecord *record, Step *step) {
  if (!slice_is_valid(loader, record->output, BUFFER_ACTIVATION)) return STATUS_MALFORMED;
  if (!slice_is_valid(loader, record->input, BUFFER_ACTIVATION)) return STATUS_MALFORMED;
  View input = view_of(loader, record->input), output = view_of(loader, record->output);
  u32 hidden = record->integers[0];
  if (!same_shape(input, output) || hidden < 1 || hidden > MAX_HIDDEN) return STATUS_MALFORMED;
  u64 channels = (u64)input.channels;
  Gate gate = {
      .input = input,
      .output = output,
      .hidden = (i32)hidden,
      .reduce = constant(loader, record->constants[0], hidden * (channels + 1), sizeof(float)),
      .expand = constant(loader, record->constants[1], channels * (hidden + 1), sizeof(float)),
      .mean_scale = record->floats[0],
      .output_scale = record->floats[1],
      .mean = allocate(channels * sizeof(float)),
      .multiplier = allocate(channels * sizeof(float)),
  };
  if (!gate.reduce || !gate.expand) return STATUS_MALFORMED;
  if (!gate.mean || !gate.multiplier) return STATUS_MEMORY;
  need_scratch(loader, hidden * sizeof(float));
  loader->work += 16 * pixels(output) * channels;
  step->kind = STEP_GATE, step->phases = 3, step->gate = gate;
  return STATUS_OK;
}

static enum Status load_side(Loader *loader, const OperatorRecord *record, Step *step) {
  if (!slice_is_valid(loader, record->output, BUFFER_MAP)) return STATUS_MALFORMED;
  if (!slice_is_valid(loader, record->input, BUFFER_ACTIVATION)) return STATUS_MALFORMED;
  View input = view_of(loader, record->input);
  Map output = map_of(loader, record->output.buffer);
  if (input.height != output.height || input.width != output.width || record->integers[0] > 1) return STATUS_MALFORMED;
  u64 channels = (u64)round_up(input.channels, 8);
  const i16 *weights = constant(loader, record->constants[0], 9 * channels, sizeof(i16));
  if (!weights) return STATUS_MALFORMED;
  count_products(loader, 9 * channels * pixels(input), 4);
  step->kind = STEP_SIDE, step->phases = 1;
  step->side.input = input, step->side.output = output, step->side.weights = weights;
  step->side.scale = record->floats[0], step->side.bias = record->floats[1];
  step->side.accumulate = (i32)record->integers[0];
  return STATUS_OK;
}

static enum Status load_fuse(Loader *loader, const OperatorRecord *record, Step *step) {
  if (!slice_is_valid(loader, record->output, BUFFER_MAP)) return STATUS_MALFORMED;
  u32 count = record->integers[0];
  if (count < 1 || count > MAX_FUSED_MAPS) return STATUS_MALFORMED;
  const u32 *indices = constant(loader, record->constants[0], count, sizeof(u32));
  const float *weights = constant(loader, record->constants[1], count, sizeof(float));
  if (!indices || !weights) return STATUS_MALFORMED;
  Map *maps = allocate(count * sizeof(Map));
  const Tap **rows = allocate(count * sizeof(Tap *)), **columns = allocate(count * sizeof(Tap *));
  if (!maps || !rows || !columns) return STATUS_MEMORY;
  const Network *network = loader->network;
  Map fused = map_of(loader, record->output.buffer);
  i32 widest = max_i32(fused.width, network->output_width);
  for (u32 i = 0; i < count; i++) {
    if (!slice_is_valid(loader, (Slice){indices[i], 0, 1}, BUFFER_MAP)) return STATUS_MALFORMED;
    maps[i] = map_of(loader, indices[i]);
    rows[i] = taps_for(maps[i].height, fused.height), columns[i] = taps_for(maps[i].width, fused.width);
    if (!rows[i] || !columns[i]) return STATUS_MEMORY;
    widest = max_i32(widest, maps[i].width);
  }
  need_scratch(loader, (2 * (u64)widest + 16) * sizeof(float));  // a row before and after it is resized
  loader->work += 100 * (u64)fused.height * (u64)fused.width * count;
  step->kind = STEP_FUSE, step->phases = 2;
  step->fuse = (Fuse){
      .maps = maps,
      .weights = weights,
      .rows = rows,
      .columns = columns,
      .count = (i32)count,
      .bias = record->floats[0],
      .fused = fused,
      .output_rows = taps_for(fused.height, network->output_height),
      .output_columns = taps_for(fused.width, network->output_width),
      .output = {network->output, network->output_height, network->output_width},
  };
  return step->fuse.output_rows && step->fuse.output_columns ? STATUS_OK : STATUS_MEMORY;
}

static enum Status load_operator(Loader *loader, u32 index, Step *step) {
  const OperatorRecord *record = &loader->operators[index];
  i32 is_last = index + 1 == loader->header->operators;
  if ((record->kind == OPERATOR_FUSE) != is_last) return STATUS_MALFORMED;
  switch (record->kind) {
    case OPERATOR_STEM:
      return load_stem(loader, record, step);
    case OPERATOR_CONVOLUTION:
      return load_convolution(loader, record, step);
    case OPERATOR_POOL:
      return load_pool(loader, record, step);
    case OPERATOR_RESIZE:
      return load_resize(loader, record, step);
    case OPERATOR_ADD:
      return load_add(loader, record, step);
    case OPERATOR_GATE:
      return load_gate(loader, record, step);
    case OPERATOR_SIDE:
      return load_side(loader, record, step);
    case OPERATOR_FUSE:
      return load_fuse(loader, record, step);
    default:
      return STATUS_MALFORMED;
  }
}

/// The first operator that writes to a buffer clears its border: the memory may have held something else before.
static void clear_at_first_write(const Loader *loader, u32 index, Step *step) {
  Slice output = loader->operators[index].output;
  const BufferRecord *buffer = &loader->buffers[output.buffer];
  step->cleared = (View){0};
  if (buffer->type == BUFFER_MAP) return;
  for (u32 i = 0; i < index; i++)
    if (loader->operators[i].output.buffer == output.buffer) return;
  step->cleared = view_of(loader, (Slice){output.buffer, 0, buffer->channels});
}

// ---- the file --------------------------------------------------------------------------------------------------------

static enum Status check_header(const u8 *file, u32 bytes) {
  const FileHeader *header = (const FileHeader *)file;
  if (bytes < 2 * sizeof(u32) || header->magic != FILE_MAGIC) return STATUS_FOREIGN;
  if (header->version != FILE_VERSION) return STATUS_VERSION;
  if (bytes < sizeof(FileHeader) || header->file_bytes != bytes) return STATUS_TRUNCATED;
  if (crc32(file + 16, bytes - 16) != header->checksum) return STATUS_CHECKSUM;
  if (header->input_height < 1 || header->input_height > MAX_SIDE || header->input_width < 1 ||
      header->input_width > MAX_SIDE || header->output_height < 1 || header->output_height > MAX_SIDE ||
      header->output_width < 1 || header->output_width > MAX_SIDE)
    return STATUS_MALFORMED;
  if (header->buffers < 1 || header->buffers > MAX_BUFFERS) return STATUS_MALFORMED;
  if (header->operators < 1 || header->operators > MAX_OPERATORS) return STATUS_MALFORMED;
  u32 records = sizeof(FileHeader) + header->buffers * (u32)sizeof(BufferRecord) +
                header->operators * (u32)sizeof(OperatorRecord);
  if (header->constants < records || header->constants > bytes || header->constants % 4) return STATUS_MALFORMED;
  for (i32 i = 0; i < 4; i++)
    if (header->reserved[i]) return STATUS_MALFORMED;
  return STATUS_OK;
}

enum Status load(Network *network, u8 *file, u32 bytes, i32 threads, u32 *place) {
  enum Status status = check_header(file, bytes);
  *place = 0;
  if (status != STATUS_OK) return status;
  const FileHeader *header = (const FileHeader *)file;
  *network = (Network){
      .file = file,
      .threads = threads,
      .input_height = (i32)header->input_height,
      .input_width = (i32)header->input_width,
      .output_height = (i32)header->output_height,
      .output_width = (i32)header->output_width,
  };
  Loader loader = {
      .header = header,
      .buffers = (const BufferRecord *)(file + sizeof(FileHeader)),
      .operators =
          (const OperatorRecord *)(file + sizeof(FileHeader) + header->buffers * (u32)sizeof(BufferRecord)),
      .constants = file + header->constants,
      .constant_bytes = bytes - header->constants,
      .network = network,
  };
  u64 arena_bytes = 0;
  for (u32 i = 0; i < header->buffers; i++) {
    *place = i;
    if (!buffer_is_valid(&loader.buffers[i])) return STATUS_MALFORMED;
    u64 end = loader.buffers[i].offset + (buffer_bytes(&loader.buffers[i]) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (end > arena_bytes) arena_bytes = end;
  }
  if (arena_bytes != header->arena_bytes) return STATUS_MALFORMED;
  status = check_plan(&loader, place);
  if (status != STATUS_OK) return status;

  u32 input_pixels = header->input_height * header->input_width;
  u32 output_pixels = header->output_height * header->output_width;
  *place = 0;
  loader.arena = network->arena = allocate(header->arena_bytes + overhang(&loader));
  network->input = allocate(3ull * input_pixels * sizeof(float));
  network->output = allocate((u64)output_pixels * sizeof(float));
  network->steps = allocate(header->operators * sizeof(Step));
  network->scratch = allocate((u64)threads * sizeof(u8 *));
  if (!loader.arena || !network->input || !network->output || !network->steps || !network->scratch)
    return STATUS_MEMORY;
  for (u32 i = 0; i < header->operators; i++) {
    *place = i;
    loader.work = 0;
    status = load_operator(&loader, i, &network->steps[i]);
    if (status == STATUS_OK && loader.products > MAX_PRODUCTS) status = STATUS_MALFORMED;
    if (status != STATUS_OK) return status;
    clear_at_first_write(&loader, i, &network->steps[i]);
    u64 most = SHARES_PER_THREAD * (u64)threads, parts = loader.work / LEAST_SHARE;
    if (most < LEAST_SHARES) most = LEAST_SHARES;
    network->steps[i].parts = (i32)(parts < 1 ? 1 : parts > most ? most : parts);
  }
  for (i32 t = 0; t < threads; t++)
    if (!(network->scratch[t] = allocate(loader.scratch_bytes))) return STATUS_MEMORY;
  if (threads > 1 && !(network->stacks = allocate((u64)threads * STACK_BYTES))) return STATUS_MEMORY;
  network->count = (i32)header->operators;
  return STATUS_OK;
}

#pragma clang attribute pop
