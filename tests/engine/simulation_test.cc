// Days of traffic under a virtual clock: what the scheduler promises, whatever comes.

#include <algorithm>
#include <cstdio>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/engine/simulation.h"

namespace chorus {
namespace {

using ::testing::IsEmpty;
using Property = Simulation::Property;

// Shorter where every instruction costs ten.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr absl::Duration kDay = absl::Hours(6);
constexpr int64_t kStepsPerFailure = 1000;
#else
constexpr absl::Duration kDay = absl::Hours(24);
constexpr int64_t kStepsPerFailure = 10000;
#endif

struct SimulatedDay {
  SimulatedDay(const char* name, SimulationOptions options, TrafficOptions traffic_options)
      : seed(std::random_device{}()), traffic_options(traffic_options), simulation(options) {
    Traffic traffic(traffic_options, seed);
    simulation.Run(&traffic);
    Print(name);
  }

  void Print(const char* name) const {
    const Simulation::Counts& counts = simulation.counts();
    std::map<std::string, int64_t> ends;
    for (const auto& [number, record] : simulation.records()) {
      ++ends[record.rejected ? std::string(RejectReasonName(*record.rejected))
                             : absl::StatusCodeToString(record.status.code())];
    }
    std::printf("%s, seed %u: %zu requests:", name, seed, simulation.records().size());
    for (const auto& [end, count] : ends) std::printf(" %s %ld", end.c_str(), long(count));
    std::printf("; %ld preemptions, %ld segments found and %ld not, longest wait %.1f s, "
                "largest step %d\n",
                long(counts.preemptions), long(counts.segment_hits), long(counts.segment_misses),
                absl::ToDoubleSeconds(counts.max_wait), counts.max_step_rows);
  }

  // The requests of the day once more, by number.
  std::vector<Arrival> Arrivals() const {
    std::vector<Arrival> arrivals;
    Traffic traffic(traffic_options, seed);
    while (auto arrival = traffic.Next()) arrivals.push_back(*std::move(arrival));
    return arrivals;
  }

  const uint32_t seed;
  const TrafficOptions traffic_options;
  Simulation simulation;
};

SimulationOptions DayOptions() {
  SimulationOptions options;
  options.engine.max_queued_requests = 64;
  options.engine.max_queued_tokens = 20000;
  options.engine.max_running_requests = 24;
  options.engine.max_step_rows = 128;
  options.engine.max_idle_cache_tokens = 6000;
  options.engine.eos_token_ids = {kTestEos};
  return options;
}

TrafficOptions DayTraffic() {
  TrafficOptions traffic;
  traffic.begin = absl::UnixEpoch() + absl::Seconds(1);
  traffic.length = kDay;
  if (kDay < absl::Hours(24)) traffic.night_rate = traffic.peak_rate;  // no quiet hours
  return traffic;
}

// Two workers with KV space for all that may run.
const SimulatedDay& OrdinaryDay() {
  static const SimulatedDay* const day = [] {
    SimulationOptions options = DayOptions();
    options.num_workers = 2;
    TrafficOptions traffic = DayTraffic();
    traffic.peak_rate = 1.5;
    traffic.max_burst = 250;
    return new SimulatedDay("ordinary day", options, traffic);
  }();
  return *day;
}

// One worker, with KV space for the largest request and little more.
const SimulatedDay& TightDay() {
  static const SimulatedDay* const day = [] {
    SimulationOptions options = DayOptions();
    TrafficOptions traffic = DayTraffic();
    traffic.max_request_slots = 1500;
    traffic.slow_readers = 0.2;
    traffic.stalled_readers = 0.01;
    options.model.num_kv_slots = 1600;
    return new SimulatedDay("tight day", options, traffic);
  }();
  return *day;
}

// A third of a day in which one step in 10,000 fails.
const SimulatedDay& FailingDay() {
  static const SimulatedDay* const day = [] {
    SimulationOptions options = DayOptions();
    options.model.num_kv_slots = 6000;
    options.model.fails = [](int64_t step) { return step % kStepsPerFailure == 777; };
    TrafficOptions traffic = DayTraffic();
    traffic.length /= 3;
    traffic.night_rate = traffic.peak_rate;
    return new SimulatedDay("failing day", options, traffic);
  }();
  return *day;
}

struct DayCase {
  const char* name;
  const SimulatedDay& (*day)();
};

class SimulationTest : public testing::TestWithParam<DayCase> {
 protected:
  const SimulatedDay& day() const { return GetParam().day(); }
  const Simulation& simulation() const { return day().simulation; }
  std::vector<std::string> breaches(Property property) const {
    return simulation().breaches(property);
  }
  int num_workers() const { return GetParam().day == OrdinaryDay ? 2 : 1; }
};

INSTANTIATE_TEST_SUITE_P(Days, SimulationTest,
                         testing::Values(DayCase{"Ordinary", OrdinaryDay},
                                         DayCase{"Tight", TightDay},
                                         DayCase{"Failing", FailingDay}),
                         [](const auto& info) { return info.param.name; });

TEST_P(SimulationTest, EveryAcceptedRequestEndsExactlyOnce) {
  int64_t num_accepted = 0;
  for (const auto& [number, record] : simulation().records()) {
    if (record.rejected.has_value()) continue;
    ++num_accepted;
    ASSERT_EQ(record.num_ends, 1) << "request " << number;
    ASSERT_EQ(record.num_starts, record.started < absl::InfiniteFuture() ? 1 : 0);
  }
  EXPECT_EQ(num_accepted, simulation().counts().accepted);
  EXPECT_GT(num_accepted, 1000);
  EXPECT_EQ(simulation().ledger().num_waiting(), 0);
  EXPECT_EQ(simulation().ledger().num_running(), 0);
}

// What the models chose = what the answers hold and the end tokens = what the observer was told.
TEST_P(SimulationTest, TokensAreConserved) {
  int64_t num_chosen = 0, num_answered = 0, num_ended_by_eos = 0, num_with_tokens = 0;
  for (int i = 0; i < num_workers(); ++i) num_chosen += simulation().runner(i).num_tokens();
  int64_t num_first = 0;
  for (const auto& [number, record] : simulation().records()) {
    const FinishSummary& summary = record.summary;
    if (record.scores) {
      ASSERT_EQ(summary.generated_tokens + record.streamed_tokens, 0) << "request " << number;
      continue;
    }
    num_answered += summary.generated_tokens;
    int64_t num_in_answers = 0;
    const auto count = [&](const Answer& answer) {
      const bool by_eos = answer.reason == FinishReason::kEos;
      num_in_answers += static_cast<int64_t>(answer.token_ids.size());
      num_ended_by_eos += by_eos;
      num_with_tokens += by_eos || !answer.token_ids.empty();
    };
    if (summary.prompts.empty()) count(summary.answer);
    for (const Answer& answer : summary.prompts) count(answer);
    num_first += summary.first_token_time > absl::ZeroDuration();
    ASSERT_EQ(num_in_answers, summary.generated_tokens) << "request " << number;
    if (record.method != FusionMethod::kVote) {
      ASSERT_EQ(record.streamed_tokens, summary.generated_tokens) << "request " << number;
    } else if (record.ended_ok()) {
      ASSERT_EQ(record.streamed_tokens, static_cast<int64_t>(summary.answer.token_ids.size()));
    }
  }
  EXPECT_EQ(num_chosen, num_answered + num_ended_by_eos);
  EXPECT_EQ(num_chosen, simulation().counts().inter_tokens + num_with_tokens);
  EXPECT_EQ(num_first, simulation().counts().first_tokens);
}

TEST_P(SimulationTest, NoPlanBreaksTheModelsRules) {
  for (int i = 0; i < num_workers(); ++i) EXPECT_EQ(simulation().runner(i).first_error(), "");
}

TEST_P(SimulationTest, NoSlotIsInUseWhenAllIsIdle) {
  EXPECT_THAT(breaches(Property::kNothingLeaks), IsEmpty());
}

TEST_P(SimulationTest, StepsAndQueuesStayWithinTheirBounds) {
  EXPECT_THAT(breaches(Property::kStepBounds), IsEmpty());
}

TEST_P(SimulationTest, TheMostUrgentWaitingRequestStartsFirst) {
  EXPECT_THAT(breaches(Property::kOrder), IsEmpty());
}

// With the order, this bounds every wait: nobody starves.
TEST_P(SimulationTest, NoRequestWaitsForMoreRowsThanStoodBeforeIt) {
  EXPECT_THAT(breaches(Property::kWait), IsEmpty());
}

TEST_P(SimulationTest, NoWorkerStandsStillWhileARequestCouldRun) {
  EXPECT_THAT(breaches(Property::kWorkConserving), IsEmpty());
}

TEST_P(SimulationTest, TheMostUrgentRunningRequestIsNeverPreempted) {
  EXPECT_THAT(breaches(Property::kMostUrgentKept), IsEmpty());
}

TEST_P(SimulationTest, WhatIsCancelledOrLateEndsInTheNextTurn) {
  EXPECT_THAT(breaches(Property::kEndsInTime), IsEmpty());
}

TEST_P(SimulationTest, OnlyAFailingStepEndsRequestsWithAnError) {
  EXPECT_THAT(breaches(Property::kFailuresAreLocal), IsEmpty());
}

// The requests to look at twice: all that were preempted, and some of the others.
TEST_P(SimulationTest, WhatEndsWellHasTheTokensThatItGetsAlone) {
  SimulationOptions alone = DayOptions();
  alone.engine.max_idle_cache_tokens = 0;
  Simulation reference(alone);
  int num_preempted = 0, num_others = 0;
  for (Arrival& arrival : day().Arrivals()) {
    const RequestRecord& record =
        simulation().records().at(std::stoll(arrival.request.id));
    if (!record.ended_ok()) continue;
    int& num_seen = record.num_preemptions > 0 ? num_preempted : num_others;
    if (num_seen >= 600) continue;
    ++num_seen;
    ASSERT_EQ(record.Answers(), reference.RunAlone(arrival.request).Answers())
        << "request " << arrival.request.id << ", preempted " << record.num_preemptions << " times";
    ASSERT_EQ(record.Scores(), reference.records().at(std::stoll(arrival.request.id)).Scores())
        << "request " << arrival.request.id << ", preempted " << record.num_preemptions << " times";
    ASSERT_EQ(record.Scores().empty(), !record.scores);
  }
  std::printf("%d preempted and %d other requests compared\n", num_preempted, num_others);
  EXPECT_GT(num_others, 100);
}

TEST_P(SimulationTest, CachesStayWithinTheirBounds) {
  EXPECT_LE(simulation().affinity().num_segments(), SimulationOptions().max_affinity_segments);
  EXPECT_GT(simulation().counts().segment_hits, 0);
  EXPECT_GT(simulation().counts().evictions, 0);
  for (int i = 0; i < num_workers(); ++i) {
    const SegmentCache& cache = simulation().batch(i).cache();
    EXPECT_LE(cache.num_idle_slots(), DayOptions().engine.max_idle_cache_tokens);
    EXPECT_LE(cache.num_segments(), cache.num_idle_slots());
  }
}

TEST(OrdinaryDayTest, BothWorkersWorkAndTheQueueRefusesWhatIsTooMuch) {
  std::map<int32_t, int64_t> of_worker;
  int64_t num_refused = 0;
  for (const auto& [number, record] : OrdinaryDay().simulation.records()) {
    if (record.rejected.has_value()) {
      ++num_refused;
    } else {
      ++of_worker[record.worker];
    }
  }
  const int64_t num_requests = static_cast<int64_t>(OrdinaryDay().simulation.records().size());
  EXPECT_GT(std::min(of_worker[0], of_worker[1]), num_requests / 4);
  EXPECT_GT(num_refused, 0);
  EXPECT_EQ(OrdinaryDay().simulation.counts().preemptions, 0);
}

// Without cancellation, deadline or a reader that stalls for ever every request ends well, however
// often it lost its KV space.
TEST(TightDayTest, RequestsArePreemptedAndEndWellAllTheSame) {
  int64_t num_preempted = 0;
  for (const Arrival& arrival : TightDay().Arrivals()) {
    const RequestRecord& record =
        TightDay().simulation.records().at(std::stoll(arrival.request.id));
    if (record.rejected.has_value() || record.num_preemptions == 0) continue;
    ++num_preempted;
    const bool may_fail = arrival.cancelled < absl::InfiniteFuture() ||
                          arrival.request.deadline < absl::InfiniteFuture() ||
                          arrival.reader.pause == absl::InfiniteDuration();
    if (!may_fail) {
      ASSERT_TRUE(record.ended_ok()) << record.status;
    }
  }
  EXPECT_GT(num_preempted, 50);
}

TEST(FailingDayTest, AFailingStepEndsTheRequestsInItAndNoOthers) {
  const Simulation& simulation = FailingDay().simulation;
  std::map<absl::Time, int64_t> failed;
  int64_t num_failed = 0;
  for (const auto& [number, record] : simulation.records()) {
    if (record.status.code() != absl::StatusCode::kInternal) continue;
    ++failed[record.ended];
    ++num_failed;
  }
  // Each in the turn of a failing step, all of a step at once; those that only read were in it too.
  EXPECT_EQ(static_cast<int64_t>(failed.size()), simulation.runner(0).num_failed_steps());
  EXPECT_GE(num_failed, simulation.runner(0).num_failed_choosing_requests());
  EXPECT_GT(failed.size(), 1u);
  for (const auto& [time, count] : failed) {
    EXPECT_LE(count, DayOptions().engine.max_running_requests);
  }
}

// --- Shares of a step ---

// A single prompt of `length` tokens that no other has.
Arrival PromptAt(absl::Time time, int64_t number, int32_t length, int32_t max_new_tokens) {
  std::mt19937 random(static_cast<uint32_t>(number));
  Arrival arrival{.time = time};
  arrival.request.id = std::to_string(number);
  arrival.request.prompts = {RandomTokens(random, length)};
  arrival.request.suffix = {50};
  arrival.request.stopping.max_new_tokens = max_new_tokens;
  arrival.request.stopping.ignore_eos = true;
  return arrival;
}

absl::Time Second(double seconds) { return absl::UnixEpoch() + absl::Seconds(1.0 + seconds); }

// Gaps between a stream's tokens within [begin, end], in seconds.
std::vector<double> GapsWithin(const RequestRecord& record, absl::Time begin, absl::Time end) {
  std::vector<double> gaps;
  for (size_t i = 1; i < record.event_times.size(); ++i) {
    const absl::Time last = record.event_times[i - 1], next = record.event_times[i];
    if (last >= begin && next <= end) gaps.push_back(absl::ToDoubleSeconds(next - last));
  }
  return gaps;
}

// (sum x)^2 / (n sum x^2): 1 if all are equal, 1/n if one has everything. (Jain et al., 1984)
double JainIndex(const std::vector<double>& values) {
  double sum = 0.0, squares = 0.0;
  for (double value : values) {
    sum += value;
    squares += value * value;
  }
  return sum * sum / (static_cast<double>(values.size()) * squares);
}

TEST(FairnessTest, EqualStreamsGetEqualServiceThoughNotAllFitAStep) {
  constexpr int32_t kStreams = 32;
  for (const int32_t max_step_rows : {7, 20, 64}) {
    SimulationOptions options = DayOptions();
    options.engine.max_running_requests = kStreams;
    options.engine.max_step_rows = max_step_rows;
    Simulation simulation(options);
    std::vector<Arrival> arrivals;
    for (int i = 0; i < kStreams; ++i) arrivals.push_back(PromptAt(Second(0), i, 20, 600));
    simulation.Run(std::move(arrivals));
    absl::Time all_run = absl::InfinitePast(), first_ends = absl::InfiniteFuture();
    for (const auto& [number, record] : simulation.records()) {
      ASSERT_TRUE(record.ended_ok());
      all_run = std::max(all_run, record.event_times.front());
      first_ends = std::min(first_ends, record.ended);
    }
    std::vector<double> gaps, mean_gaps, counts;
    for (const auto& [number, record] : simulation.records()) {
      const std::vector<double> of_stream = GapsWithin(record, all_run, first_ends);
      ASSERT_GT(of_stream.size(), 50u);
      gaps.insert(gaps.end(), of_stream.begin(), of_stream.end());
      counts.push_back(static_cast<double>(of_stream.size()));
      mean_gaps.push_back(std::accumulate(of_stream.begin(), of_stream.end(), 0.0) / counts.back());
    }
    std::printf("steps of %d rows: Jain's index over streams' mean gaps %.5f, over all gaps %.4f\n",
                max_step_rows, JainIndex(mean_gaps), JainIndex(gaps));
    EXPECT_GT(JainIndex(mean_gaps), 0.999);
    // Whose turn comes once more in the same time is a token ahead, and one at each end of it.
    EXPECT_LE(std::ranges::max(counts) - std::ranges::min(counts), 3);
    // Turns take whole steps, so that gaps differ when not all streams fit one: gaps of one and two
    // steps give 8/9 at worst, and steps differ by the keys that they read.
    EXPECT_GT(JainIndex(gaps), max_step_rows < kStreams ? 0.85 : 0.95);
  }
}

TEST(FairnessTest, EqualStreamsGetEqualServiceWhileOthersComeAndGo) {
  constexpr int32_t kStreams = 12;
  SimulationOptions options = DayOptions();
  options.engine.max_step_rows = 8;
  Simulation simulation(options);
  std::vector<Arrival> arrivals;
  for (int i = 0; i < kStreams; ++i) arrivals.push_back(PromptAt(Second(0), i, 4, 400));
  for (int i = 0; i < 200; ++i) {
    arrivals.push_back(PromptAt(Second(5 + 0.2 * i), kStreams + i, 2, 1 + i % 5));
  }
  simulation.Run(std::move(arrivals));
  std::vector<double> mean_gaps;
  double longest = 0.0;
  for (int i = 0; i < kStreams; ++i) {
    const std::vector<double> gaps =
        GapsWithin(simulation.records().at(i), Second(5), Second(25));
    ASSERT_GT(gaps.size(), 50u);
    mean_gaps.push_back(std::accumulate(gaps.begin(), gaps.end(), 0.0) /
                        static_cast<double>(gaps.size()));
    longest = std::max(longest, std::ranges::max(gaps));
  }
  std::printf("among others: Jain's index over streams' mean gaps %.5f, longest gap %.3f s\n",
              JainIndex(mean_gaps), longest);
  EXPECT_GT(JainIndex(mean_gaps), 0.95);
}

TEST(FairnessTest, ALongPromptStretchesNoStepByMoreThanItsShare) {
  constexpr int32_t kStreams = 8, kLong = 3000, kAnswer = 400;
  SimulationOptions options = DayOptions();
  Simulation simulation(options);
  std::vector<Arrival> arrivals;
  for (int i = 0; i < kStreams; ++i) arrivals.push_back(PromptAt(Second(0), i, 20, kAnswer));
  arrivals.push_back(PromptAt(Second(3), kStreams, kLong, 5));
  simulation.Run(std::move(arrivals));
  // A step beside the long prompt: a row for each stream, the share, and at most all keys for each.
  const int32_t share = options.engine.prompt_share_rows;
  const absl::Duration bound = simulation.runner(0).CostOf(
      kStreams + share, kStreams * (20 + kAnswer + 1) + share * (kLong + 1));
  const RequestRecord& long_one = simulation.records().at(kStreams);
  ASSERT_TRUE(long_one.ended_ok());
  EXPECT_GE(long_one.summary.model_steps, kLong / share);
  for (int i = 0; i < kStreams; ++i) {
    const RequestRecord& stream = simulation.records().at(i);
    ASSERT_TRUE(stream.ended_ok());
    ASSERT_GT(stream.ended, long_one.submitted + absl::Seconds(5)) << "they met";
    for (size_t k = 1; k < stream.event_times.size(); ++k) {
      if (stream.event_times[k - 1] < Second(1)) continue;  // the streams' own prompts
      ASSERT_LE(stream.event_times[k] - stream.event_times[k - 1], bound);
    }
  }
}

TEST(PausedReaderTest, ReadersThatAreBehindDelayNobody) {
  const auto run = [](bool with_paused) {
    SimulationOptions options = DayOptions();
    options.engine.max_running_requests = 4;
    options.model.num_kv_slots = 2000;
    auto simulation = std::make_unique<Simulation>(options);
    std::vector<Arrival> arrivals;
    for (int i = 0; with_paused && i < 40; ++i) {
      arrivals.push_back(PromptAt(Second(0), 100 + i, 300, 20));
      arrivals.back().reader.pause = absl::InfiniteDuration();
    }
    for (int i = 0; i < 20; ++i) arrivals.push_back(PromptAt(Second(1), i, 50, 30));
    simulation->Run(std::move(arrivals));
    return simulation;
  };
  const auto without = run(false), with = run(true);
  for (const auto& [number, record] : with->records()) {
    if (number >= 100) {
      EXPECT_EQ(record.status.code(), absl::StatusCode::kDeadlineExceeded) << "it stalls for ever";
    } else {
      EXPECT_EQ(record.ended, without->records().at(number).ended);
    }
  }
}

// Readers that all go on at once do not make more requests run than may.
TEST(PausedReaderTest, WhatGoesOnKeepsToMaxRunningRequests) {
  SimulationOptions options = DayOptions();
  options.engine.max_running_requests = 3;
  Simulation simulation(options);
  std::vector<Arrival> arrivals;
  for (int i = 0; i < 20; ++i) {
    arrivals.push_back(PromptAt(Second(0), i, 10, 40));
    arrivals.back().reader = {.tokens_between_pauses = 0, .pause = absl::Seconds(10)};
  }
  simulation.Run(std::move(arrivals));
  for (const auto& [number, record] : simulation.records()) EXPECT_TRUE(record.ended_ok());
  EXPECT_THAT(simulation.breaches(Property::kStepBounds), IsEmpty());
}

}  // namespace
}  // namespace chorus
