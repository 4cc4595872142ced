// The file, as it lies in memory: little-endian 32-bit words. docs/engine.md is the specification.
#pragma once
#include "lanes.h"

enum {
  FILE_MAGIC = 0x31453255,  // "U2E1"
  FILE_VERSION = 1,
  MAX_SIDE = 2048,
  MAX_CHANNELS = 1024,
  MAX_BUFFERS = 1024,
  MAX_OPERATORS = 1024,
  MAX_KERNEL = 16,
  MAX_DILATION = 64,
  ALIGNMENT = 64,
};

typedef struct {
  u32 magic, version;
  u32 file_bytes;
  u32 checksum;  // CRC-32 of everything after this word
  u32 input_height, input_width;
  u32 output_height, output_width;
  u32 buffers, operators;
  u32 arena_bytes;
  u32 constants;  // where the constants begin, from the start of the file
  u32 reserved[4];
} FileHeader;

enum { BUFFER_ACTIVATION = 0, BUFFER_MAP = 1 };

typedef struct {
  u32 type;
  u32 offset;  // into the arena
  u32 height, width, channels;
} BufferRecord;

enum OperatorKind {
  OPERATOR_STEM = 1,
  OPERATOR_CONVOLUTION = 2,
  OPERATOR_POOL = 3,
  OPERATOR_RESIZE = 4,
  OPERATOR_ADD = 5,
  OPERATOR_GATE = 6,
  OPERATOR_SIDE = 7,
  OPERATOR_FUSE = 8,
};

/// Channels `first` … `first + channels − 1` of a buffer.
typedef struct {
  u32 buffer, first, channels;
} Slice;

typedef struct {
  u32 kind;
  Slice output, input, second;
  u32 constants[3];  // offsets into the constants; their meaning depends on the kind
  u32 integers[4];
  float floats[2];
} OperatorRecord;

_Static_assert(sizeof(FileHeader) == 64 && sizeof(BufferRecord) == 20 && sizeof(OperatorRecord) == 76, "the format");

enum Status {
  STATUS_OK = 0,
  STATUS_FOREIGN = 1,        // not a file of this engine
  STATUS_VERSION = 2,        // of another version
  STATUS_TRUNCATED = 3,      // shorter or longer than it says
  STATUS_CHECKSUM = 4,       // damaged
  STATUS_MALFORMED = 5,      // a field outside of what the specification allows
  STATUS_MEMORY = 6,         // the memory that it needs cannot be had
  STATUS_NOT_LOADED = 7,     // nothing to run
  STATUS_HELPER_LOST = 8,    // a helping thread took work and did not finish it
};
