#include "checksum.h"

u32 crc32(const u8 *data, u32 bytes) {
  static u32 table[256];
  if (!table[1])
    for (u32 n = 0; n < 256; n++) {
      u32 value = n;
      for (i32 bit = 0; bit < 8; bit++) value = value & 1 ? value >> 1 ^ 0xEDB88320u : value >> 1;
      table[n] = value;
    }
  u32 sum = ~0u;
  for (u32 i = 0; i < bytes; i++) sum = table[(sum ^ data[i]) & 255] ^ sum >> 8;
  return ~sum;
}
