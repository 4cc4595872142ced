#include "memory.h"

enum { PAGE = 65536, ALIGN = 64 };

extern u8 __heap_base;
static u64 next;

void memory_reset(void) { next = 0; }

void *allocate(u64 bytes) {
  if (!next) next = ((u64)(u32)&__heap_base + ALIGN - 1) / ALIGN * ALIGN;
  u64 end = next + (bytes + ALIGN - 1) / ALIGN * ALIGN;
  if (bytes >> 32 || end >> 32) return 0;
  u64 pages = (end + PAGE - 1) / PAGE, have = __builtin_wasm_memory_size(0);
  if (pages > have && __builtin_wasm_memory_grow(0, (u32)(pages - have)) == (__SIZE_TYPE__)-1) return 0;
  void *got = (void *)(u32)next;
  next = end;
  return got;
}
