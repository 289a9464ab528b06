// What making a mask costs, as JSON: compiling rules to rows of key ranges, then the forms made
// from them, at 512 to 4,096 tokens and for a layout of 100,000 tokens in 200 segments. Times are
// the best of several repeats, on one thread. peak_megabytes is how far the largest case, which
// runs first, raised the process' high-water mark of resident memory.
//
//   mask_bench

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <sys/resource.h>

#include "nlohmann/json.hpp"

#include "core/segment/block_mask.h"
#include "core/segment/causal_mask.h"
#include "core/segment/chunked_mask.h"
#include "core/segment/composed_mask.h"
#include "core/segment/dense_mask.h"
#include "core/segment/layout_mask.h"
#include "core/segment/mask_rows.h"
#include "core/segment/mask_statistics.h"
#include "core/segment/padding_mask.h"
#include "core/segment/row_intervals.h"
#include "core/segment/sampled_positions.h"
#include "core/segment/sliding_window_mask.h"

namespace chorus {
namespace {

double BestMilliseconds(const std::function<void()>& body) {
  double best = INFINITY, total = 0.0;
  for (int i = 0; i < 5 || (total < 200.0 && i < 1000); ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double, std::milli> elapsed =
        std::chrono::steady_clock::now() - start;
    best = std::min(best, elapsed.count());
    total += elapsed.count();
  }
  return best;
}

double PeakMegabytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

// `num_segments` of equal length, five separator tokens after each but the last, 5 generated
// tokens.
SegmentLayout Layout(int32_t length, int32_t num_segments) {
  const int32_t original_length = length - 5, stride = original_length / num_segments;
  std::vector<TokenRange> segments;
  for (int32_t i = 0; i < num_segments; ++i) segments.push_back({i * stride, (i + 1) * stride - 5});
  return SegmentLayout::FromRanges(0, std::move(segments), original_length, length,
                                   PositionMode::kSequential)
      .value();
}

// Statistics and sampled picture of a large layout, as `chorus mask` makes them.
nlohmann::json BenchLargeLayout() {
  constexpr int32_t kLength = 100'000, kSegments = 200;
  const double before = PeakMegabytes();
  const auto start = std::chrono::steady_clock::now();
  const LayoutMask mask(Layout(kLength, kSegments));
  const MaskRows rows = MaskRows::Compile(mask, {.num_queries = kLength, .num_keys = kLength});
  const MaskStatistics statistics = Summarise(rows, {});
  const std::vector<int32_t> positions =
      SamplePositions(mask.layout(), kLength, {.max_positions = 30}).value();
  int64_t shown = 0;
  for (int32_t q : positions) {
    for (int32_t k : positions) shown += rows.Allows(q, k);
  }
  const std::chrono::duration<double, std::milli> elapsed =
      std::chrono::steady_clock::now() - start;
  const double peak = PeakMegabytes() - before;
  return {{"length", kLength},
          {"segments", kSegments},
          {"allowed", statistics.allowed},
          {"tiles_skipped", statistics.tiles_skipped},
          {"tiles", statistics.tiles},
          {"shown_allowed", shown},
          {"first_time_milliseconds", elapsed.count()},
          {"peak_megabytes", peak},
          {"row_intervals_milliseconds", BestMilliseconds([&] {
             RowIntervals::FromLayout(mask.layout(), kLength, /*split_segment_columns=*/false);
           })}};
}

nlohmann::json BenchMask(const std::string& name, const Mask& mask, int32_t length) {
  const MaskRows::Slice slice = {.num_queries = length, .num_keys = length};
  const MaskRows rows = MaskRows::Compile(mask, slice);
  return {{"mask", name},
          {"length", length},
          {"allowed", rows.CountAllowed()},
          {"rows_milliseconds", BestMilliseconds([&] { MaskRows::Compile(mask, slice); })},
          {"blocks_milliseconds", BestMilliseconds([&] { BlockMask::FromRows(rows, {}); })},
          {"boolean_milliseconds", BestMilliseconds([&] { ToBoolean({rows}); })},
          {"float32_milliseconds", BestMilliseconds([&] { ToAdditiveFloat32({rows}); })}};
}

nlohmann::json BenchLength(int32_t length) {
  std::vector<uint8_t> valid(length, 1);
  std::fill_n(valid.begin(), length / 8, 0);
  const std::pair<const char*, Mask> masks[] = {
      {"causal", CausalMask()},
      {"sliding_window", SlidingWindowMask(256)},
      {"chunked", AndMask({CausalMask(), ChunkedMask(256)})},
      {"padding", AndMask({CausalMask(), PaddingMask::Create(1, length, valid).value()})},
      {"segments", LayoutMask(Layout(length, 6))}};
  nlohmann::json results = nlohmann::json::array();
  for (const auto& [name, mask] : masks) results.push_back(BenchMask(name, mask, length));
  return results;
}

void Main() {
  nlohmann::json report = {{"large_layout", BenchLargeLayout()},
                           {"masks", nlohmann::json::array()}};
  for (int32_t length : {512, 1024, 2048, 4096}) {
    for (auto& result : BenchLength(length)) report["masks"].push_back(std::move(result));
  }
  std::puts(report.dump(1).c_str());
}

}  // namespace
}  // namespace chorus

int main() { chorus::Main(); }
