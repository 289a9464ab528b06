#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "core/kernels/cuda/device_types.h"

namespace chorus::device {

// One thread's part of a wgmma m64nNk16 with float32 sums: d (+)= a b.
struct WgmmaCall {
  float* d;  // [num_columns / 8][4], the thread's fragment
  int num_columns;
  bool is_added;      // to what d holds; otherwise to zero
  const uint32_t* a;  // the thread's four registers; null: a_matrix
  uint64_t a_matrix;  // descriptors, of K-major rows
  uint64_t b_matrix;
  bool is_b_transposed;  // MN-major
  float (*to_float)(uint16_t bits);
};

// The wgmma of one warpgroup that are under way. Until a thread has waited for them its d is NaN,
// its registers a may not change, and nobody may write the matrices in shared memory.
class HostWgmma {
 public:
  // Lanes count in the warpgroup. Each throws HostFault.
  void Fence(int lane) { threads_[lane].is_fenced = true; }
  // As the last thread to come, with the calls of all 128, the first of which is `first_thread`.
  void Issue(std::span<void* const> calls, int first_thread);
  void Commit(int lane) { ++threads_[lane].num_committed; }
  // Until at most num_pending of the newest groups are under way; by thread `thread` of the block.
  void Wait(int lane, int num_pending, int thread);
  // REQUIRES: the thread's d is not under way; faults otherwise.
  void CheckResult(int lane, const float* d) const;
  void CheckEnd() const;

 private:
  struct Accumulator {
    float* d;
    std::vector<float> values;
    int64_t group;  // the last that adds to it
  };
  struct Registers {
    const uint32_t* at;
    std::array<uint32_t, 4> values;
    int64_t group;
  };
  struct Thread {
    bool is_fenced = false;
    int64_t num_committed = 0;
    std::vector<Accumulator> accumulators;
    std::vector<Registers> registers;
  };
  // Pieces of 16 bytes that a call reads.
  struct Flight {
    std::vector<SharedAddress> pieces;
    int64_t group;
    std::array<bool, 4> has_waited{};  // by warp
  };
  using Matrix = std::vector<std::array<float, 16>>;  // rows of A, columns of B

  void CheckCalls(std::span<void* const> calls) const;
  Matrix ReadMatrix(const WgmmaCall& call, uint64_t descriptor, int num_rows, bool is_transposed,
                    int first_thread, Flight& flight) const;
  void Multiply(const WgmmaCall& call, const Matrix& a, const Matrix& b, int lane);
  void EndFlights(int lane, int64_t num_ended, int thread);

  std::array<Thread, kWarpgroupSize> threads_;
  std::vector<Flight> flights_;
};

}  // namespace chorus::device
