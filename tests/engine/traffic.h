#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "absl/time/time.h"

#include "core/engine/request.h"

namespace chorus {

// How a request's reader reads: after every `tokens_between_pauses` events it takes nothing for
// `pause`.
struct ReaderHabit {
  int32_t tokens_between_pauses = 0;  // 0: it pauses before the first
  absl::Duration pause;               // zero: it never pauses; infinite: it never goes on
};

// One request of a day.
struct Arrival {
  absl::Time time;
  Request request;  // its id is its number
  absl::Time cancelled = absl::InfiniteFuture();
  ReaderHabit reader;
};

struct TrafficOptions {
  absl::Time begin = absl::UnixEpoch();
  absl::Duration length = absl::Hours(24);
  double peak_rate = 0.7;    // requests a second in the afternoon
  double night_rate = 0.05;  // and at four in the morning
  absl::Duration burst_interval = absl::Minutes(30);  // on average
  int32_t max_burst = 100;                            // requests within a few seconds
  int64_t max_request_slots = 4000;
  double cancelled = 0.05;      // shares of all requests
  double with_deadline = 0.15;  // two seconds to a minute
  double scoring = 0.1;
  double slow_readers = 0.04;
  double stalled_readers = 0.003;
};

// The requests of a day, in order of time: a Poisson process whose rate follows the hours, with
// bursts; any method and form; lengths with heavy tails; prefixes and segments of which some are
// common to many requests. A pure function of its options and the seed.
class Traffic {
 public:
  Traffic(const TrafficOptions& options, uint32_t seed);

  // The next request; nothing when the day is over.
  std::optional<Arrival> Next();

 private:
  double Uniform() { return std::uniform_real_distribution<double>()(random_); }
  bool Happens(double probability) { return Uniform() < probability; }
  int32_t Below(int32_t limit) { return static_cast<int32_t>(random_() % limit); }
  double RateAt(absl::Time time) const;
  absl::Time NextTime();
  // Pareto: `least` and upward, seldom much more.
  int32_t HeavyTailed(int32_t least, int32_t most);
  std::vector<int32_t> Tokens(int32_t length);
  // One of a pool, the first ones far more often.
  const std::vector<int32_t>& Popular(const std::vector<std::vector<int32_t>>& pool);

  Request MakeRequest();
  void MakePrompts(Request* request);
  void MakeFusion(Request* request);
  void MakeContinuations(Request* request);
  ReaderHabit MakeReader();

  const TrafficOptions options_;
  std::mt19937 random_;
  std::vector<std::vector<int32_t>> prefixes_;
  std::vector<std::vector<int32_t>> segments_;
  absl::Time now_;  // of the Poisson process
  int32_t burst_left_ = 0;
  absl::Time next_burst_;
  int64_t num_made_ = 0;
};

}  // namespace chorus
