#include "core/model/device_graphs.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "core/base/status_macros.h"

namespace chorus {
namespace {

constexpr int32_t kRowBuckets[] = {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128};
// Padding spans end at once, but cost a thread block a kv head each; few are free, as processors
// stand idle. A row of 364 keys is 3 spans, of 4096 and more 32, and some more if it is cut where
// scaled segments begin. That is 80 graphs for 128 rows.
constexpr int32_t kSpansPerRow[] = {1, 2, 3, 4, 6, 8, 16, 32, 64};
constexpr int32_t kMinSpans = 16;
constexpr int64_t kMaxWorkspaceBytes = int64_t{128} << 20;
constexpr int64_t kMaxTableEntries = int64_t{4} << 20;

std::vector<StepBucket> MakeBuckets(int32_t max_rows, int32_t max_spans) {
  std::vector<StepBucket> buckets;
  for (const int32_t num_rows : kRowBuckets) {
    if (num_rows > max_rows) break;
    int32_t last = 0;
    for (const int32_t per_row : kSpansPerRow) {
      const int32_t num_spans = std::min(std::max(num_rows * per_row, kMinSpans), max_spans);
      if (num_spans > last) buckets.push_back({num_rows, num_spans});
      last = num_spans;
    }
  }
  return buckets;
}

}  // namespace

DeviceActivations DeviceGraphs::activations() const {
  int64_t num_bytes = 0;
  return DeviceActivations::Place(config_, max_rows_, activations_.data(), &num_bytes);
}

DeviceForwardArgs DeviceGraphs::ArgsOf(const DeviceStep& step) const {
  return {.step = step.ViewAt(step_.data()),
          .activations = activations(),
          .kv = kv_,
          .attention_workspace = reinterpret_cast<float*>(workspace_.data())};
}

absl::Status DeviceGraphs::Reserve(const std::vector<StepBucket>& buckets, int64_t num_slots,
                                   const DeviceKernels& kernels) {
  int32_t max_spans = 0;
  int64_t step_bytes = 0;
  for (const StepBucket& bucket : buckets) {
    max_rows_ = std::max(max_rows_, bucket.num_rows);
    max_spans = std::max(max_spans, bucket.num_spans);
    DeviceStep step(bucket, traits_);
    step.Pack();
    step_bytes = std::max(step_bytes, static_cast<int64_t>(step.bytes().size()));
  }
  max_table_entries_ = std::min(2 * num_slots, kMaxTableEntries);
  CHORUS_RETURN_IF_ERROR(step_.Reserve(step_bytes + 4 * max_table_entries_));
  int64_t num_bytes = 0;
  DeviceActivations::Place(config_, max_rows_, nullptr, &num_bytes);
  CHORUS_RETURN_IF_ERROR(activations_.Reserve(num_bytes));
  if (!kernels.TakesShape(traits_.shape)) return absl::OkStatus();
  return workspace_.Reserve(4 * kernels.AttentionWorkspaceFloats(traits_.shape, max_spans));
}

absl::Status DeviceGraphs::Record(int32_t max_rows, int64_t num_slots,
                                  const std::function<void(int done, int total)>& progress,
                                  DeviceStream& stream) {
  const DeviceKernels& kernels = stream.kernels();
  int64_t max_spans = int64_t{1} << 16;
  if (kernels.TakesShape(traits_.shape)) {
    max_spans = std::min(
        max_spans, kMaxWorkspaceBytes / (4 * kernels.AttentionWorkspaceFloats(traits_.shape, 1)));
  }
  const std::vector<StepBucket> buckets = MakeBuckets(max_rows, static_cast<int32_t>(max_spans));
  CHORUS_RETURN_IF_ERROR(Reserve(buckets, num_slots, kernels));
  for (const StepBucket& bucket : buckets) {
    DeviceStep step(bucket, traits_);
    step.Pack();
    const DeviceForwardArgs args = ArgsOf(step);
    // Once for real, so that whatever is loaded or chosen when first used is there.
    if (recorded_.empty() || recorded_.back().bucket.num_rows != bucket.num_rows) {
      CHORUS_RETURN_IF_ERROR(stream.Upload(step_.data(), step.bytes().data(),
                                           static_cast<int64_t>(step.bytes().size())));
      CHORUS_RETURN_IF_ERROR(model_.Forward(args, stream));
      CHORUS_RETURN_IF_ERROR(stream.Wait());
    }
    CHORUS_RETURN_IF_ERROR(stream.BeginRecording());
    const absl::Status status = model_.Forward(args, stream);
    absl::StatusOr<std::unique_ptr<DeviceGraph>> graph = stream.EndRecording();
    CHORUS_RETURN_IF_ERROR(status);
    CHORUS_RETURN_IF_ERROR(graph.status());
    recorded_.push_back({bucket, *std::move(graph)});
    if (progress) {
      progress(static_cast<int>(recorded_.size()), static_cast<int>(buckets.size()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> DeviceGraphs::Run(DeviceStep& step, DeviceStream& stream) {
  if (!step.is_decode() || step.num_table_entries() > max_table_entries_) return false;
  const auto holds = [&](const Recorded& recorded) {
    return recorded.bucket.num_rows >= step.num_rows() &&
           recorded.bucket.num_spans >= step.num_spans();
  };
  const auto recorded = std::find_if(recorded_.begin(), recorded_.end(), holds);
  if (recorded == recorded_.end()) return false;
  step.PadTo(recorded->bucket);
  step.Pack();
  CHORUS_RETURN_IF_ERROR(
      stream.Upload(step_.data(), step.bytes().data(), static_cast<int64_t>(step.bytes().size())));
  CHORUS_RETURN_IF_ERROR(stream.Launch(*recorded->graph));
  return true;
}

}  // namespace chorus
