#include "client/load_statistics.h"

#include <algorithm>
#include <cmath>

namespace chorus {

float NearestRank(std::vector<float>& samples, double share) {
  if (samples.empty()) return 0;
  const auto rank = static_cast<int64_t>(std::ceil(share * static_cast<double>(samples.size())));
  const auto nth = samples.begin() + std::max<int64_t>(rank, 1) - 1;
  std::nth_element(samples.begin(), nth, samples.end());
  return *nth;
}

void SampleSet::Add(double sample) {
  max_ = count_ == 0 ? sample : std::max(max_, sample);
  ++count_;
  sum_ += sample;
  if (count_ <= capacity_) {
    samples_.push_back(static_cast<float>(sample));
    return;
  }
  const int64_t place = std::uniform_int_distribution<int64_t>(0, count_ - 1)(generator_);
  if (place < capacity_) samples_[place] = static_cast<float>(sample);
}

Summary SampleSet::Summarize() const {
  if (count_ == 0) return {};
  std::vector<float> samples = samples_;
  return {.count = count_,
          .mean = sum_ / static_cast<double>(count_),
          .p50 = NearestRank(samples, 0.5),
          .p90 = NearestRank(samples, 0.9),
          .p95 = NearestRank(samples, 0.95),
          .p99 = NearestRank(samples, 0.99),
          .max = max_};
}

}  // namespace chorus
