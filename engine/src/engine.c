// What the host calls; docs/engine.md describes it.
#include "memory.h"
#include "network.h"
#include "team.h"

#define EXPORT(name) __attribute__((export_name(#name)))

enum { MAX_THREADS = 64 };

static Network network;
static u8 *file;
static u32 file_bytes, fault_place;

static void clear_border(View view) {
  u8 *above = pixel(view, -1, -1);
  __builtin_memset(above, 0, (u32)(view.row_bytes + view.pixel_bytes));
  for (i32 y = 0; y < view.height; y++) __builtin_memset(pixel(view, y, view.width), 0, (u32)view.pixel_bytes);
  __builtin_memset(pixel(view, view.height, -1), 0, (u32)(view.row_bytes + view.pixel_bytes));
}

/// One share of one phase of a step; `scratch` is that of the calling thread.
static void run_phase(const Step *step, i32 phase, Share share, u8 *scratch) {
  if (phase == 0 && share.part == 0 && step->cleared.origin) clear_border(step->cleared);
  switch (step->kind) {
    case STEP_STEM:
      (phase ? stem_run : stem_widen)(&step->stem, share);
      break;
    case STEP_WINOGRAD:
      winograd_run(&step->winograd, scratch, share);
      break;
    case STEP_DIRECT:
      (phase ? direct_run : direct_widen)(&step->direct, share);
      break;
    case STEP_POOL:
      pool_run(step->pool.input, step->pool.output, share);
      break;
    case STEP_RESIZE:
      resize_run(step->resize.input, step->resize.output, step->resize.rows, step->resize.columns, share);
      break;
    case STEP_ADD:
      add_run(step->add.first, step->add.second, step->add.output, step->add.first_scale, step->add.second_scale,
              share);
      break;
    case STEP_GATE:
      if (phase == 0) gate_measure(&step->gate, share);
      if (phase == 1) gate_decide(&step->gate, (float *)scratch, share);
      if (phase == 2) gate_run(&step->gate, share);
      break;
    case STEP_SIDE:
      side_run(step->side.input, step->side.output, step->side.weights, step->side.scale, step->side.bias,
               step->side.accumulate, share);
      break;
    case STEP_FUSE:
      (phase ? fuse_output : fuse_maps)(&step->fuse, (float *)scratch, share);
      break;
  }
}

/// Version of the file format that this engine reads.
EXPORT(u2e_version) u32 u2e_version(void) { return FILE_VERSION; }

/// Drop what was loaded and return where a file of `bytes` bytes goes; 0 where the memory cannot be had.
EXPORT(u2e_reserve) u8 *u2e_reserve(u32 bytes) {
  network.count = 0;
  memory_reset();
  file_bytes = bytes;
  return file = allocate(bytes);
}

/// Check the file that lies where `u2e_reserve` said, and prepare to run it with up to `threads` threads. Returns a
/// status, 0 being success.
EXPORT(u2e_load) u32 u2e_load(i32 threads) {
  network.count = 0;
  if (!file) return STATUS_NOT_LOADED;
#ifdef U2E_THREADS
  team_reset();
#else
  threads = 1;
#endif
  enum Status status = load(&network, file, file_bytes, max_i32(1, min_i32(threads, MAX_THREADS)), &fault_place);
  if (status != STATUS_OK) network.count = 0;
  return status;
}

/// The record (buffer or operator) at which `u2e_load` stopped.
EXPORT(u2e_fault_place) u32 u2e_fault_place(void) { return fault_place; }

/// Where the input goes: three planes, red, green and blue, of float32, row by row.
EXPORT(u2e_input) float *u2e_input(void) { return network.input; }
EXPORT(u2e_input_height) i32 u2e_input_height(void) { return network.input_height; }
EXPORT(u2e_input_width) i32 u2e_input_width(void) { return network.input_width; }

/// Where the map comes: float32 in 0 … 1, row by row.
EXPORT(u2e_output) float *u2e_output(void) { return network.output; }
EXPORT(u2e_output_height) i32 u2e_output_height(void) { return network.output_height; }
EXPORT(u2e_output_width) i32 u2e_output_width(void) { return network.output_width; }

/// Steps of the loaded network; one for each operator of the file.
EXPORT(u2e_steps) i32 u2e_steps(void) { return network.count; }

/// Run steps `begin` to before `end`, for measurements and tests.
EXPORT(u2e_run_steps) u32 u2e_run_steps(i32 begin, i32 end) {
  if (!network.count) return STATUS_NOT_LOADED;
  for (i32 i = max_i32(0, begin); i < min_i32(end, network.count); i++)
    for (i32 phase = 0; phase < network.steps[i].phases; phase++)
      if (!team_run(&network, i, phase, run_phase)) {
        network.count = 0;  // the lost helper may still write to it
        return STATUS_HELPER_LOST;
      }
  return STATUS_OK;
}

/// Run the network. Returns a status, 0 being success.
EXPORT(u2e_run) u32 u2e_run(void) { return u2e_run_steps(0, network.count); }

/// How step `index` is computed (`enum StepKind`); −1 where there is none.
EXPORT(u2e_step_kind) i32 u2e_step_kind(i32 index) {
  return index >= 0 && index < network.count ? (i32)network.steps[index].kind : -1;
}

/// Where the arena begins, for tests.
EXPORT(u2e_arena) u8 *u2e_arena(void) { return network.arena; }

#ifdef U2E_THREADS
/// Top of the stack of helper `number` (1 … threads − 1), for its instance's `__stack_pointer`.
EXPORT(u2e_stack) u8 *u2e_stack(i32 number) {
  if (!network.count || number < 1 || number >= network.threads) return 0;
  return network.stacks + (u32)number * STACK_BYTES;
}

/// Help with every run from now on, as helper `number`; returns after `u2e_dismiss`. Not for the browser's main thread.
EXPORT(u2e_help) u32 u2e_help(i32 number) {
  if (!network.count || number < 1 || number >= network.threads) return STATUS_NOT_LOADED;
  team_help(&network, network.scratch[number], run_phase);
  return STATUS_OK;
}

/// Let all helpers return from `u2e_help`.
EXPORT(u2e_dismiss) void u2e_dismiss(void) { team_dismiss(); }
#endif
