// The barriers of HostBlock that lie in shared memory, and the copies that arrive at them.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/kernels/cuda/host_block.h"

namespace chorus::device {
namespace {

constexpr uint8_t kZeros[16] = {};
constexpr int kMbarrierBytes = 8;

}  // namespace

void HostBlock::InitMbarrier(SharedAddress at, int count) {
  const uint64_t bits = count;
  shared_.Write(at, &bits, kMbarrierBytes, running_);
  if (mbarriers_.size() >= kMaxMbarriers) throw HostFault{"has too many mbarriers"};
  const int copy_unit = clocks_.CopyUnit(static_cast<int>(mbarriers_.size()));
  if (!mbarriers_.insert({at, {.count = count, .num_pending = count, .copy_unit = copy_unit}})
           .second) {
    throw HostFault{absl::StrCat("makes the mbarrier at ", at, " twice")};
  }
}

HostBlock::Mbarrier& HostBlock::MbarrierAt(SharedAddress at) {
  const auto found = mbarriers_.find(at);
  if (found == mbarriers_.end()) {
    throw HostFault{absl::StrCat("uses shared address ", at, ", which is no mbarrier")};
  }
  uint64_t bits;
  shared_.Read(at, &bits, kMbarrierBytes, running_);  // whether its making is known
  return found->second;
}

void HostBlock::CheckPhase(Mbarrier& barrier) {
  if (barrier.num_pending > 0 || barrier.bytes != 0) return;
  barrier.num_pending = barrier.count;
  ++barrier.phase;
  HostClocks::Join(barrier.closed, std::exchange(barrier.open, {}));
  for (Thread& thread : threads_) {
    if (thread.waits_for == &barrier) thread.is_waiting = false;
  }
}

void HostBlock::Arrive(SharedAddress at, int64_t expected_bytes) {
  Mbarrier& barrier = MbarrierAt(at);
  if (barrier.num_pending == 0) {
    throw HostFault{absl::StrCat("arrives at the mbarrier at ", at, ", where all have arrived")};
  }
  HostClocks::Join(barrier.open, clocks_.Release(running_));
  barrier.bytes += expected_bytes;
  --barrier.num_pending;
  CheckPhase(barrier);
}

void HostBlock::ArriveAfterCopies(SharedAddress at) {
  Thread& thread = threads_[running_];
  std::vector<Copy> copies = std::exchange(thread.open_copies, {});
  for (std::vector<Copy>& group : thread.groups) {
    copies.insert(copies.end(), group.begin(), group.end());
    group.clear();
  }
  landings_.push_back({.copies = std::move(copies),
                       .barrier = &MbarrierAt(at),
                       .is_bulk = false,
                       .released = clocks_.Release(running_, /*has_copies=*/true)});
}

void HostBlock::AddBulkCopy(std::vector<Copy> copies, SharedAddress at) {
  Mbarrier& barrier = MbarrierAt(at);
  for (const Copy& copy : copies) shared_.BeginCopy(copy.to, 16, running_, barrier.copy_unit);
  landings_.push_back({.copies = std::move(copies),
                       .barrier = &barrier,
                       .is_bulk = true,
                       .released = clocks_.ReleaseCopyUnit(barrier.copy_unit)});
}

void HostBlock::WaitForPhase(SharedAddress at, int parity) {
  Mbarrier& barrier = MbarrierAt(at);
  threads_[running_].waits_for = &barrier;
  // As the instruction has it: the phase of the other parity is the one under way.
  while (barrier.phase % 2 == parity) Wait();
  threads_[running_].waits_for = nullptr;
  clocks_.Acquire(running_, barrier.closed);
}

void HostBlock::Land(const Landing& landing) {
  for (const Copy& copy : landing.copies) {
    shared_.EndCopy(copy.to, copy.from == nullptr ? kZeros : copy.from, 16,
                    HostSharedMemory::kNobody);
  }
  Mbarrier& barrier = *landing.barrier;
  HostClocks::Join(barrier.open, landing.released);
  if (landing.is_bulk) {
    barrier.bytes -= 16 * static_cast<int64_t>(landing.copies.size());
  } else if (--barrier.num_pending < 0) {
    throw HostFault{"arrives at an mbarrier where all have arrived"};
  }
  CheckPhase(barrier);
}

bool HostBlock::LandCopies(std::mt19937& random) {
  std::vector<Landing> landings = std::exchange(landings_, {});
  std::shuffle(landings.begin(), landings.end(), random);
  for (const Landing& landing : landings) Land(landing);
  return !landings.empty();
}

}  // namespace chorus::device
