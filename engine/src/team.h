// Work that several threads do together. The calling thread never waits for one that has not begun: a helper that sleeps
// on a busy machine leaves its share to the others.
#pragma once
#include "network.h"

typedef void RunPhase(const Step *step, i32 phase, Share share, u8 *scratch);

/// Do one phase of step `index`, with whatever helpers are awake. Returns 0 where a helper took a share and does not
/// finish it.
i32 team_run(const Network *network, i32 index, i32 phase, RunPhase *run);

#ifdef U2E_THREADS
/// Forget every job, before helpers of a new network come.
void team_reset(void);
void team_help(const Network *network, u8 *scratch, RunPhase *run);
void team_dismiss(void);
#endif
