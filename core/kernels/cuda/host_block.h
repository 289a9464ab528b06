#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "core/kernels/cuda/device_host.h"
#include "core/kernels/cuda/host_clocks.h"
#include "core/kernels/cuda/host_fiber.h"
#include "core/kernels/cuda/host_shared_memory.h"
#include "core/kernels/cuda/host_wgmma.h"

namespace chorus::device {

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
  // Meets with the other threads of the warp, or of the warpgroup; the last to come runs `collect`
  // on all threads' arguments (what each passed), in their order. REQUIRES: the same `collect` in
  // all of them.
  using Collect = void (*)(std::span<void* const> arguments);
  void MeetWarp(Collect collect, void* arguments);
  void MeetWarpgroup(Collect collect, void* arguments);
  HostWgmma& wgmma() { return wgmmas_[running_ / kWarpgroupSize]; }

  struct Copy {
    SharedAddress to;
    const void* from;  // null: zeros
  };
  void AddCopy(const Copy& copy);
  void CommitCopies();
  void WaitForCopies(int num_pending);
  void CheckGlobal(const void* address, int64_t size, bool is_write) const;

  void FenceAsyncProxy() { clocks_.Fence(running_); }

  // Barriers in shared memory, of 8 bytes each: a phase ends when `count` threads have arrived and
  // as many bytes have come as were expected.
  void InitMbarrier(SharedAddress at, int count);
  void Arrive(SharedAddress at, int64_t expected_bytes);
  // One arrival once all copies so far of the thread, committed or not, have landed.
  void ArriveAfterCopies(SharedAddress at);
  void WaitForPhase(SharedAddress at, int parity);
  // Copies that count as bytes of the barrier's phase.
  void AddBulkCopy(std::vector<Copy> copies, SharedAddress barrier);

 private:
  static constexpr int kMaxMbarriers = 64;
  struct Mbarrier {
    int count = 0;
    int num_pending = 0;
    int64_t bytes = 0;  // expected and not come
    int phase = 0;
    int copy_unit = 0;                   // agent of the bulk copies that it counts
    HostClocks::Knowledge open, closed;  // released in this phase / before it
  };
  struct Thread {
    std::optional<HostFiber> fiber;  // from StartThreads on
    std::vector<Copy> open_copies;
    std::deque<std::vector<Copy>> groups;  // committed, oldest first
    bool is_waiting = false;
    const Mbarrier* waits_for = nullptr;
  };
  struct Meeting {
    std::vector<void*> arguments;
    Collect collect = nullptr;
    int num_arrived = 0;
  };
  // Copies that land by themselves, and then arrive at a barrier.
  struct Landing {
    std::vector<Copy> copies;
    Mbarrier* barrier;
    bool is_bulk;
    HostClocks::Knowledge released;
  };

  void Meet(Meeting& meeting, int size, Collect collect, void* arguments);
  Mbarrier& MbarrierAt(SharedAddress at);
  void CheckPhase(Mbarrier& barrier);
  // Lands what is under way, in random order; returns whether there was any. Called when no thread
  // can go on, so that nobody sees a copy early.
  bool LandCopies(std::mt19937& random);
  void Land(const Landing& landing);
  void CheckEnd() const;

  // Gives control back to Run until somebody clears is_waiting.
  void Wait();
  void StartThreads(const std::function<void()>& thread);
  // Returns whether any thread ran.
  bool RunOnce(const std::vector<int>& warp_order);
  int NumEnded() const;

  const HostLaunch& launch_;
  const int block_x_, block_y_;
  HostClocks clocks_;
  HostSharedMemory shared_;
  std::vector<Thread> threads_;
  std::vector<Meeting> warps_, warpgroups_;
  std::vector<HostWgmma> wgmmas_;  // by warpgroup
  std::map<SharedAddress, Mbarrier> mbarriers_;
  std::vector<Landing> landings_;
  int running_ = 0;
  int num_at_barrier_ = 0;
  std::string fault_;
};

}  // namespace chorus::device
