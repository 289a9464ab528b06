#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/kernels/cuda/device_types.h"
#include "core/kernels/cuda/host_clocks.h"

namespace chorus::device {

// What was wrong; thrown out of a simulated thread.
struct HostFault {
  std::string message;
};

// Shared memory of one simulated block, and who touched which word of it when. An access faults
// unless what it depends on happened before it by `clocks`: reads after the write, writes after
// the write and all reads. Addresses count from the block's shared memory; each call throws
// HostFault.
class HostSharedMemory {
 public:
  // `clocks` outlives this.
  HostSharedMemory(int32_t size, const HostClocks& clocks);

  void Read(SharedAddress from, void* to, int32_t size, int thread);
  void Write(SharedAddress to, const void* from, int32_t size, int thread);
  // Adds to an integer of `size` bytes, 4 or 8, and returns what it was. From the barrier before to
  // the one after only Add may touch it.
  uint64_t Add(SharedAddress to, uint64_t value, int32_t size);

  // A copy that `thread` starts and `agent` writes: until EndCopy nobody may touch the target,
  // which is NaN. Then it is written as of its begin, or now by the thread that has waited for it.
  static constexpr int kNobody = -1;
  void BeginCopy(SharedAddress to, int32_t size, int thread, int agent);
  void EndCopy(SharedAddress to, const void* from, int32_t size, int waited);

  // A read on behalf of the four warps from `first_thread` on, which goes on until EndRead. Each
  // warp's is known to others by its first lane, from the time of its ExtendRead on.
  void BeginRead(SharedAddress from, void* to, int32_t size, int first_thread);
  void ExtendRead(SharedAddress from, int32_t size, int thread);
  void EndRead(SharedAddress from, int32_t size);

 private:
  // Of four bytes.
  struct Word {
    int writer = kNobody;  // an agent of the clocks
    HostClocks::Time write_time = 0;
    int num_reads_under_way = 0;
    bool is_written = false, is_in_flight = false;
  };
  // The last reads by a warp. kMany: of several lanes, in `reads_of_lanes_`.
  static constexpr int kMany = -2;
  struct LastRead {
    int reader = kNobody;
    HostClocks::Time time = 0;
  };

  template <class Visit>
  void ForWords(SharedAddress at, int32_t size, Visit visit) {
    CheckRange(at, size);
    for (int64_t i = at / kWordBytes; i < (int64_t{at} + size) / kWordBytes; ++i) visit(i);
  }
  void CheckRange(SharedAddress at, int32_t size) const;
  static constexpr int kAdders = -3;  // a Word's writer: any threads, by Add
  bool KnowsWrite(const Word& word, int thread) const;
  bool AreReadsKnownToAll(int64_t word) const;
  void CheckRead(int64_t word, int thread) const;
  // That wgmma sees it.
  void CheckFence(int64_t word, int thread) const;
  void CheckWrite(int64_t word, int thread) const;
  bool KnowsReads(int64_t word, int thread) const;
  void NoteRead(int64_t word, int thread);
  void ForgetReads(int64_t word);

  static constexpr int kWordBytes = 4;
  const HostClocks& clocks_;
  const int num_warps_;
  std::vector<uint8_t> bytes_;
  std::vector<Word> words_;
  std::vector<LastRead> last_reads_;  // [words, warps]
  // By index in last_reads_; 0: none.
  std::unordered_map<int64_t, std::array<HostClocks::Time, kWarpSize>> reads_of_lanes_;
};

}  // namespace chorus::device
