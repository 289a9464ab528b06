// Speed of the CPU kernels on this machine, as JSON: the memory's read rate, the cores' float32 FMA
// rate and that of bfloat16 dot products (null where there are none), PackedLinear at the shapes of
// SmolLM2-135M as fractions of the first two, and segment attention. Every figure is the best of
// several repeats: others may be loading the machine. With one thread the clock is that thread's
// own processor time, which does not count while others run.
//
//   kernels_bench [num_threads = 2] [linear | attention | all]

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <time.h>

#include "nlohmann/json.hpp"

#include "core/base/thread_pool.h"
#include "core/kernels/packed_linear.h"
#include "core/kernels/packed_linear_task.h"
#include "core/kernels/segment_attention.h"
#include "tests/bench/machine_limits.h"

namespace chorus {
namespace {

double Seconds(ThreadPool& pool) {
  timespec now;
  clock_gettime(pool.num_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Seconds of the fastest of several calls of body(i), i = 0, 1, ..., for about 0.2 seconds in all.
double BestSeconds(ThreadPool& pool, const std::function<void(int)>& body) {
  double best = INFINITY, total = 0.0;
  for (int i = 0; i < 5 || total < 0.2; ++i) {
    const double start = Seconds(pool);
    body(i);
    const double seconds = Seconds(pool) - start;
    best = std::min(best, seconds);
    total += seconds;
  }
  return best;
}

std::vector<float> RandomFloats(int64_t size) {
  std::minstd_rand random(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> values(size);
  for (float& value : values) value = uniform(random);
  return values;
}

// Over 512 MB, timed in windows of 16: short ones have a chance to pass undisturbed.
double ReadBytesPerSecond(ThreadPool& pool) {
  constexpr int64_t kWindow = int64_t{16} << 18, kWindows = 32, kPieces = 64;
  constexpr int64_t kPiece = kWindow / kPieces;
  const std::vector<float> data(kWindow * kWindows, 1.0f);
  std::vector<float> sums(kPieces);
  const double seconds = BestSeconds(pool, [&](int i) {
    const float* window = data.data() + i % kWindows * kWindow;
    pool.ParallelFor(kPieces, [&](int64_t p) { sums[p] = SumFloats(window + p * kPiece, kPiece); });
  });
  if (sums[0] != static_cast<float>(kPiece)) std::abort();
  return kWindow * sizeof(float) / seconds;
}

// `body` runs on one thread and returns the operations that it did.
double FlopsPerSecond(ThreadPool& pool, double (*body)()) {
  constexpr int64_t kTasks = 64;
  std::vector<double> flops(kTasks);
  const double seconds = BestSeconds(
      pool, [&](int) { pool.ParallelFor(kTasks, [&](int64_t i) { flops[i] = body(); }); });
  return std::accumulate(flops.begin(), flops.end(), 0.0) / seconds;
}

struct Shape {
  int32_t in_features, out_features;
};

nlohmann::json BenchLinear(const Shape& shape, WeightType type, double read_rate, double fma_rate,
                           ThreadPool& pool) {
  // Several copies of a small layer, so that its weights come from memory as they do in a model.
  const int64_t bytes =
      int64_t{shape.in_features} * shape.out_features * (type == WeightType::kFloat32 ? 4 : 2);
  const int num_copies = static_cast<int>(std::max<int64_t>(1, (int64_t{300} << 20) / bytes));
  const std::vector<float> row = RandomFloats(shape.in_features);
  std::vector<std::unique_ptr<const PackedLinear>> layers;
  for (int i = 0; i < num_copies; ++i) {
    layers.push_back(
        PackedLinear::Create(type, shape.in_features, shape.out_features,
                             [&](int32_t, float* out) { std::copy(row.begin(), row.end(), out); }));
  }
  nlohmann::json results = nlohmann::json::array();
  for (int32_t num_rows : {1, 6, 32, 103, 228, 512}) {
    const std::vector<float> x = RandomFloats(int64_t{num_rows} * shape.in_features);
    std::vector<float> y(int64_t{num_rows} * shape.out_features);
    // Prefill's weights come from memory too, but once in many rows: one copy will do.
    const double seconds = BestSeconds(pool, [&](int i) {
      layers[num_rows < 32 ? i % num_copies : 0]->Forward(x.data(), shape.in_features, num_rows,
                                                          y.data(), shape.out_features, pool);
    });
    const double flops = 2.0 * num_rows * shape.in_features * shape.out_features / seconds;
    const double weight_rate = layers[0]->weight_bytes() / seconds;
    results.push_back({{"type", type == WeightType::kFloat32 ? "float32" : "bfloat16"},
                       {"in_features", shape.in_features},
                       {"out_features", shape.out_features},
                       {"num_rows", num_rows},
                       {"microseconds", seconds * 1e6},
                       {"gflops", flops * 1e-9},
                       {"weight_gb_per_second", weight_rate * 1e-9},
                       {"fraction_of_read_rate", weight_rate / read_rate},
                       {"fraction_of_fma_rate", flops / fma_rate}});
  }
  return results;
}

// One request: six segments of 50 tokens (prefill), or one fused row over `num_keys` keys (decode).
struct AttentionCase {
  std::string name;
  int32_t num_segments, segment_length;  // decode: one run of one row when segment_length is 0
  int32_t num_keys;
  AttentionWindow window = {};
};

AttentionPlan PlanFor(const AttentionCase& test) {
  AttentionPlan plan;
  plan.slot_table.resize(test.num_keys);
  std::iota(plan.slot_table.begin(), plan.slot_table.end(), 0);
  if (test.segment_length == 0) {
    plan.intervals.push_back({0, test.num_keys, false});
    plan.runs.push_back({.row_begin = 0,
                         .row_end = 1,
                         .query_begin = test.num_keys - 1,
                         .interval_begin = 0,
                         .interval_end = 1,
                         .windowed_begin = 0,
                         .windowed_end = 1,
                         .position_begin = test.num_keys - 1});
    return plan;
  }
  for (int32_t i = 0; i < test.num_segments; ++i) {
    const int32_t begin = i * test.segment_length, end = begin + test.segment_length;
    plan.intervals.push_back({begin, end, false});
    plan.runs.push_back({.row_begin = begin,
                         .row_end = end,
                         .query_begin = begin,
                         .interval_begin = i,
                         .interval_end = i + 1,
                         .windowed_begin = i,
                         .windowed_end = i + 1,
                         .position_begin = begin});
  }
  return plan;
}

nlohmann::json BenchAttention(const AttentionCase& test, KvType type, ThreadPool& pool) {
  const AttentionPlan plan = PlanFor(test);
  const AttentionShape shape{9, 3, 64, 0.125f};
  const int64_t num_rows = plan.runs.back().row_end;
  const int64_t kv_size = int64_t{test.num_keys} * shape.num_kv_heads * shape.head_dim;
  const TilePlan tiles = PlanCpuTiles(plan, shape, test.window);
  const std::vector<float> q = RandomFloats(num_rows * shape.num_heads * shape.head_dim);
  std::vector<float> out(q.size());
  // Bits below 0x3F80 are bfloat16 numbers in [0, 1), and two of them a float32 in [0, 1).
  constexpr int kLayers = 30;
  const int64_t elements = kv_size * (type == KvType::kFloat32 ? 2 : 1);
  std::vector<uint16_t> k(elements * kLayers, 0x3E80), v(elements * kLayers, 0x3E80);
  const double seconds = BestSeconds(pool, [&](int i) {
    const int64_t offset = i % kLayers * elements;
    AttentionArgs args;
    args.shape = shape;
    args.q = q.data();
    args.kv = {type, k.data() + offset, v.data() + offset, test.num_keys};
    args.out = out.data();
    args.window = test.window;
    SegmentAttentionCpu(plan, tiles, args, pool);
  });
  return {{"name", test.name},
          {"type", type == KvType::kFloat32 ? "float32" : "bfloat16"},
          {"num_keys", test.num_keys},
          {"microseconds_a_layer", seconds * 1e6},
          {"useful_gflops", 4e-9 * shape.head_dim * shape.num_heads *
                                CountAllowedPairs(tiles, test.window) / seconds},
          {"kv_gb_per_second", 2.0 * elements * sizeof(uint16_t) / seconds * 1e-9}};
}

nlohmann::json BenchAllLinear(double read_rate, double fma_rate, ThreadPool& pool) {
  nlohmann::json results = nlohmann::json::array();
  for (WeightType type : {WeightType::kBFloat16, WeightType::kFloat32}) {
    for (const Shape& shape : {Shape{576, 960}, Shape{576, 576}, Shape{576, 3072}, Shape{1536, 576},
                               Shape{576, 49152}}) {
      for (auto& result : BenchLinear(shape, type, read_rate, fma_rate, pool)) {
        results.push_back(std::move(result));
      }
    }
  }
  return results;
}

nlohmann::json BenchAllAttention(ThreadPool& pool) {
  nlohmann::json results = nlohmann::json::array();
  for (KvType type : {KvType::kBFloat16, KvType::kFloat32}) {
    results.push_back(BenchAttention({"prefill 6 x 50", 6, 50, 300}, type, pool));
    for (int32_t num_keys : {300, 1000, 2000, 4000, 8000}) {
      results.push_back(BenchAttention({"decode", 0, 0, num_keys}, type, pool));
    }
    const AttentionWindow window = {AttentionWindow::Kind::kSliding, 1000};
    results.push_back(BenchAttention({"decode, window 1000", 0, 0, 8000, window}, type, pool));
    results.push_back(BenchAttention({"prefill 1 x 4000", 1, 4000, 4000}, type, pool));
    results.push_back(
        BenchAttention({"prefill 1 x 4000, window 1000", 1, 4000, 4000, window}, type, pool));
  }
  return results;
}

void Main(int num_threads, const std::string& part) {
  ThreadPool pool(num_threads);
  const double read_rate = ReadBytesPerSecond(pool);
  const double fma_rate = FlopsPerSecond(pool, MultiplyAddMany);
  nlohmann::json report = {{"threads", num_threads},
                           {"read_gb_per_second", read_rate * 1e-9},
                           {"fma_gflops", fma_rate * 1e-9},
                           {"dot_gflops", nullptr}};
  if (HasBFloat16Dot()) {
    report["dot_gflops"] = FlopsPerSecond(pool, MultiplyAddPairsMany) * 1e-9;
  }
  if (part != "attention") report["linear"] = BenchAllLinear(read_rate, fma_rate, pool);
  if (part != "linear") report["attention"] = BenchAllAttention(pool);
  std::puts(report.dump(1).c_str());
}

}  // namespace
}  // namespace chorus

int main(int argc, char** argv) {
  chorus::Main(argc > 1 ? std::max(1, std::atoi(argv[1])) : 2, argc > 2 ? argv[2] : "all");
}
