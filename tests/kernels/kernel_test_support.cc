#include "tests/kernels/kernel_test_support.h"

#include <bit>
#include <cmath>
#include <limits>

#include "hwy/highway.h"

#include "core/kernels/bfloat16.h"

namespace chorus::test {

std::vector<int64_t> KernelTargets() {
  std::vector<int64_t> targets;
  for (int64_t rest = hwy::SupportedTargets() & HWY_TARGETS; rest != 0; rest &= rest - 1) {
    targets.push_back(rest & ~(rest - 1));
  }
  return targets;
}

std::string KernelTargetName(int64_t target) { return hwy::TargetName(target); }

ScopedKernelTarget::ScopedKernelTarget(int64_t target) {
  hwy::SetSupportedTargetsForTest(target);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

ScopedKernelTarget::~ScopedKernelTarget() {
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

std::vector<float> RandomFloats(int64_t size, std::mt19937& random, float limit) {
  std::uniform_real_distribution<float> uniform(-limit, limit);
  std::vector<float> values(size);
  for (float& value : values) value = uniform(random);
  return values;
}

AttentionPlan SplitRuns(const AttentionPlan& plan, std::mt19937& random) {
  AttentionPlan split = plan;
  split.runs.clear();
  for (auto run = plan.runs.rbegin(); run != plan.runs.rend(); ++run) {
    const int32_t cut = static_cast<int32_t>(random() % (run->row_end - run->row_begin));
    AttentionRun upper = *run, lower = *run;
    upper.row_begin += cut;
    upper.query_begin += cut;
    upper.position_begin += cut;
    lower.row_end = upper.row_begin;
    split.runs.push_back(upper);
    if (cut > 0) split.runs.push_back(lower);
  }
  return split;
}

void RunAttentionCpu(const AttentionPlan& plan, const AttentionArgs& args, ThreadPool& pool) {
  SegmentAttentionCpu(plan, PlanCpuTiles(plan, args.shape, args.window), args, pool);
}

KvStore::KvStore(KvType type, int32_t num_slots, const AttentionShape& shape)
    : type_(type), num_slots_(num_slots), slot_size_(int64_t{shape.num_kv_heads} * shape.head_dim) {
  const int64_t size = num_slots * slot_size_;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  if (type == KvType::kFloat32) {
    k32_.assign(size, kNan);
    v32_.assign(size, kNan);
  } else {
    k16_.assign(size, BFloat16FromFloat(kNan));
    v16_.assign(size, BFloat16FromFloat(kNan));
  }
}

std::string HeadCaseName(const testing::TestParamInfo<HeadCase>& info) {
  const HeadCase& test = info.param;
  return "Heads" + std::to_string(test.num_heads) + "Over" + std::to_string(test.num_kv_heads) +
         "Dim" + std::to_string(test.head_dim) +
         (test.type == KvType::kFloat32 ? "Float32" : "BFloat16");
}

AttentionShape ShapeOf(const HeadCase& test) {
  return {test.num_heads, test.num_kv_heads, test.head_dim,
          1.0f / std::sqrt(static_cast<float>(test.head_dim))};
}

KvView KvStore::view() {
  if (type_ == KvType::kFloat32) return {type_, k32_.data(), v32_.data(), num_slots_};
  return {type_, k16_.data(), v16_.data(), num_slots_};
}

void KvStore::FillSlot(int32_t slot, std::mt19937& random) {
  const std::vector<float> k = RandomFloats(slot_size_, random);
  const std::vector<float> v = RandomFloats(slot_size_, random);
  for (int64_t i = 0; i < slot_size_; ++i) {
    if (type_ == KvType::kFloat32) {
      k32_[slot * slot_size_ + i] = k[i];
      v32_[slot * slot_size_ + i] = v[i];
    } else {
      k16_[slot * slot_size_ + i] = BFloat16FromFloat(k[i]);
      v16_[slot * slot_size_ + i] = BFloat16FromFloat(v[i]);
    }
  }
}

}  // namespace chorus::test
