#pragma once

#include <cstdint>

#include "core/kernels/cuda/selection.h"

// SampleToken and what a runner reports beside the token, for a device: one block a choice, after
// the kernels of logit_kernels.h.
namespace chorus::device {

// `out`. Grid: [num_choices].
struct ChooseTokensKernel {
  static constexpr int kThreads = kChoiceThreads;
  static constexpr int kSharedBytes = kSelectionBytes;
  using Launch = SamplingLaunch;

  // A row and its splits.
  struct Source {
    const float* x;
    const SplitStatistics* splits;
  };

  // Read where it is needed: it is too large to be kept in registers.
  CHORUS_DEVICE static DeviceChoice Choice(const Launch& launch) {
    return LoadGlobal(launch.in.choices + BlockX());
  }

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress shared) {
    const Source combined = Combined(launch);
    const RowSummary summary = SummaryOfWarp(combined.splits, launch.num_splits);
    Source logits = combined;
    RowSummary changed = summary;
    const int32_t changed_row = Choice(launch).changed_row;
    if (changed_row >= 0) {
      logits.x = launch.changed + int64_t{changed_row} * launch.vocab_size;
      logits.splits = launch.of_changed + int64_t{changed_row} * launch.num_splits;
      changed = SummaryOfWarp(logits.splits, launch.num_splits);
    }
    DeviceChosen chosen;
    chosen.status = StatusOf(summary, changed);
    const Selection selection{shared};
    if (chosen.status == ChoiceStatus::kOk) {
      const RowView view = {logits.x, launch.vocab_size, changed.best.value,
                            Choice(launch).inverse_temperature};
      chosen.token_id =
          view.inverse_temperature == 0.0f ? changed.best.id : Draw(launch, selection, view);
      chosen.logprob = Logprob(combined.x, chosen.token_id, summary.log_sum);
      if (Choice(launch).top_logprobs > 0) {
        WriteTopLogprobs(launch, selection,
                         {combined.x, launch.vocab_size, summary.best.value, 1.0f},
                         summary.log_sum);
      }
      WriteTargets(launch, combined.x, summary.log_sum, 0, ThreadIndex(), kThreads);
    }
    WriteTargetRows(launch);
    chosen.disagreement = Disagreement(launch);
    if (ThreadIndex() == 0) StoreGlobal(launch.out.chosen + BlockX(), chosen);
  }

  CHORUS_DEVICE static Source Combined(const Launch& launch) {
    const DeviceChoice choice = Choice(launch);
    if (choice.rule == LogitRule::kNone) {
      return {LogitRow(launch, choice.rows.begin), StatisticsOfRow(launch, choice.rows.begin)};
    }
    const SplitStatistics* splits =
        AdjustLogitsKernel::Normalises(choice) ? launch.of_combined : launch.of_means;
    return {launch.combined + int64_t{BlockX()} * launch.vocab_size,
            splits + int64_t{BlockX()} * launch.num_splits};
  }

  CHORUS_DEVICE static ChoiceStatus StatusOf(const RowSummary& combined,
                                             const RowSummary& changed) {
    if (!combined.is_finite()) return ChoiceStatus::kNotFinite;
    if (changed.is_finite()) return ChoiceStatus::kOk;
    return changed.best.value == MinusInfinity() ? ChoiceStatus::kNoTokenLeft
                                                 : ChoiceStatus::kBiasedNotFinite;
  }

  CHORUS_DEVICE static float Logprob(const float* row, int32_t id, double log_sum) {
    return static_cast<float>(double{LoadGlobal(row + id)} - log_sum);
  }

  CHORUS_DEVICE static int32_t Draw(const Launch& launch, const Selection& selection,
                                    const RowView& view) {
    const Cut cut = Truncate(launch, selection, view);
    const float min_p = Choice(launch).min_p;
    const uint64_t draw = Choice(launch).draw;
    return selection.Locate(
        view,
        [&](float x, int32_t id) -> uint64_t {
          return cut.Holds(x, id) && view.Exponential(x) >= min_p ? view.Mass(x) : 0;
        },
        // Running sums are integers: above draw * total is from its floor plus one on.
        [&](uint64_t total) { return MultiplyHigh(draw, total) + 1; });
  }

  // What top_k and top_p leave. Tokens without mass are neither counted nor drawn.
  CHORUS_DEVICE static Cut Truncate(const Launch& launch, const Selection& selection,
                                    const RowView& view) {
    Cut cut;
    const auto has_mass = [&](float x) -> uint64_t { return view.Mass(x) != 0 ? 1 : 0; };
    const auto kept_mass = [&](float x, int32_t id) -> uint64_t {
      return cut.Holds(x, id) ? view.Mass(x) : 0;
    };
    const int32_t top_k = Choice(launch).top_k;
    if (top_k > 0 && top_k < view.size) {
      selection.SumChunks(view, [&](float x, int32_t) { return has_mass(x); });
      const uint64_t wanted = static_cast<uint64_t>(top_k);
      if (wanted < selection.Total()) cut = selection.Select(view, has_mass, wanted);
    }
    const uint64_t top_p = Choice(launch).top_p;
    if (top_p != 0) {
      selection.SumChunks(view, kept_mass);
      const uint64_t total = selection.Total();
      // Rounded up: the start is to hold top_p of the total, and one token at least.
      const uint64_t product = MultiplyHigh(top_p, total);
      const uint64_t target = product + (top_p * total != 0 ? 1 : 0);
      cut = selection.Select(
          view, [&](float x) { return view.Mass(x); }, target > 0 ? target : 1);
    }
    return cut;
  }

  // Gathers the best in any order, then each finds its rank.
  CHORUS_DEVICE static void WriteTopLogprobs(const Launch& launch, const Selection& selection,
                                             const RowView& view, double log_sum) {
    const int32_t wanted = Choice(launch).top_logprobs;
    const Cut cut = selection.Select(
        view, [](float) -> uint64_t { return 1; }, static_cast<uint64_t>(wanted));
    selection.ClearBins();
    const SharedAddress list = selection.shared + kListAt;  // pairs of key and id
    const SharedAddress counter = selection.shared + kCounterAt;
#pragma unroll 4
    for (int32_t id = ThreadIndex(); id < view.size; id += kThreads) {
      const float x = LoadGlobal(view.x + id);
      if (!cut.Holds(x, id)) continue;
      const uint32_t place = AddShared32(counter, 1);
      StoreShared32(list + place * 8, KeyOf(x));
      StoreShared32(list + place * 8 + 4, static_cast<uint32_t>(id));
    }
    SyncThreads();
    const int32_t top_begin = Choice(launch).top_begin;
    for (int32_t i = ThreadIndex(); i < wanted; i += kThreads) {
      const uint32_t key = LoadShared32(list + i * 8), id = LoadShared32(list + i * 8 + 4);
      int32_t rank = 0;
      for (int32_t j = 0; j < wanted; ++j) {
        const uint32_t other = LoadShared32(list + j * 8);
        if (other < key || (other == key && LoadShared32(list + j * 8 + 4) < id)) ++rank;
      }
      const int32_t token_id = static_cast<int32_t>(id);
      StoreGlobal(launch.out.top_logprobs + top_begin + rank,
                  DeviceLogprob{token_id, Logprob(view.x, token_id, log_sum)});
    }
    SyncThreads();
  }

  // Row `out_row` of the choice's target_logprobs, by threads `first`, `first` + `stride`, ...
  CHORUS_DEVICE static void WriteTargets(const Launch& launch, const float* row, double log_sum,
                                         int32_t out_row, int first, int stride) {
    const DeviceChoice choice = Choice(launch);
    const int32_t num_targets = choice.targets.end - choice.targets.begin;
    float* to = launch.out.target_logprobs + choice.target_begin + out_row * num_targets;
    for (int32_t i = first; i < num_targets; i += stride) {
      const int32_t id = LoadGlobal(launch.in.token_ids + choice.targets.begin + i);
      StoreGlobal(to + i, Logprob(row, id, log_sum));
    }
  }

  // A warp takes a row at a time.
  CHORUS_DEVICE static void WriteTargetRows(const Launch& launch) {
    const IndexRange rows = Choice(launch).target_rows;
    for (int32_t i = rows.begin + ThreadIndex() / kWarpSize; i < rows.end; i += kChoiceWarps) {
      const RowSummary summary = SummaryOfWarp(StatisticsOfRow(launch, i), launch.num_splits);
      WriteTargets(launch, LogitRow(launch, i),
                   summary.is_finite() ? summary.log_sum : double{Nan()}, i - rows.begin + 1,
                   ThreadIndex() % kWarpSize, kWarpSize);
    }
  }

  // In bits; the splits are added in order. NaN stays.
  CHORUS_DEVICE static float Disagreement(const Launch& launch) {
    const IndexRange rows = Choice(launch).compared_rows;
    const int32_t num_rows = rows.end - rows.begin;
    if (num_rows == 0 || ThreadIndex() != 0) return 0.0f;
    double sum = 0.0;
    for (int32_t i = 0; i < launch.num_splits; ++i) {
      sum += LoadGlobal(launch.divergences + int64_t{BlockX()} * launch.num_splits + i);
    }
    const double bits = sum / (num_rows * kLn2Double), limit = Log(static_cast<double>(num_rows)) / kLn2Double;
    return static_cast<float>(bits < 0.0 ? 0.0 : bits > limit ? limit : bits);
  }
};

}  // namespace chorus::device
