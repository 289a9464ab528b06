#include "tests/engine/traffic.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/engine/fusion_strategy.h"

namespace chorus {
namespace {

constexpr int32_t kNumPrefixes = 8;
constexpr int32_t kNumSegments = 300;
constexpr double kTailExponent = 1.2;  // of lengths: infinite variance

}  // namespace

Traffic::Traffic(const TrafficOptions& options, uint32_t seed)
    : options_(options), random_(seed), now_(options.begin) {
  for (int i = 0; i < kNumPrefixes; ++i) prefixes_.push_back(Tokens(4 + Below(60)));
  for (int i = 0; i < kNumSegments; ++i) segments_.push_back(Tokens(HeavyTailed(6, 80)));
  next_burst_ = now_ + Uniform() * 2 * options_.burst_interval;
}

std::optional<Arrival> Traffic::Next() {
  Arrival arrival;
  arrival.time = NextTime();
  if (arrival.time > options_.begin + options_.length) return std::nullopt;
  arrival.request = MakeRequest();
  arrival.request.id = absl::StrCat(num_made_++);
  if (Happens(options_.with_deadline)) {
    arrival.request.deadline = arrival.time + absl::Seconds(2 * std::pow(30.0, Uniform()));
  }
  if (Happens(options_.cancelled)) {
    arrival.cancelled = arrival.time + absl::Seconds(20 * Uniform() * Uniform());
  }
  arrival.reader = MakeReader();
  return arrival;
}

double Traffic::RateAt(absl::Time time) const {
  constexpr double kPi = 3.14159265358979;
  const double hour = absl::ToDoubleHours(time - options_.begin);
  const double day = 0.5 - 0.5 * std::cos((hour - 4.0) / 12.0 * kPi);  // 0 at 4, 1 at 16 o'clock
  return options_.night_rate + (options_.peak_rate - options_.night_rate) * day;
}

// Thinning (Lewis and Shedler, 1979): candidates at the peak rate, of which RateAt's share is kept.
absl::Time Traffic::NextTime() {
  if (burst_left_ > 0) {
    --burst_left_;
    if (Happens(0.7)) now_ += absl::Seconds(0.05 * Uniform());  // else with the one before
    return now_;
  }
  while (true) {
    now_ += absl::Seconds(-std::log(1.0 - Uniform()) / options_.peak_rate);
    if (now_ > next_burst_) {
      burst_left_ = Below(options_.max_burst);
      next_burst_ = now_ + Uniform() * 2 * options_.burst_interval;
    }
    if (Uniform() * options_.peak_rate < RateAt(now_)) return now_;
  }
}

int32_t Traffic::HeavyTailed(int32_t least, int32_t most) {
  const double length = least * std::pow(1.0 - Uniform(), -1.0 / kTailExponent);
  return static_cast<int32_t>(std::min<double>(length, most));
}

std::vector<int32_t> Traffic::Tokens(int32_t length) {
  std::vector<int32_t> tokens(length);
  for (int32_t& token : tokens) token = 4 + Below(296);
  return tokens;
}

const std::vector<int32_t>& Traffic::Popular(const std::vector<std::vector<int32_t>>& pool) {
  const double place = static_cast<double>(pool.size()) * std::pow(Uniform(), 3.0);
  return pool[static_cast<size_t>(place)];
}

Request Traffic::MakeRequest() {
  while (true) {
    Request request;
    MakePrompts(&request);
    MakeFusion(&request);
    request.sampling.seed = random_();
    request.sampling.temperature = 0.7f;
    request.stopping.max_new_tokens = HeavyTailed(10, 300);
    request.stopping.min_new_tokens = Below(4);
    request.stopping.ignore_eos = Happens(0.2);
    request.priority = Below(5) - 2;
    if (Happens(options_.scoring)) MakeContinuations(&request);
    if (SizeOf(request).num_slots <= options_.max_request_slots) return request;
  }
}

void Traffic::MakePrompts(Request* request) {
  if (Happens(0.6)) request->prefix = Popular(prefixes_);
  if (Happens(0.03)) {
    request->prompts.push_back(Tokens(HeavyTailed(300, 3000)));  // a long document
  }
  const int32_t num_prompts = 1 + Below(6);
  while (static_cast<int32_t>(request->prompts.size()) < num_prompts) {
    const bool known = Happens(0.5);
    request->prompts.push_back(known ? Popular(segments_) : Tokens(HeavyTailed(6, 400)));
  }
  if (Happens(0.7)) request->suffix = Tokens(1 + Below(6));
  if (Happens(0.3)) request->separator = Tokens(1 + Below(3));
}

void Traffic::MakeFusion(Request* request) {
  FusionParams& fusion = request->fusion;
  fusion.method = Happens(0.6) ? FusionMethod::kAttention : static_cast<FusionMethod>(2 + Below(6));
  if (Happens(0.4)) fusion.positions = PositionMode::kSequential;
  if (Happens(0.3)) fusion.separators = SeparatorPolicy::kAttached;
  if (Happens(0.3)) fusion.first_token = FirstToken::kLastSegment;
  if (Happens(0.1)) fusion.scaling = SegmentScaling{0.9f, 0.8f, -0.5f};
}

// A few short answers to choose from, now and then a long text.
void Traffic::MakeContinuations(Request* request) {
  request->sampling = SamplingParams{.seed = request->sampling.seed};
  ScoreParams& score = request->score.emplace();
  score.prompt_logprobs = Happens(0.8);
  const int32_t count = 1 + Below(5);
  for (int32_t i = 0; i < count; ++i) score.continuations.push_back(Tokens(HeavyTailed(1, 200)));
}

ReaderHabit Traffic::MakeReader() {
  ReaderHabit reader;
  const double kind = Uniform();
  reader.tokens_between_pauses = Below(8);
  if (kind < options_.stalled_readers) {
    reader.pause = absl::InfiniteDuration();
  } else if (kind < options_.stalled_readers + options_.slow_readers) {
    reader.pause = absl::Seconds(10 * Uniform());
  }
  return reader;
}

}  // namespace chorus
