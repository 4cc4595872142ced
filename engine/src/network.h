// The network as `load` makes it of a file and `run` walks through it.
#pragma once
#include "kernels.h"

enum { STACK_BYTES = 65536 };

enum StepKind {
  STEP_STEM,
  STEP_WINOGRAD,
  STEP_DIRECT,
  STEP_POOL,
  STEP_RESIZE,
  STEP_ADD,
  STEP_GATE,
  STEP_SIDE,
  STEP_FUSE,
};

typedef struct {
  enum StepKind kind;
  i32 phases;    // one after the other; the shares of one can be done side by side
  i32 parts;     // shares that each phase is cut into
  View cleared;  // the buffer whose border this step clears, being the first to write there; no origin: none
  union {
    Stem stem;
    Winograd winograd;
    Direct direct;
    struct {
      View input, output;
    } pool;
    struct {
      View input, output;
      Tap *rows, *columns;
    } resize;
    struct {
      View first, second, output;
      float first_scale, second_scale;
    } add;
    Gate gate;
    struct {
      View input;
      Map output;
      const i16 *weights;
      float scale, bias;
      i32 accumulate;
    } side;
    Fuse fuse;
  };
} Step;

typedef struct {
  const u8 *file;
  Step *steps;
  i32 count;
  i32 threads;
  u8 *arena;
  float *input, *output;
  i32 input_height, input_width, output_height, output_width;
  u8 **scratch;  // one piece for each thread
  u8 *stacks;    // of the helping threads
} Network;

/// Check `file` and prepare to run it; on failure a status, and in `*place` the number of the record at fault.
enum Status load(Network *network, u8 *file, u32 bytes, i32 threads, u32 *place);
