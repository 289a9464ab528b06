#pragma once

#include <cstdint>

#include "core/kernels/cuda/logit_kernels.h"

// Selection over one row of logits by one block, without sorting: the best k tokens, the shortest
// start that holds so much probability, the token that a draw falls on. Tokens are in the order of
// sampler.h: falling logit, ties by rising id. Weights are integers of 64 bits, so that sums are
// exact and the order in which threads add them is nothing.
//
// A token's mass is exp((x - largest) / T), float32, in units of 2^-42 and rounded down: below
// 2^-42 of the largest's it is 0, and such a token is never drawn. The largest has exactly 2^42.
// CUB's radix sort and block scans were looked at: they sort what is only to be cut, and do not run
// on the host back end.
namespace chorus::device {

inline constexpr int kChoiceThreads = 512;
inline constexpr int kChoiceWarps = kChoiceThreads / kWarpSize;
inline constexpr int kMassBits = 42;
inline constexpr int kNumBins = 2048;
inline constexpr int kBinsOfThread = kNumBins / kChoiceThreads;
inline constexpr int kChunkSize = kMaxVocabSize / kNumBins;  // ids of which a bin holds the sum
inline constexpr int kListSize = 2048;

// Shared memory of the block, in bytes.
inline constexpr int kBinsAt = 0;                                 // [kNumBins] 64 bits
inline constexpr int kTotalsAt = kBinsAt + kNumBins * 8;          // [kChoiceWarps] 64 bits
inline constexpr int kCrossingAt = kTotalsAt + kChoiceWarps * 8;  // 3 of 64 bits
inline constexpr int kCounterAt = kCrossingAt + 3 * 8;            // 32 bits
inline constexpr int kListAt = kCounterAt + 8;                    // [kListSize] 32 bits
inline constexpr int kSelectionBytes = kListAt + kListSize * 4;

// The row, and the temperature its masses are of.
struct RowView {
  const float* x;  // [size], no NaN
  int32_t size;
  float largest;  // of the row; finite
  float inverse_temperature;

  CHORUS_DEVICE float Exponential(float value) const {
    return Exp((value - largest) * inverse_temperature);
  }
  CHORUS_DEVICE uint64_t Mass(float value) const {
    return static_cast<uint64_t>(Exponential(value) * static_cast<float>(uint64_t{1} << kMassBits));
  }
  // Rises as logits fall; about 64 bins for a factor of e in mass. What has mass is in front of the
  // last bin.
  CHORUS_DEVICE int32_t Bin(float value) const {
    const float distance = (largest - value) * inverse_temperature * 64.0f;
    return distance < kNumBins - 1 ? static_cast<int32_t>(distance) : kNumBins - 1;
  }
};

// An integer that rises as logits fall, equal for equal logits.
CHORUS_DEVICE uint32_t KeyOf(float x) {
  const uint32_t bits = FloatBits(x == 0.0f ? 0.0f : x);  // one zero
  return (bits >> 31) != 0 ? bits : ~(bits | 0x80000000u);
}
CHORUS_DEVICE float FromKey(uint32_t key) {
  return FloatFromBits((key >> 31) != 0 ? key : ~key & 0x7FFFFFFFu);
}

// Tokens better than a key, and of those that have it the ids up to the last.
struct Cut {
  uint32_t key = 0xFFFFFFFFu;
  int32_t last_id = 0x7FFFFFFF;

  CHORUS_DEVICE bool Holds(float x, int32_t id) const {
    const uint32_t of_x = KeyOf(x);
    return of_x < key || (of_x == key && id <= last_id);
  }
};

// Where the running sum of the bins reaches a target.
struct Crossing {
  int32_t bin;
  uint64_t before;  // sum of the bins before
  uint64_t weight;  // of the bin
};

// Every function is called by all kChoiceThreads threads, with the same arguments; results are the
// same in all of them. Bins are cleared, filled, and then looked through.
struct Selection {
  SharedAddress shared;

  CHORUS_DEVICE void ClearBins() const {
#pragma unroll
    for (int j = 0; j < kBinsOfThread; ++j) {
      StoreShared64(shared + kBinsAt + (j * kChoiceThreads + ThreadIndex()) * 8, 0);
    }
    if (ThreadIndex() == 0) StoreShared32(shared + kCounterAt, 0);
    SyncThreads();
  }
  CHORUS_DEVICE void AddToBin(int32_t bin, uint64_t weight) const {
    if (weight != 0) AddShared64(shared + kBinsAt + bin * 8, weight);
  }

  // The sum of all bins; leaves in `inclusive` that up to and with the thread's own, and in `bins`
  // these.
  CHORUS_DEVICE uint64_t Scan(uint64_t (&bins)[kBinsOfThread], uint64_t& inclusive) const {
    SyncThreads();
    inclusive = 0;
#pragma unroll
    for (int j = 0; j < kBinsOfThread; ++j) {
      bins[j] = LoadShared64(shared + kBinsAt + (kBinsOfThread * ThreadIndex() + j) * 8);
      inclusive += bins[j];
    }
    const int lane = ThreadIndex() % kWarpSize, warp = ThreadIndex() / kWarpSize;
#pragma unroll
    for (int delta = 1; delta < kWarpSize; delta *= 2) {
      const uint64_t below = ShuffleUp(inclusive, delta);
      if (lane >= delta) inclusive += below;
    }
    if (lane == kWarpSize - 1) StoreShared64(shared + kTotalsAt + warp * 8, inclusive);
    SyncThreads();
    uint64_t total = 0;
#pragma unroll 4
    for (int other = 0; other < kChoiceWarps; ++other) {
      const uint64_t of_warp = LoadShared64(shared + kTotalsAt + other * 8);
      total += of_warp;
      if (other < warp) inclusive += of_warp;
    }
    return total;
  }

  CHORUS_DEVICE uint64_t Total() const {
    uint64_t bins[kBinsOfThread], inclusive;
    const uint64_t total = Scan(bins, inclusive);
    SyncThreads();
    return total;
  }

  // REQUIRES: 1 <= target <= the sum of all bins.
  CHORUS_DEVICE Crossing FindCrossing(uint64_t target) const {
    uint64_t bins[kBinsOfThread], inclusive;
    Scan(bins, inclusive);
    uint64_t before = inclusive;
#pragma unroll
    for (int j = 0; j < kBinsOfThread; ++j) before -= bins[j];
#pragma unroll
    for (int j = 0; j < kBinsOfThread; ++j) {
      if (before < target && target <= before + bins[j]) {
        StoreShared64(shared + kCrossingAt, kBinsOfThread * ThreadIndex() + j);
        StoreShared64(shared + kCrossingAt + 8, before);
        StoreShared64(shared + kCrossingAt + 16, bins[j]);
      }
      before += bins[j];
    }
    SyncThreads();
    return {static_cast<int32_t>(LoadShared64(shared + kCrossingAt)),
            LoadShared64(shared + kCrossingAt + 8), LoadShared64(shared + kCrossingAt + 16)};
  }

  // Bins of the weights' sums by chunk of ids; a warp takes a chunk at a time.
  template <class WeightOf>
  CHORUS_DEVICE void SumChunks(const RowView& row, const WeightOf& weight_of) const {
    ClearBins();
    const int lane = ThreadIndex() % kWarpSize;
    for (int32_t chunk = ThreadIndex() / kWarpSize; chunk * kChunkSize < row.size;
         chunk += kChoiceWarps) {
      uint64_t sum = 0;
#pragma unroll 4
      for (int32_t j = lane; j < kChunkSize; j += kWarpSize) {
        const int32_t id = chunk * kChunkSize + j;
        if (id < row.size) sum += weight_of(LoadGlobal(row.x + id), id);
      }
      sum = SumOfLanes(sum);
      if (lane == 0) AddToBin(chunk, sum);
    }
  }

  // The first id at which the sum of the weights by rising id reaches target_of(their total), which
  // is at least 1 and at most that.
  template <class WeightOf, class TargetOf>
  CHORUS_DEVICE int32_t Locate(const RowView& row, const WeightOf& weight_of,
                               const TargetOf& target_of) const {
    SumChunks(row, weight_of);
    const uint64_t target = target_of(Total());
    const Crossing chunk = FindCrossing(target);
    ClearBins();
    for (int32_t j = ThreadIndex(); j < kChunkSize; j += kChoiceThreads) {
      const int32_t id = chunk.bin * kChunkSize + j;
      if (id < row.size) AddToBin(j, weight_of(LoadGlobal(row.x + id), id));
    }
    return chunk.bin * kChunkSize + FindCrossing(target - chunk.before).bin;
  }

  // Keys of the tokens in `bin` into the list, in any order. Returns how many there are: they are
  // all there if that is at most kListSize.
  CHORUS_DEVICE int32_t ListBin(const RowView& row, int32_t bin) const {
    ClearBins();
#pragma unroll 4
    for (int32_t id = ThreadIndex(); id < row.size; id += kChoiceThreads) {
      const float x = LoadGlobal(row.x + id);
      if (row.Bin(x) != bin) continue;
      const uint32_t place = AddShared32(shared + kCounterAt, 1);
      if (place < kListSize) StoreShared32(shared + kListAt + place * 4, KeyOf(x));
    }
    SyncThreads();
    const int32_t count = static_cast<int32_t>(LoadShared32(shared + kCounterAt));
    SyncThreads();
    return count;
  }

  // The shortest start whose weights reach `target`, at least 1 and at most their total. Equal
  // logits have equal weights: weight_of(x).
  template <class WeightOf>
  CHORUS_DEVICE Cut Select(const RowView& row, const WeightOf& weight_of, uint64_t target) const {
    ClearBins();
    uint64_t far = 0;  // of the last bin, where many may meet
#pragma unroll 4
    for (int32_t id = ThreadIndex(); id < row.size; id += kChoiceThreads) {
      const float x = LoadGlobal(row.x + id);
      const int32_t bin = row.Bin(x);
      if (bin < kNumBins - 1) {
        AddToBin(bin, weight_of(x));
      } else {
        far += weight_of(x);
      }
    }
    AddToBin(kNumBins - 1, far);
    Crossing crossing = FindCrossing(target);
    target -= crossing.before;
    const int32_t bin = crossing.bin;
    const int32_t num_listed = ListBin(row, bin);
    // Then by the bits of the key, 11 or 10 at a time, among the bin's.
    uint32_t prefix = 0;
    for (int shift = 21, known = 32; known > 0; known = shift, shift = shift > 10 ? 10 : 0) {
      ClearBins();
      const auto add = [&](uint32_t key) {
        if ((uint64_t{key} >> known) != prefix) return;
        const uint32_t digit = key >> shift & ((1u << (known - shift)) - 1);
        AddToBin(static_cast<int32_t>(digit), weight_of(FromKey(key)));
      };
      if (num_listed <= kListSize) {
        for (int32_t i = ThreadIndex(); i < num_listed; i += kChoiceThreads) {
          add(LoadShared32(shared + kListAt + i * 4));
        }
      } else {
        for (int32_t id = ThreadIndex(); id < row.size; id += kChoiceThreads) {
          const float x = LoadGlobal(row.x + id);
          if (row.Bin(x) == bin) add(KeyOf(x));
        }
      }
      crossing = FindCrossing(target);
      target -= crossing.before;
      prefix = prefix << (known - shift) | static_cast<uint32_t>(crossing.bin);
    }
    return CutTies(row, prefix, weight_of(FromKey(prefix)), target, crossing.weight);
  }

  // Of the tokens with this key, each of `weight` and all of `all`, those that reach `target`.
  CHORUS_DEVICE Cut CutTies(const RowView& row, uint32_t key, uint64_t weight, uint64_t target,
                            uint64_t all) const {
    if (target > all - weight) return {key, 0x7FFFFFFF};
    const auto is_tie = [&](float x, int32_t) -> uint64_t { return KeyOf(x) == key ? 1 : 0; };
    const uint64_t wanted = (target + weight - 1) / weight;
    return {key, Locate(row, is_tie, [&](uint64_t) { return wanted; })};
  }
};

}  // namespace chorus::device
