#include "core/kernels/cuda/hopper_host.h"

#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "core/kernels/cuda/host_block.h"

namespace chorus::device {
namespace {

struct Pick {
  int value;
  int lane;
  int result;
};

void CollectPick(std::span<void* const> lanes) {
  const auto at = [&](int lane) { return static_cast<Pick*>(lanes[lane]); };
  for (int lane = 0; lane < kWarpSize; ++lane) at(lane)->result = at(at(lane)->lane)->value;
}

void CollectVote(std::span<void* const> lanes) {
  bool is_true = true;
  for (void* lane : lanes) is_true = is_true && *static_cast<bool*>(lane);
  for (void* lane : lanes) *static_cast<bool*>(lane) = is_true;
}

void CollectWgmma(std::span<void* const> calls) {
  HostBlock& block = HostBlock::Current();
  block.wgmma().Issue(calls, block.thread_index() / kWarpgroupSize * kWarpgroupSize);
}

int WarpgroupLane() { return ThreadIndex() % kWarpgroupSize; }

}  // namespace

void Trap() { throw HostFault{"trapped"}; }

int ShuffleFrom(int value, int lane) {
  Pick pick{value, lane, 0};
  HostBlock::Current().MeetWarp(CollectPick, &pick);
  return pick.result;
}

bool VoteAll(bool is_true) {
  HostBlock::Current().MeetWarp(CollectVote, &is_true);
  return is_true;
}

void InitMbarrier(SharedAddress at, int count) { HostBlock::Current().InitMbarrier(at, count); }
void Arrive(SharedAddress at) { HostBlock::Current().Arrive(at, 0); }
void ArriveExpectingBytes(SharedAddress at, int num_bytes) {
  HostBlock::Current().Arrive(at, num_bytes);
}
void ArriveAfterCopies(SharedAddress at) { HostBlock::Current().ArriveAfterCopies(at); }
void WaitForPhase(SharedAddress at, int parity) { HostBlock::Current().WaitForPhase(at, parity); }

void FenceAsyncProxy() { HostBlock::Current().FenceAsyncProxy(); }

// Where the box sticks out it is filled with zeros.
void CopyBox(SharedAddress to, const TensorMap& map, int x, int y, int z, SharedAddress barrier) {
  HostBlock& block = HostBlock::Current();
  if (to % 128 != 0) throw HostFault{absl::StrCat("copies a box to ", to, ", not aligned to 128")};
  std::vector<HostBlock::Copy> copies;
  for (int row = 0; row < map.box_rows; ++row) {
    for (int piece = 0; piece < 8; ++piece) {
      const SharedAddress plain = to + row * 128 + piece * 16;
      HostBlock::Copy copy{plain ^ (plain >> 3 & 0x70), nullptr};
      const int column = x + 8 * piece;
      if (z + row < map.extents[2] && y < map.extents[1] && column < map.extents[0]) {
        const int64_t element = (int64_t{z + row} * map.extents[1] + y) * map.extents[0] + column;
        copy.from = static_cast<const uint16_t*>(map.base) + element;
        block.CheckGlobal(copy.from, 16, false);
      }
      copies.push_back(copy);
    }
  }
  block.AddBulkCopy(std::move(copies), barrier);
}

void WgmmaFence() { HostBlock::Current().wgmma().Fence(WarpgroupLane()); }
void WgmmaCommit() { HostBlock::Current().wgmma().Commit(WarpgroupLane()); }
void WgmmaWaitFor(int num_pending) {
  HostBlock::Current().wgmma().Wait(WarpgroupLane(), num_pending, ThreadIndex());
}
void CheckWgmmaResult(const float* d) {
  HostBlock::Current().wgmma().CheckResult(WarpgroupLane(), d);
}

template <class Element>
void StartWgmma(float* d, int num_columns, const uint32_t* a, uint64_t a_matrix, uint64_t b_matrix,
                bool is_b_transposed, bool is_added) {
  WgmmaCall call{.d = d,
                 .num_columns = num_columns,
                 .is_added = is_added,
                 .a = a,
                 .a_matrix = a_matrix,
                 .b_matrix = b_matrix,
                 .is_b_transposed = is_b_transposed,
                 .to_float = [](uint16_t bits) { return ToFloat(Element{bits}); }};
  HostBlock::Current().MeetWarpgroup(CollectWgmma, &call);
}
template void StartWgmma<BFloat16>(float*, int, const uint32_t*, uint64_t, uint64_t, bool, bool);
template void StartWgmma<Float16>(float*, int, const uint32_t*, uint64_t, uint64_t, bool, bool);

}  // namespace chorus::device
