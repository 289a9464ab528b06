#include "core/kernels/cuda/host_block.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

namespace chorus::device {
namespace {

namespace context = boost::context;

thread_local HostBlock* current_block = nullptr;

constexpr int kWordBytes = 4;
constexpr size_t kStackBytes = 128 << 10;

std::string WriterName(int writer) {
  return writer < 0 ? std::string("several threads") : absl::StrCat("thread ", writer);
}

}  // namespace

HostSharedMemory::HostSharedMemory(int32_t size)
    : bytes_(size, 0xFF), words_((size + kWordBytes - 1) / kWordBytes) {}

void HostSharedMemory::CheckRange(SharedAddress at, int32_t size) const {
  if (at % std::min(size, 16) != 0) {
    throw HostFault{absl::StrCat("shared address ", at, " is not aligned to ", size, " bytes")};
  }
  if (at + int64_t{size} > static_cast<int64_t>(bytes_.size())) {
    throw HostFault{absl::StrCat("shared address ", at, " + ", size, " is outside the block's ",
                                 bytes_.size(), " bytes")};
  }
}

void HostSharedMemory::Read(SharedAddress from, void* to, int32_t size, int thread) {
  CheckRange(from, size);
  for (int64_t i = from / kWordBytes; i < (int64_t{from} + size) / kWordBytes; ++i) {
    Word& word = words_[i];
    if (word.is_in_flight) {
      throw HostFault{absl::StrCat("reads shared word ", i, ", to which a copy is under way")};
    }
    if (!word.is_written) throw HostFault{absl::StrCat("reads shared word ", i, ", never written")};
    if (word.write_epoch == epoch_ && word.writer != thread) {
      throw HostFault{absl::StrCat("reads shared word ", i, ", which ", WriterName(word.writer),
                                   " wrote since the last barrier")};
    }
    word.reader = word.read_epoch == epoch_ && word.reader != thread ? kMany : thread;
    word.read_epoch = epoch_;
  }
  std::memcpy(to, bytes_.data() + from, size);
}

void HostSharedMemory::NoteWrite(SharedAddress to, int32_t size, int thread, bool begins_copy) {
  CheckRange(to, size);
  for (int64_t i = to / kWordBytes; i < (int64_t{to} + size) / kWordBytes; ++i) {
    Word& word = words_[i];
    if (word.read_epoch == epoch_ && word.reader != thread) {
      throw HostFault{
          absl::StrCat("writes shared word ", i, ", which others read since the last barrier")};
    }
    const bool is_own_copy = word.is_in_flight && word.writer == thread && !begins_copy;
    if (word.is_in_flight && !is_own_copy) {
      throw HostFault{absl::StrCat("writes shared word ", i, ", to which a copy is under way")};
    }
    if (word.write_epoch == epoch_ && word.writer != thread) {
      throw HostFault{absl::StrCat("writes shared word ", i, ", which ", WriterName(word.writer),
                                   " wrote since the last barrier")};
    }
    word.writer = thread;
    word.write_epoch = epoch_;
    word.is_written = true;
    word.is_in_flight = begins_copy;
  }
}

void HostSharedMemory::Write(SharedAddress to, const void* from, int32_t size, int thread) {
  NoteWrite(to, size, thread, false);
  std::memcpy(bytes_.data() + to, from, size);
}

void HostSharedMemory::BeginCopy(SharedAddress to, int32_t size, int thread) {
  NoteWrite(to, size, thread, true);
  std::memset(bytes_.data() + to, 0xFF, size);
}

HostBlock::HostBlock(const HostLaunch& launch, int block_x, int block_y)
    : launch_(launch),
      block_x_(block_x),
      block_y_(block_y),
      shared_(launch.shared_bytes),
      threads_(launch.num_threads),
      warps_(launch.num_threads / kWarpSize) {}

HostBlock& HostBlock::Current() { return *current_block; }

void HostBlock::StartThreads(const std::function<void()>& thread) {
  for (Thread& each : threads_) {
    each.fiber = context::fiber(std::allocator_arg, context::fixedsize_stack(kStackBytes),
                                [this, &each, &thread](context::fiber&& scheduler) {
                                  scheduler_ = std::move(scheduler);
                                  try {
                                    thread();
                                  } catch (const HostFault& fault) {
                                    fault_ = fault.message;
                                  }
                                  each.is_ended = true;
                                  return std::move(scheduler_);
                                });
  }
}

void HostBlock::Wait() {
  threads_[running_].is_waiting = true;
  scheduler_ = std::move(scheduler_).resume();
}

bool HostBlock::RunOnce(const std::vector<int>& warp_order) {
  bool has_run = false;
  for (int warp : warp_order) {
    for (int lane = 0; lane < kWarpSize; ++lane) {
      running_ = warp * kWarpSize + lane;
      Thread& thread = threads_[running_];
      if (thread.is_ended || thread.is_waiting) continue;
      has_run = true;
      thread.fiber = std::move(thread.fiber).resume();
      if (!fault_.empty()) throw HostFault{fault_};
    }
  }
  return has_run;
}

int HostBlock::NumEnded() const {
  return static_cast<int>(std::count_if(threads_.begin(), threads_.end(),
                                        [](const Thread& thread) { return thread.is_ended; }));
}

void HostBlock::Run(const std::function<void()>& thread) {
  current_block = this;
  std::mt19937 random(launch_.seed + 977 * block_x_ + 7919 * block_y_);
  std::vector<int> warp_order(warps_.size());
  std::iota(warp_order.begin(), warp_order.end(), 0);
  StartThreads(thread);
  do {
    std::shuffle(warp_order.begin(), warp_order.end(), random);
  } while (RunOnce(warp_order));
  if (NumEnded() < launch_.num_threads) {
    throw HostFault{absl::StrCat(launch_.num_threads - NumEnded(), " threads wait for others, ",
                                 NumEnded(), " have ended")};
  }
  for (const Thread& ended : threads_) {
    const bool has_copies = std::any_of(ended.groups.begin(), ended.groups.end(),
                                        [](const auto& group) { return !group.empty(); });
    if (has_copies || !ended.open_copies.empty()) {
      throw HostFault{"a thread ended before its copies"};
    }
  }
}

void HostBlock::Barrier() {
  if (++num_at_barrier_ < launch_.num_threads) {
    Wait();
    return;
  }
  num_at_barrier_ = 0;
  shared_.NextEpoch();
  for (Thread& thread : threads_) thread.is_waiting = false;
}

void HostBlock::MeetWarp(Collect collect, void* arguments) {
  const int first = running_ / kWarpSize * kWarpSize;
  Warp& warp = warps_[running_ / kWarpSize];
  if (warp.num_arrived > 0 && warp.collect != collect) {
    throw HostFault{"lanes of one warp are at different collectives"};
  }
  warp.collect = collect;
  warp.arguments[running_ - first] = arguments;
  if (++warp.num_arrived < kWarpSize) {
    Wait();
    return;
  }
  warp.num_arrived = 0;
  collect(warp.arguments);
  for (int lane = 0; lane < kWarpSize; ++lane) threads_[first + lane].is_waiting = false;
}

void HostBlock::AddCopy(const Copy& copy) {
  shared_.BeginCopy(copy.to, 16, running_);
  threads_[running_].open_copies.push_back(copy);
}

void HostBlock::CommitCopies() {
  Thread& thread = threads_[running_];
  thread.groups.push_back(std::exchange(thread.open_copies, {}));
}

void HostBlock::WaitForCopies(int num_pending) {
  Thread& thread = threads_[running_];
  static constexpr uint8_t kZeros[16] = {};
  while (static_cast<int>(thread.groups.size()) > num_pending) {
    for (const Copy& copy : thread.groups.front()) {
      shared_.Write(copy.to, copy.from == nullptr ? kZeros : copy.from, 16, running_);
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

uint64_t HostSharedMemory::Add(SharedAddress to, uint64_t value, int32_t size) {
  CheckRange(to, size);
  for (int64_t i = to / kWordBytes; i < (int64_t{to} + size) / kWordBytes; ++i) {
    Word& word = words_[i];
    if (!word.is_written || word.is_in_flight) {
      throw HostFault{absl::StrCat("adds to shared word ", i, ", which holds no value yet")};
    }
    if (word.read_epoch == epoch_ || (word.write_epoch == epoch_ && word.writer != kMany)) {
      throw HostFault{
          absl::StrCat("adds to shared word ", i, ", read or written since the last barrier")};
    }
    word.writer = kMany;
    word.write_epoch = epoch_;
  }
  uint64_t before = 0;  // the machine is little-endian, as the device
  std::memcpy(&before, bytes_.data() + to, size);
  const uint64_t after = before + value;
  std::memcpy(bytes_.data() + to, &after, size);
  return before;
}

}  // namespace chorus::device
