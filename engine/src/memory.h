// Memory after the program's own data, handed out from the bottom up and given back all at once.
#pragma once
#include "lanes.h"

/// Give everything back.
void memory_reset(void);

/// `bytes` bytes, aligned to 64; 0 where they cannot be had. Not cleared.
void *allocate(u64 bytes);
