#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "core/kernels/segment_attention.h"
#include "core/segment/attention_plan.h"
#include "core/segment/key_units.h"

namespace chorus::test {

// The instruction sets that this machine can run and the kernels were compiled for, best first.
std::vector<int64_t> KernelTargets();
std::string KernelTargetName(int64_t target);

// Makes the kernels use one instruction set while it lives; then the best again.
class ScopedKernelTarget {
 public:
  explicit ScopedKernelTarget(int64_t target);
  ~ScopedKernelTarget();
};

inline constexpr float kEpsilon = 0x1p-24f;  // unit roundoff of float32

std::vector<float> RandomFloats(int64_t size, std::mt19937& random, float limit = 1.0f);

// Heads and storage that the attention tests run over.
struct HeadCase {
  int32_t num_heads, num_kv_heads, head_dim;
  KvType type;
};
std::string HeadCaseName(const testing::TestParamInfo<HeadCase>& info);
AttentionShape ShapeOf(const HeadCase& test);

// The windows that the attention tests run over.
inline constexpr AttentionWindow kWindows[] = {{},
                                               {AttentionWindow::Kind::kSliding, 1},
                                               {AttentionWindow::Kind::kSliding, 150},
                                               {AttentionWindow::Kind::kChunked, 100}};

// Appends a run of 1..6 rows, own or fused, that see some of up to `max_keys` keys of a sequence,
// and the sequence's slots, drawn from free_slots. Two scalings are to be in the plan.
const AttentionRun& AppendRun(int32_t max_keys, std::vector<int32_t>& free_slots,
                              std::mt19937& random, AttentionPlan& plan);

// Ranges with and without gaps; units that come several times, and units without a key.
KeyUnits RandomUnits(int32_t num_keys, std::mt19937& random);

// The plan with every run cut in two at a random row, in reverse order: the same work.
AttentionPlan SplitRuns(const AttentionPlan& plan, std::mt19937& random);

// Plans the tiles of the layer's window and runs it.
void RunAttentionCpu(const AttentionPlan& plan, const AttentionArgs& args, ThreadPool& pool);

// Keys and values of one layer; every slot that nobody wrote is NaN.
class KvStore {
 public:
  KvStore(KvType type, int32_t num_slots, const AttentionShape& shape);
  KvView view();
  // Random keys and values in [-1, 1), as the type holds them.
  void FillSlot(int32_t slot, std::mt19937& random);

 private:
  KvType type_;
  int32_t num_slots_;
  int64_t slot_size_;
  std::vector<float> k32_, v32_;
  std::vector<uint16_t> k16_, v16_;
};

}  // namespace chorus::test
