#pragma once

#include <cstdint>
#include <string>

namespace chorus {

// Bytes of memory that this process can still take without swapping: what the kernel calls
// available, and no more than its control group's limit leaves (version 2 or 1, as containers see
// it). 0 if nothing can be read. `root` stands before /proc and /sys: "" but in tests.
int64_t FreeMemoryBytes(const std::string& root = "");

// Memory for keys and values of one worker when it is not set: half of `free_bytes` over all
// workers, and 64 MiB at least.
int64_t DefaultKvCacheBytes(int64_t free_bytes, int32_t num_workers);

// The same on a GPU of which `free_bytes` are free beside the weights, and which serves nothing
// else: nine tenths over all workers. The last tenth is for the buffers of a step, recorded graphs
// and what CUDA and torch take.
int64_t DefaultDeviceKvCacheBytes(int64_t free_bytes, int32_t num_workers);

}  // namespace chorus
