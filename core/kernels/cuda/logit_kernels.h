#pragma once

#include <cstdint>

#include "core/kernels/cuda/device.h"
#include "core/kernels/cuda/sampling_types.h"

// The functions of logit_combiner.h for a device: statistics of rows, their combination, bias, bans
// and penalties, and the divergence of compared rows. A block takes kSplitSize entries of a row.
// Every sum has an order that depends on the vocabulary's size and the choice's own rows only, so
// that a result is the same whatever else is in the launch. NaN is kept as the CPU keeps it.
namespace chorus::device {

inline constexpr int kSplitThreads = 256;
inline constexpr int kSplitWarps = kSplitThreads / kWarpSize;
inline constexpr int kEntriesOfThread = kSplitSize / kSplitThreads;
inline constexpr float kLog2OfE = 1.4426950408889634f;
inline constexpr double kLn2Double = 0.6931471805599453;

CHORUS_DEVICE float Nan() { return FloatFromBits(0x7FC00000u); }
CHORUS_DEVICE bool IsFinite(float x) { return Abs(x) < -MinusInfinity(); }
// NaN wins.
CHORUS_DEVICE float MaxOrNan(float a, float b) { return b > a || b != b ? b : a; }
CHORUS_DEVICE float Exp(float x) { return Exp2(x * kLog2OfE); }

template <class T>
CHORUS_DEVICE T SumOfLanes(T value) {
#pragma unroll
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) value += ShuffleXor(value, mask);
  return value;
}

// An entry and the lowest id that has it.
struct Best {
  float value;
  int32_t id;

  CHORUS_DEVICE void Take(float other, int32_t other_id) {
    if (other == value ? other_id < id : MaxOrNan(value, other) != value) {
      value = MaxOrNan(value, other);
      id = other_id;
    }
  }
  CHORUS_DEVICE void TakeLanes() {
#pragma unroll
    for (int mask = kWarpSize / 2; mask > 0; mask /= 2) {
      const float other = ShuffleXor(value, mask);
      Take(other, ShuffleXor(id, mask));
    }
  }
};

struct RowSummary {
  Best best;
  double log_sum;  // natural logarithm of sum exp; the largest entry where that is not finite

  CHORUS_DEVICE bool is_finite() const { return IsFinite(best.value); }
};

// Merges a row's splits. Called by whole warps; all lanes get the result.
CHORUS_DEVICE RowSummary SummaryOfWarp(const SplitStatistics* splits, int32_t num_splits) {
  const int lane = ThreadIndex() % kWarpSize;
  RowSummary summary = {{MinusInfinity(), 0x7FFFFFFF}, 0.0};
  for (int32_t i = lane; i < num_splits; i += kWarpSize) {
    summary.best.Take(LoadGlobal(&splits[i].largest), LoadGlobal(&splits[i].best));
  }
  summary.best.TakeLanes();
  const float largest = summary.best.value;
  float sum = 0.0f;
  for (int32_t i = lane; i < num_splits && summary.is_finite(); i += kWarpSize) {
    sum += LoadGlobal(&splits[i].sum) * Exp(LoadGlobal(&splits[i].largest) - largest);
  }
  sum = SumOfLanes(sum);
  summary.log_sum = summary.is_finite() ? double{largest} + Log(double{sum}) : double{largest};
  return summary;
}

// A thread's entries of a block's split: kSplitThreads apart, from `first` on; those past the end
// of the row are minus infinity.
struct SplitEntries {
  float x[kEntriesOfThread];
  int32_t first;
  int32_t size;  // of the row

  CHORUS_DEVICE SplitEntries(int32_t split, int32_t vocab_size)
      : first(split * kSplitSize + ThreadIndex()), size(vocab_size) {}
  CHORUS_DEVICE int32_t Id(int j) const { return first + j * kSplitThreads; }

  template <class ValueOf>
  CHORUS_DEVICE void Fill(const ValueOf& value_of) {
#pragma unroll
    for (int j = 0; j < kEntriesOfThread; ++j) {
      x[j] = Id(j) < size ? value_of(Id(j)) : MinusInfinity();
    }
  }
  CHORUS_DEVICE void Store(float* row) const {
#pragma unroll
    for (int j = 0; j < kEntriesOfThread; ++j) {
      if (Id(j) < size) StoreGlobal(row + Id(j), x[j]);
    }
  }
};

inline constexpr int kStatisticsBytes = kSplitWarps * 12;

// Of the block's split; `shared` holds kStatisticsBytes that nobody else uses in this launch.
CHORUS_DEVICE void StoreStatistics(const SplitEntries& entries, SplitStatistics* to,
                                   SharedAddress shared) {
  Best best = {MinusInfinity(), entries.first};
#pragma unroll
  for (int j = 0; j < kEntriesOfThread; ++j) best.Take(entries.x[j], entries.Id(j));
  best.TakeLanes();
  const SharedAddress of_warp = shared + ThreadIndex() / kWarpSize * 12;
  const bool is_first = ThreadIndex() % kWarpSize == 0;
  if (is_first) {
    StoreShared(of_warp, best.value);
    StoreShared32(of_warp + 4, static_cast<uint32_t>(best.id));
  }
  SyncThreads();
#pragma unroll
  for (int warp = 0; warp < kSplitWarps; ++warp) {
    best.Take(LoadShared(shared + warp * 12),
              static_cast<int32_t>(LoadShared32(shared + warp * 12 + 4)));
  }
  float sum = 0.0f;
  if (IsFinite(best.value)) {
#pragma unroll
    for (int j = 0; j < kEntriesOfThread; ++j) sum += Exp(entries.x[j] - best.value);
  }
  sum = SumOfLanes(sum);
  if (is_first) StoreShared(of_warp + 8, sum);
  SyncThreads();
  if (ThreadIndex() != 0) return;
  sum = 0.0f;
#pragma unroll
  for (int warp = 0; warp < kSplitWarps; ++warp) sum += LoadShared(shared + warp * 12 + 8);
  StoreGlobal(&to->largest, best.value);
  StoreGlobal(&to->sum, sum);
  StoreGlobal(&to->best, best.id);
}

CHORUS_DEVICE const float* LogitRow(const SamplingLaunch& launch, int32_t index) {
  return launch.logits + int64_t{LoadGlobal(launch.in.row_indices + index)} * launch.vocab_size;
}
CHORUS_DEVICE const SplitStatistics* StatisticsOfRow(const SamplingLaunch& launch, int32_t index) {
  return launch.of_rows + int64_t{LoadGlobal(launch.in.row_indices + index)} * launch.num_splits;
}

// shared[i] = shift_of(index, log_sum) of the i-th of `rows`. Ends with a barrier.
template <class ShiftOf>
CHORUS_DEVICE void StoreShifts(const SamplingLaunch& launch, IndexRange rows,
                               const ShiftOf& shift_of, SharedAddress shared) {
  for (int32_t i = rows.begin + ThreadIndex() / kWarpSize; i < rows.end; i += kSplitWarps) {
    const RowSummary summary = SummaryOfWarp(StatisticsOfRow(launch, i), launch.num_splits);
    if (ThreadIndex() % kWarpSize == 0) {
      StoreShared(shared + (i - rows.begin) * 4, shift_of(i, summary));
    }
  }
  SyncThreads();
}

// of_rows. Grid: [num_rows, num_splits].
struct RowStatisticsKernel {
  static constexpr int kThreads = kSplitThreads;
  static constexpr int kSharedBytes = kStatisticsBytes;
  using Launch = SamplingLaunch;

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress shared) {
    const float* row = launch.logits + int64_t{BlockX()} * launch.vocab_size;
    SplitEntries entries(BlockY(), launch.vocab_size);
    entries.Fill([&](int32_t id) { return LoadGlobal(row + id); });
    StoreStatistics(entries, launch.of_rows + int64_t{BlockX()} * launch.num_splits + BlockY(),
                    shared);
  }
};

// `combined`, not normalised yet, and of_means. Nothing for kNone unless the row is wanted. Sums
// are in the order of the rows. Grid: [num_choices, num_splits].
struct CombineLogitsKernel {
  static constexpr int kThreads = kSplitThreads;
  static constexpr int kSharedBytes = kStatisticsBytes + kMaxRowsOfChoice * 4;
  using Launch = SamplingLaunch;

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress shared) {
    const DeviceChoice choice = LoadGlobal(launch.in.choices + BlockX());
    if (choice.rule == LogitRule::kNone && choice.wants_logits == 0) return;
    const SharedAddress shifts = shared + kStatisticsBytes;
    SplitEntries entries(BlockY(), launch.vocab_size);
    if (choice.rule == LogitRule::kNone) {
      const float* row = LogitRow(launch, choice.rows.begin);
      entries.Fill([&](int32_t id) { return LoadGlobal(row + id); });
    } else if (choice.rule == LogitRule::kLogitMean) {
      entries.Fill([&](int32_t id) { return MeanAt(launch, choice, id); });
    } else if (choice.rule == LogitRule::kLogitMax) {
      entries.Fill([&](int32_t id) {
        float largest = MinusInfinity();
        for (int32_t i = choice.rows.begin; i < choice.rows.end; ++i) {
          largest = MaxOrNan(largest, LoadGlobal(LogitRow(launch, i) + id));
        }
        return largest;
      });
    } else {
      StoreShifts(
          launch, choice.rows,
          [&](int32_t i, const RowSummary& summary) { return Shift(launch, choice, i, summary); },
          shifts);
      entries.Fill([&](int32_t id) { return ProbabilityAt(launch, choice, id, shifts); });
    }
    entries.Store(launch.combined + int64_t{BlockX()} * launch.vocab_size);
    StoreStatistics(entries, launch.of_means + int64_t{BlockX()} * launch.num_splits + BlockY(),
                    shared);
  }

  CHORUS_DEVICE static float MeanAt(const Launch& launch, const DeviceChoice& choice, int32_t id) {
    double sum = 0.0;
    for (int32_t i = choice.rows.begin; i < choice.rows.end; ++i) {
      const double x = LoadGlobal(LogitRow(launch, i) + id);
      if (choice.weights_begin < 0) {
        sum += x;
        continue;
      }
      const float weight =
          LoadGlobal(launch.in.weights + choice.weights_begin + i - choice.rows.begin);
      // A weight of zero takes the row out, even where it is infinite.
      if (weight != 0.0f) sum += double{weight} * x;
    }
    const double equal = 1.0 / (choice.rows.end - choice.rows.begin);
    return static_cast<float>(choice.weights_begin < 0 ? sum * equal : sum);
  }

  // What makes a row log w softmax(row) when added; NaN if its log-sum-exp is not finite, plus
  // infinity if the row is out.
  CHORUS_DEVICE static float Shift(const Launch& launch, const DeviceChoice& choice, int32_t i,
                                   const RowSummary& summary) {
    double log_weight = 0.0;
    if (choice.rule == LogitRule::kProbMean && choice.weights_begin >= 0) {
      const float weight =
          LoadGlobal(launch.in.weights + choice.weights_begin + i - choice.rows.begin);
      if (weight == 0.0f) return -MinusInfinity();
      log_weight = Log(double{weight});
    }
    return summary.is_finite() ? static_cast<float>(log_weight - summary.log_sum) : Nan();
  }

  // log of the sum, or of the largest, of the rows' shifted exponentials.
  CHORUS_DEVICE static float ProbabilityAt(const Launch& launch, const DeviceChoice& choice,
                                           int32_t id, SharedAddress shifts) {
    const auto for_each = [&](const auto& take) {
      for (int32_t i = choice.rows.begin; i < choice.rows.end; ++i) {
        const float shift = LoadShared(shifts + (i - choice.rows.begin) * 4);
        if (shift != -MinusInfinity()) take(LoadGlobal(LogitRow(launch, i) + id) + shift);
      }
    };
    float largest = MinusInfinity();
    for_each([&](float value) { largest = MaxOrNan(largest, value); });
    if (choice.rule == LogitRule::kProbMax || largest == MinusInfinity()) return largest;
    float sum = 0.0f;  // at least 1
    for_each([&](float value) { sum += Exp(value - largest); });
    return largest + Log2(sum) * static_cast<float>(kLn2Double);
  }
};

// The last two steps to the logits that a token is chosen from: kProbMean and kProbMax are
// normalised (of_combined); bias, bans and penalties go into `changed` (of_changed). Grid:
// [num_choices, num_splits].
struct AdjustLogitsKernel {
  static constexpr int kThreads = kSplitThreads;
  static constexpr int kSharedBytes = 2 * kStatisticsBytes;
  using Launch = SamplingLaunch;

  CHORUS_DEVICE static bool Normalises(const DeviceChoice& choice) {
    return choice.rule == LogitRule::kProbMean || choice.rule == LogitRule::kProbMax;
  }

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress shared) {
    const DeviceChoice choice = LoadGlobal(launch.in.choices + BlockX());
    const int64_t splits = int64_t{BlockX()} * launch.num_splits;
    float* combined = launch.combined + int64_t{BlockX()} * launch.vocab_size;
    SplitEntries entries(BlockY(), launch.vocab_size);
    if (Normalises(choice)) {
      const float total =
          static_cast<float>(SummaryOfWarp(launch.of_means + splits, launch.num_splits).log_sum);
      entries.Fill([&](int32_t id) { return LoadGlobal(combined + id) - total; });
      entries.Store(combined);
      StoreStatistics(entries, launch.of_combined + splits + BlockY(), shared);
    }
    if (choice.changed_row < 0) return;
    const float* from =
        choice.rule == LogitRule::kNone ? LogitRow(launch, choice.rows.begin) : combined;
    float* to = launch.changed + int64_t{choice.changed_row} * launch.vocab_size;
    // A thread reads back what it wrote to `combined` itself.
    const bool has_allowed = choice.has_allowed != 0;
    entries.Fill([&](int32_t id) { return has_allowed ? MinusInfinity() : LoadGlobal(from + id); });
    entries.Store(to);
    SyncThreads();
    ApplyBiasAndBans(launch, choice, from, to);
    ApplyPenalties(launch, choice, to);
    entries.Fill([&](int32_t id) { return LoadGlobal(to + id); });
    const int64_t changed_splits = int64_t{choice.changed_row} * launch.num_splits;
    StoreStatistics(entries, launch.of_changed + changed_splits + BlockY(),
                    shared + kStatisticsBytes);
  }

  CHORUS_DEVICE static bool IsHere(int32_t id) { return id / kSplitSize == BlockY(); }

  // As biases are finite, what is not allowed stays at minus infinity.
  CHORUS_DEVICE static void ApplyBiasAndBans(const Launch& launch, const DeviceChoice& choice,
                                             const float* from, float* to) {
    for (int32_t i = choice.allowed.begin + ThreadIndex(); i < choice.allowed.end; i += kThreads) {
      const int32_t id = LoadGlobal(launch.in.token_ids + i);
      if (IsHere(id)) StoreGlobal(to + id, LoadGlobal(from + id));
    }
    SyncThreads();
    for (int32_t i = choice.biases.begin + ThreadIndex(); i < choice.biases.end; i += kThreads) {
      const TokenBias bias = LoadGlobal(launch.in.biases + i);
      if (IsHere(bias.token_id)) {
        StoreGlobal(to + bias.token_id, LoadGlobal(to + bias.token_id) + bias.bias);
      }
    }
    SyncThreads();
    for (int32_t i = choice.banned.begin + ThreadIndex(); i < choice.banned.end; i += kThreads) {
      const int32_t id = LoadGlobal(launch.in.token_ids + i);
      if (IsHere(id)) StoreGlobal(to + id, MinusInfinity());
    }
    SyncThreads();
  }

  CHORUS_DEVICE static void ApplyPenalties(const Launch& launch, const DeviceChoice& choice,
                                           float* to) {
    for (int32_t i = choice.counted.begin + ThreadIndex(); i < choice.counted.end; i += kThreads) {
      const TokenCount token = LoadGlobal(launch.in.counts + i);
      if (!IsHere(token.token_id)) continue;
      float logit = LoadGlobal(to + token.token_id);
      logit = logit > 0.0f ? logit / choice.repetition_penalty : logit * choice.repetition_penalty;
      if (token.count > 0) {
        logit -= choice.frequency_penalty * static_cast<float>(token.count);
        logit -= choice.presence_penalty;
      }
      StoreGlobal(to + token.token_id, logit);
    }
    SyncThreads();
  }
};

// The splits' parts of SumOfDivergences over the compared rows. Grid: [num_choices, num_splits].
struct DivergenceKernel {
  static constexpr int kThreads = kSplitThreads;
  static constexpr int kSharedBytes = kSplitWarps * 8 + kMaxRowsOfChoice * 4;
  using Launch = SamplingLaunch;

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress shared) {
    const IndexRange rows = LoadGlobal(&launch.in.choices[BlockX()].compared_rows);
    const int32_t num_rows = rows.end - rows.begin;
    if (num_rows == 0) return;
    const SharedAddress log_sums = shared + kSplitWarps * 8;
    StoreShifts(
        launch, rows,
        [](int32_t, const RowSummary& summary) {
          return summary.is_finite() ? static_cast<float>(summary.log_sum) : Nan();
        },
        log_sums);
    const float log_num_rows = static_cast<float>(Log(static_cast<double>(num_rows)));
    double sum = 0.0;
    for (int32_t id = BlockY() * kSplitSize + ThreadIndex();
         id < launch.vocab_size && id / kSplitSize == BlockY(); id += kThreads) {
      sum += DivergenceAt(launch, rows, id, log_sums, log_num_rows);
    }
    sum = SumOfLanes(sum);
    if (ThreadIndex() % kWarpSize == 0) {
      StoreShared64(shared + ThreadIndex() / kWarpSize * 8, DoubleBits(sum));
    }
    SyncThreads();
    if (ThreadIndex() != 0) return;
    sum = 0.0;
    for (int warp = 0; warp < kSplitWarps; ++warp) {
      sum += DoubleFromBits(LoadShared64(shared + warp * 8));
    }
    StoreGlobal(launch.divergences + int64_t{BlockX()} * launch.num_splits + BlockY(), sum);
  }

  // sum_r e_r y_r - M ln(M / n), where y are log-probabilities, e = exp(y), and M is the sum of e.
  CHORUS_DEVICE static float DivergenceAt(const Launch& launch, IndexRange rows, int32_t id,
                                          SharedAddress log_sums, float log_num_rows) {
    float mass = 0.0f, weighted = 0.0f;
    for (int32_t i = rows.begin; i < rows.end; ++i) {
      const float y =
          LoadGlobal(LogitRow(launch, i) + id) - LoadShared(log_sums + (i - rows.begin) * 4);
      const float e = Exp(y);
      mass += e;
      if (e != 0.0f) weighted += e * y;  // no 0 times minus infinity; NaN counts
    }
    if (mass == 0.0f) return 0.0f;
    return weighted - mass * (Log2(mass) * static_cast<float>(kLn2Double) - log_num_rows);
  }
};

}  // namespace chorus::device
