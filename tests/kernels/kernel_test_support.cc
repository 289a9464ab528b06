#include "tests/kernels/kernel_test_support.h"

#include <algorithm>
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

namespace {

// Positions of the keys of an interval are up to so much after their indexes.
constexpr int32_t kMaxShift = 90;

int32_t Below(int32_t limit, std::mt19937& random) {
  return static_cast<int32_t>(random() % static_cast<uint32_t>(limit));
}

void AppendIntervals(int32_t num_keys, std::mt19937& random, AttentionPlan& plan) {
  for (int32_t key = Below(10, random); key < num_keys;) {
    const int32_t end = std::min(num_keys, key + 1 + Below(150, random));
    plan.intervals.push_back({key, end, random() % 2 == 0, Below(kMaxShift + 1, random)});
    key = end + (random() % 2 == 0 ? 0 : Below(70, random));
  }
}

}  // namespace

const AttentionRun& AppendRun(int32_t max_keys, std::vector<int32_t>& free_slots,
                              std::mt19937& random, AttentionPlan& plan) {
  AttentionRun run;
  const int32_t num_keys = 1 + Below(max_keys, random);
  run.row_begin = plan.runs.empty() ? 0 : plan.runs.back().row_end;
  run.row_end = run.row_begin + 1 + Below(std::min(6, num_keys), random);
  run.query_begin = num_keys - (run.row_end - run.row_begin);
  run.position_begin = run.query_begin + kMaxShift;
  run.table_begin = static_cast<int32_t>(plan.slot_table.size());
  run.is_fused = Below(4, random) > 0;
  run.scaling = run.is_fused ? Below(3, random) - 1 : -1;
  run.interval_begin = static_cast<int32_t>(plan.intervals.size());
  AppendIntervals(num_keys, random, plan);
  run.interval_end = static_cast<int32_t>(plan.intervals.size());
  run.windowed_begin = run.interval_begin;
  run.windowed_end = run.interval_end;
  plan.slot_table.insert(plan.slot_table.end(), free_slots.end() - num_keys, free_slots.end());
  free_slots.resize(free_slots.size() - num_keys);
  return plan.runs.emplace_back(run);
}

KeyUnits RandomUnits(int32_t num_keys, std::mt19937& random) {
  KeyUnits units;
  units.num_units = 1 + Below(9, random);
  const bool has_gaps = random() % 2 == 0;
  for (int32_t key = has_gaps ? Below(20, random) : 0; key < num_keys;) {
    const int32_t end = key + 1 + Below(random() % 4 == 0 ? 200 : 30, random);
    units.ranges.push_back({key, end, Below(units.num_units, random)});
    key = end + (has_gaps ? Below(20, random) : 0);
  }
  return units;
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
