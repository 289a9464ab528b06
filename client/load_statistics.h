#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace chorus {

// Of the samples of one kind; all zero if there are none. Percentiles are nearest-rank: the
// smallest sample that is not below the given share of all.
struct Summary {
  int64_t count = 0;
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
};

// The nearest-rank percentile of `samples`, which it reorders; 0 if there are none. `share` in
// (0, 1].
float NearestRank(std::vector<float>& samples, double share);

// Samples of one kind. Count, mean and maximum are of all; the percentiles are exact as long as
// there are at most `capacity` samples, and of a uniform random choice of so many from there on
// (reservoir sampling, Vitter's algorithm R). One thread.
//
// Why not a library: a histogram (HdrHistogram, t-digest) would bound the error, not remove it,
// and 10 million floats are 40 MB at most.
class SampleSet {
 public:
  explicit SampleSet(int64_t capacity = 10'000'000) : capacity_(capacity) {}

  void Add(double sample);
  Summary Summarize() const;

 private:
  int64_t capacity_;
  int64_t count_ = 0;
  double sum_ = 0;
  double max_ = 0;
  std::vector<float> samples_;
  std::minstd_rand generator_;  // which samples stay, beyond the capacity
};

}  // namespace chorus
