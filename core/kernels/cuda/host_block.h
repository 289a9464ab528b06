#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include <boost/context/fiber.hpp>

#include "core/kernels/cuda/device_host.h"

namespace chorus::device {

// What was wrong; thrown out of a simulated thread.
struct HostFault {
  std::string message;
};

// Shared memory of one simulated block, and who touched which word of it since the last barrier.
class HostSharedMemory {
 public:
  explicit HostSharedMemory(int32_t size);

  // Each throws HostFault. Addresses count from the block's shared memory.
  void Read(SharedAddress from, void* to, int32_t size, int thread);
  void Write(SharedAddress to, const void* from, int32_t size, int thread);
  // From here until Write by the same thread nobody may touch it.
  void BeginCopy(SharedAddress to, int32_t size, int thread);
  // Adds to an integer of `size` bytes, 4 or 8, and returns what it was. Until the next barrier
  // only Add may touch it.
  uint64_t Add(SharedAddress to, uint64_t value, int32_t size);
  void NextEpoch() { ++epoch_; }

 private:
  static constexpr int kNobody = -1, kMany = -2;  // kMany writers: Add
  // Of four bytes.
  struct Word {
    int writer = kNobody, reader = kNobody;
    int64_t write_epoch = -1, read_epoch = -1;
    bool is_written = false, is_in_flight = false;
  };

  void CheckRange(SharedAddress at, int32_t size) const;
  void NoteWrite(SharedAddress to, int32_t size, int thread, bool begins_copy);

  std::vector<uint8_t> bytes_;
  std::vector<Word> words_;
  int64_t epoch_ = 0;
};

// One thread block whose threads are fibers of the calling thread.
class HostBlock {
 public:
  HostBlock(const HostLaunch& launch, int block_x, int block_y);
  // Runs all threads to their end. Throws HostFault.
  void Run(const std::function<void()>& thread);

  static HostBlock& Current();
  int thread_index() const { return running_; }
  int block_x() const { return block_x_; }
  int block_y() const { return block_y_; }
  HostSharedMemory& shared() { return shared_; }

  void Barrier();
  // Meets with the other lanes of the warp; the last to come runs `collect` on all lanes' arguments
  // (what the lane passed), in lane order. REQUIRES: the same `collect` in all lanes.
  using Collect = void (*)(const std::array<void*, kWarpSize>& lanes);
  void MeetWarp(Collect collect, void* arguments);

  struct Copy {
    SharedAddress to;
    const void* from;  // null: zeros
  };
  void AddCopy(const Copy& copy);
  void CommitCopies();
  void WaitForCopies(int num_pending);
  void CheckGlobal(const void* address, int64_t size, bool is_write) const;

 private:
  struct Thread {
    boost::context::fiber fiber;
    std::vector<Copy> open_copies;
    std::deque<std::vector<Copy>> groups;  // committed, oldest first
    bool is_ended = false;
    bool is_waiting = false;
  };
  struct Warp {
    std::array<void*, kWarpSize> arguments{};
    Collect collect = nullptr;
    int num_arrived = 0;
  };

  // Gives control back to Run until somebody calls Wake.
  void Wait();
  void StartThreads(const std::function<void()>& thread);
  // Returns whether any thread ran.
  bool RunOnce(const std::vector<int>& warp_order);
  int NumEnded() const;

  const HostLaunch& launch_;
  const int block_x_, block_y_;
  HostSharedMemory shared_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  boost::context::fiber scheduler_;
  int running_ = 0;
  int num_at_barrier_ = 0;
  std::string fault_;
};

}  // namespace chorus::device
