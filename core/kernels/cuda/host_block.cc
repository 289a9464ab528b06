#include "core/kernels/cuda/host_block.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

namespace chorus::device {
namespace {

thread_local HostBlock* current_block = nullptr;

constexpr uint8_t kZeros[16] = {};

}  // namespace

HostBlock::HostBlock(const HostLaunch& launch, int block_x, int block_y)
    : launch_(launch),
      block_x_(block_x),
      block_y_(block_y),
      clocks_(launch.num_threads, kMaxMbarriers),
      shared_(launch.shared_bytes, clocks_),
      threads_(launch.num_threads),
      warps_(launch.num_threads / kWarpSize),
      warpgroups_(launch.num_threads / kWarpgroupSize),
      wgmmas_(warpgroups_.size()) {}

HostBlock& HostBlock::Current() { return *current_block; }

void HostBlock::StartThreads(const std::function<void()>& thread) {
  for (Thread& each : threads_) {
    each.fiber.emplace([this, &thread] {
      try {
        thread();
      } catch (const HostFault& fault) {
        fault_ = fault.message;
      }
    });
  }
}

void HostBlock::Wait() {
  threads_[running_].is_waiting = true;
  threads_[running_].fiber->Suspend();
}

bool HostBlock::RunOnce(const std::vector<int>& warp_order) {
  bool has_run = false;
  for (int warp : warp_order) {
    for (int lane = 0; lane < kWarpSize; ++lane) {
      running_ = warp * kWarpSize + lane;
      Thread& thread = threads_[running_];
      if (thread.fiber->has_ended() || thread.is_waiting) continue;
      has_run = true;
      thread.fiber->Resume();
      if (!fault_.empty()) throw HostFault{fault_};
    }
  }
  return has_run;
}

int HostBlock::NumEnded() const {
  return static_cast<int>(std::count_if(threads_.begin(), threads_.end(), [](const Thread& thread) {
    return thread.fiber->has_ended();
  }));
}

void HostBlock::Run(const std::function<void()>& thread) {
  current_block = this;
  std::mt19937 random(launch_.seed + 977 * block_x_ + 7919 * block_y_);
  std::vector<int> warp_order(warps_.size());
  std::iota(warp_order.begin(), warp_order.end(), 0);
  StartThreads(thread);
  do {
    std::shuffle(warp_order.begin(), warp_order.end(), random);
  } while (RunOnce(warp_order) || LandCopies(random));
  CheckEnd();
}

void HostBlock::CheckEnd() const {
  if (NumEnded() < launch_.num_threads) {
    const auto at_mbarriers =
        std::count_if(threads_.begin(), threads_.end(), [](const Thread& thread) {
          return thread.waits_for != nullptr && !thread.fiber->has_ended();
        });
    throw HostFault{absl::StrCat(launch_.num_threads - NumEnded(), " threads wait for others, ",
                                 NumEnded(), " have ended; ", at_mbarriers,
                                 " of them wait for a phase of an mbarrier")};
  }
  for (const Thread& ended : threads_) {
    const bool has_copies = std::any_of(ended.groups.begin(), ended.groups.end(),
                                        [](const auto& group) { return !group.empty(); });
    if (has_copies || !ended.open_copies.empty()) {
      throw HostFault{"a thread ended before its copies"};
    }
  }
  for (const HostWgmma& wgmma : wgmmas_) wgmma.CheckEnd();
}

void HostBlock::Barrier() {
  if (++num_at_barrier_ < launch_.num_threads) {
    Wait();
    return;
  }
  num_at_barrier_ = 0;
  clocks_.MeetAll();
  for (Thread& thread : threads_) thread.is_waiting = false;
}

void HostBlock::MeetWarp(Collect collect, void* arguments) {
  Meet(warps_[running_ / kWarpSize], kWarpSize, collect, arguments);
}

void HostBlock::MeetWarpgroup(Collect collect, void* arguments) {
  Meet(warpgroups_[running_ / kWarpgroupSize], kWarpgroupSize, collect, arguments);
}

void HostBlock::Meet(Meeting& meeting, int size, Collect collect, void* arguments) {
  if (meeting.num_arrived > 0 && meeting.collect != collect) {
    throw HostFault{size == kWarpSize ? "lanes of one warp are at different collectives"
                                      : "threads of one warpgroup are at different collectives"};
  }
  meeting.collect = collect;
  meeting.arguments.resize(size);
  meeting.arguments[running_ % size] = arguments;
  if (++meeting.num_arrived < size) {
    Wait();
    return;
  }
  meeting.num_arrived = 0;
  collect(meeting.arguments);
  const int first = running_ / size * size;
  for (int i = 0; i < size; ++i) threads_[first + i].is_waiting = false;
}

void HostBlock::AddCopy(const Copy& copy) {
  shared_.BeginCopy(copy.to, 16, running_, clocks_.CopiesOf(running_));
  threads_[running_].open_copies.push_back(copy);
}

void HostBlock::CommitCopies() {
  Thread& thread = threads_[running_];
  thread.groups.push_back(std::exchange(thread.open_copies, {}));
}

void HostBlock::WaitForCopies(int num_pending) {
  Thread& thread = threads_[running_];
  while (static_cast<int>(thread.groups.size()) > num_pending) {
    for (const Copy& copy : thread.groups.front()) {
      shared_.EndCopy(copy.to, copy.from == nullptr ? kZeros : copy.from, 16, running_);
    }
    thread.groups.pop_front();
  }
}

void HostBlock::CheckGlobal(const void* address, int64_t size, bool is_write) const {
  const auto at = reinterpret_cast<uintptr_t>(address);
  for (int i = 0; i < launch_.num_arrays; ++i) {
    const HostArray& array = launch_.arrays[i];
    const auto begin = reinterpret_cast<uintptr_t>(array.data);
    if (at < begin || at + size > begin + array.size) continue;
    if (is_write && !array.is_writable) {
      throw HostFault{absl::StrCat("writes array ", i, ", which is read-only")};
    }
    return;
  }
  throw HostFault{
      absl::StrCat(is_write ? "writes " : "reads ", size, " bytes outside the launch's arrays")};
}

}  // namespace chorus::device
