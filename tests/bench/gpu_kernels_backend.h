#pragma once

#include <cstdint>
#include <string>

#include "core/kernels/cuda/device_args.h"

// What gpu_kernels_abi.cc needs of the kernels, once with CUDA and once on simulated thread blocks.
namespace chorus::bench {

int32_t NumKinds();
const char* KindName(int32_t kind);

bool Takes(int32_t kind, const AttentionShape& shape);
TileShape OwnTiles(int32_t kind, const AttentionShape& shape);
TileShape FusedTiles(const AttentionShape& shape);
int64_t WorkspaceFloats(const AttentionShape& shape, int32_t num_spans);

// Sizes of what the arguments point to, for the bounds check of the host back end.
struct ArgumentSizes {
  int64_t num_rows = 0;
  int64_t num_slots = 0;
  int64_t num_table_entries = 0;
};

// "" or what went wrong.
std::string Launch(int32_t kind, const DeviceAttentionArgs& args, const ArgumentSizes& sizes,
                   void* stream);

}  // namespace chorus::bench
