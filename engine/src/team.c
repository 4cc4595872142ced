// One 64-bit word says what there is to do: the number of the job in its upper half, and in its lower half the next share
// of it that nobody has taken. Adding one takes a share and tells, in the same moment, of which job it is: a helper that
// wakes up late cannot mix up two jobs. Numbers of jobs hold the step and the phase; the count of runs above them makes
// them differ from one run to the next.
//
// Nobody spins: helpers sleep on the upper half, and the caller, when no share is left to take, on the count of those
// that are not finished.
#include "team.h"

static void run_alone(const Step *step, i32 phase, u8 *scratch, RunPhase *run) {
  for (i32 part = 0; part < step->parts; part++) run(step, phase, (Share){part, step->parts}, scratch);
}

#ifndef U2E_THREADS

i32 team_run(const Network *network, i32 index, i32 phase, RunPhase *run) {
  run_alone(&network->steps[index], phase, network->scratch[0], run);
  return 1;
}

#else

enum { PHASES = 4 };

static const u32 DISMISSED = ~0u;  // no job has this number: phases end at 2
static const u32 NO_SHARE = 1u << 31;  // more than any job has, and far from overflowing

static const i64 PATIENCE_NANOSECONDS = 5ll * 1000 * 1000 * 1000;

static struct {
  union {
    u64 both;
    struct {
      u32 share;  // little-endian: the lower half
      u32 job;
    };
  } next;
  u32 unfinished;
  u32 runs;
} team;

static u32 job_of(i32 index, i32 phase) {
  return team.runs * (MAX_OPERATORS * PHASES) + (u32)index * PHASES + (u32)phase;
}

/// Take shares of the job at hand until there is none left.
static void take_shares(const Network *network, u8 *scratch, RunPhase *run) {
  for (;;) {
    u64 taken = __atomic_fetch_add(&team.next.both, 1, __ATOMIC_SEQ_CST);
    u32 job = (u32)(taken >> 32) % (MAX_OPERATORS * PHASES), share = (u32)taken;
    const Step *step = &network->steps[job / PHASES];
    if (share >= (u32)step->parts) return;
    run(step, (i32)(job % PHASES), (Share){(i32)share, step->parts}, scratch);
    if (__atomic_sub_fetch(&team.unfinished, 1, __ATOMIC_SEQ_CST) == 0)
      __builtin_wasm_memory_atomic_notify((i32 *)&team.unfinished, 1);
  }
}

i32 team_run(const Network *network, i32 index, i32 phase, RunPhase *run) {
  const Step *step = &network->steps[index];
  if (step->parts == 1 || network->threads == 1) {
    run_alone(step, phase, network->scratch[0], run);
    return 1;
  }
  if (index == 0 && phase == 0) team.runs++;
  __atomic_store_n(&team.unfinished, (u32)step->parts, __ATOMIC_SEQ_CST);
  __atomic_store_n(&team.next.both, (u64)job_of(index, phase) << 32, __ATOMIC_SEQ_CST);
  __builtin_wasm_memory_atomic_notify((i32 *)&team.next.job, (u32)(network->threads - 1));
  take_shares(network, network->scratch[0], run);
  for (;;) {
    u32 left = __atomic_load_n(&team.unfinished, __ATOMIC_SEQ_CST);
    if (left == 0) return 1;
    if (__builtin_wasm_memory_atomic_wait32((i32 *)&team.unfinished, (i32)left, PATIENCE_NANOSECONDS) == 2) return 0;
  }
}

void team_reset(void) { __atomic_store_n(&team.next.both, NO_SHARE, __ATOMIC_SEQ_CST); }

void team_help(const Network *network, u8 *scratch, RunPhase *run) {
  u32 seen = __atomic_load_n(&team.next.job, __ATOMIC_SEQ_CST);
  while (seen != DISMISSED) {
    __builtin_wasm_memory_atomic_wait32((i32 *)&team.next.job, (i32)seen, -1);
    u32 job = __atomic_load_n(&team.next.job, __ATOMIC_SEQ_CST);
    if (job == seen) continue;
    seen = job;
    if (job != DISMISSED) take_shares(network, scratch, run);
  }
}

void team_dismiss(void) {
  __atomic_store_n(&team.next.both, (u64)DISMISSED << 32 | NO_SHARE, __ATOMIC_SEQ_CST);
  __builtin_wasm_memory_atomic_notify((i32 *)&team.next.job, (u32)-1);
}

#endif
