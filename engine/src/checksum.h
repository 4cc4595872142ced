// CRC-32 as in zlib, PNG and Ethernet (polynomial 0xEDB88320, reflected).
#pragma once
#include "lanes.h"

u32 crc32(const u8 *data, u32 bytes);
