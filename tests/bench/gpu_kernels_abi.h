#pragma once

#include <cstdint>

// The attention kernels as gpu_kernels.py calls them: a C interface of libchorus_kernels_abi.so
// (CUDA) and libchorus_kernels_abi_host.so (simulated thread blocks, slowly and exactly). No
// exceptions; a function that fails returns null or -1, and ChorusLastError says why. Used by one
// thread.
extern "C" {

// Head counts and types of a layer; softmax_scale is 1 / sqrt(head_dim).
struct ChorusShape {
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_dim;
  int32_t is_float16;  // else bfloat16
  int32_t kind;        // of the kernel for rows of segments: an index below ChorusKindCount()
};

// One request's sequence: prefix, segments, suffix, generated rows. The step has its rows from
// first_row on: 0 reads the prompt, length - 1 is a decode step. Keys of rows before are cached.
struct ChorusRequest {
  int32_t prefix_length;
  int32_t num_segments;
  const int32_t* segment_lengths;  // [num_segments]
  int32_t suffix_length;
  int32_t num_generated;
  int32_t first_row;
};

// Host memory of a plan, to be copied to the device as it is.
struct ChorusArray {
  const void* data;
  int64_t num_bytes;
};

enum ChorusArrayName {
  kChorusOwnTiles,
  kChorusOwnSpans,
  kChorusFusedTiles,
  kChorusFusedSpans,
  kChorusSlotTable,
  kChorusNumArrays,
};

// Device memory, at multiples of 16 bytes.
struct ChorusBuffers {
  const void* q;       // [num_rows, num_heads, head_dim]
  const void* k;       // [num_slots, num_kv_heads, head_dim]
  const void* v;       // like k
  void* out;           // like q
  float* log_sum_exp;  // [num_rows, num_heads], natural log
  float* workspace;    // ChorusWorkspaceFloats
  int64_t num_slots;
  const void* arrays[kChorusNumArrays];  // ChorusPlanArray's, copied
};

struct ChorusPlan;

__attribute__((visibility("default"))) int32_t ChorusKindCount();
__attribute__((visibility("default"))) const char* ChorusKindName(int32_t kind);
__attribute__((visibility("default"))) const char* ChorusLastError();

// Plans a step over `requests`, rows and keys in their order; token i of all sequences, laid end
// to end, has its keys in slots[i] (null: slot i).
__attribute__((visibility("default"))) ChorusPlan* ChorusPlanCreate(const ChorusShape* shape,
                                                                    const ChorusRequest* requests,
                                                                    int32_t num_requests,
                                                                    const int32_t* slots);
__attribute__((visibility("default"))) void ChorusPlanDestroy(ChorusPlan* plan);
__attribute__((visibility("default"))) int64_t ChorusPlanRows(const ChorusPlan* plan);
__attribute__((visibility("default"))) int64_t ChorusPlanTokens(const ChorusPlan* plan);
// Pairs (row, key) that the mask allows: 4 * head_dim * num_heads FLOPs each.
__attribute__((visibility("default"))) int64_t ChorusPlanPairs(const ChorusPlan* plan);
__attribute__((visibility("default"))) int64_t ChorusWorkspaceFloats(const ChorusPlan* plan);
__attribute__((visibility("default"))) ChorusArray ChorusPlanArray(const ChorusPlan* plan,
                                                                   int32_t name);

// One layer's attention, started on `stream` (a cudaStream_t) and not waited for; the host back end
// has done it when this returns, and ignores `stream`. 0, or -1.
__attribute__((visibility("default"))) int32_t ChorusAttention(const ChorusPlan* plan,
                                                               const ChorusBuffers* buffers,
                                                               void* stream);
}
