// What looking costs: decode steps with and without attribution (a probe a row), and with and
// without disagreement, in turns, so that a machine that drifts hits both alike. JSON.
//   probe_bench DIRECTORY|SHAPE float32|bfloat16 NUM_THREADS [SECONDS a case]
// A case's price is the median over rounds of (with - without) / without.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/time/clock.h"

#include "core/model/torch_model_runner.h"
#include "tests/model/plan_builder.h"

namespace chorus {
namespace {

using Json = nlohmann::json;

constexpr int32_t kPrompts = 6;

// Fused requests that generate: prefix, six segments and suffix hold `num_keys` tokens.
struct Decoding {
  std::vector<TestSequence> sequences;
  KeyUnits units;
};

std::vector<int32_t> Tokens(int32_t count, int32_t start, int32_t vocab_size) {
  std::vector<int32_t> tokens(count);
  for (int32_t i = 0; i < count; ++i) tokens[i] = (start + 7919 * i) % vocab_size;
  return tokens;
}

Decoding MakeDecoding(int32_t num_requests, int32_t num_keys, int32_t vocab_size) {
  const int32_t segment = num_keys / 8;
  SegmentLayout::Pieces pieces;
  pieces.segment_lengths.assign(kPrompts, segment);
  pieces.suffix_length = 5;
  pieces.prefix_length = num_keys - kPrompts * segment - pieces.suffix_length;
  Decoding decoding;
  for (int32_t i = 0; i < num_requests; ++i) {
    TestSequence sequence{
        *SegmentLayout::FromPieces(pieces), Tokens(num_keys + 1, 100 + 31 * i, vocab_size), {}};
    sequence.slots.resize(num_keys + 1);
    std::iota(sequence.slots.begin(), sequence.slots.end(), i * (num_keys + 1));
    decoding.sequences.push_back(std::move(sequence));
  }
  // Prefix, each segment, suffix, generated.
  int32_t begin = 0;
  const auto append = [&](int32_t end) {
    decoding.units.ranges.push_back({begin, end, decoding.units.num_units++});
    begin = end;
  };
  append(pieces.prefix_length);
  for (int32_t i = 0; i < kPrompts; ++i) append(begin + segment);
  append(num_keys);
  append(num_keys + 1);
  return decoding;
}

// One step in which every request chooses a token.
StepPlan DecodeStep(const Decoding& decoding, const SamplingParams& sampling) {
  StepPlan plan;
  for (const TestSequence& sequence : decoding.sequences) {
    const auto last = static_cast<int32_t>(sequence.token_ids.size()) - 1;
    plan.choices.push_back(
        GreedyChoice(AppendRows(sequence, last, last + 1, plan), sampling, false));
  }
  return plan;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class Bench {
 public:
  Bench(std::unique_ptr<ModelRunner> runner, double seconds)
      : runner_(std::move(runner)), seconds_(seconds) {}

  Json Attribution(int32_t num_requests, int32_t num_keys) {
    const Decoding decoding = MakeDecoding(num_requests, num_keys, runner_->info().vocab_size);
    Fill(decoding);
    const StepPlan plain = DecodeStep(decoding, sampling_);
    StepPlan probed = plain;
    for (const TokenChoice& choice : plain.choices) {
      probed.probes.push_back({choice.rows[0], &decoding.units, {}, {}});
    }
    Json result = Compare(plain, probed);
    result["what"] = "attribution";
    result["requests"] = num_requests;
    result["keys"] = num_keys;
    return result;
  }

  // Requests of six prompts each; LOGIT_MEAN has their rows anyway, ATTENTION runs them beside its
  // own only to compare them.
  Json Disagreement(int32_t num_requests, int32_t num_keys, bool is_logit_mean) {
    const int32_t num_rows = kPrompts + (is_logit_mean ? 0 : 1);  // a request
    const Decoding all =
        MakeDecoding(num_requests * num_rows, num_keys, runner_->info().vocab_size);
    Fill(all);
    StepPlan with = DecodeStep(all, sampling_);
    Decoding fused;
    with.choices.resize(num_requests);
    for (int32_t i = 0; i < num_requests; ++i) {
      TokenChoice& choice = with.choices[i];
      choice.compared_rows.resize(kPrompts);
      std::iota(choice.compared_rows.begin(), choice.compared_rows.end(),
                (i + 1) * num_rows - kPrompts);
      choice.rule = is_logit_mean ? CombineRule::kLogitMean : CombineRule::kNone;
      choice.rows = {i * num_rows};
      if (is_logit_mean) choice.rows = choice.compared_rows;
      fused.sequences.push_back(all.sequences[i * num_rows]);
    }
    StepPlan without = is_logit_mean ? with : DecodeStep(fused, sampling_);
    for (TokenChoice& choice : without.choices) choice.compared_rows.clear();
    Json result = Compare(without, with);
    result["what"] = is_logit_mean ? "disagreement of LOGIT_MEAN" : "disagreement of ATTENTION";
    result["requests"] = num_requests;
    result["prompts"] = kPrompts;
    result["keys"] = num_keys;
    return result;
  }

  const absl::Status& status() const { return status_; }

 private:
  void Fill(const Decoding& decoding) {
    for (const TestSequence& sequence : decoding.sequences) {
      StepPlan plan;
      AppendRows(sequence, 0, static_cast<int32_t>(sequence.token_ids.size()) - 1, plan);
      Time(plan);
    }
  }

  double Time(const StepPlan& plan) {
    const absl::Time begin = absl::Now();
    status_.Update(runner_->Run(plan).status());
    return absl::ToDoubleMilliseconds(absl::Now() - begin);
  }

  // In rounds of four steps, without - with - with - without: what a step does to the next one hits
  // both alike, and a drift within the round cancels.
  Json Compare(const StepPlan& without, const StepPlan& with) {
    std::vector<double> without_ms, with_ms, prices;
    Time(without);
    Time(with);
    const absl::Time end = absl::Now() + absl::Seconds(seconds_);
    while (absl::Now() < end || prices.size() < 5) {
      const double first = Time(without);
      const double with_sum = Time(with) + Time(with);
      const double without_sum = first + Time(without);
      without_ms.push_back(without_sum / 2);
      with_ms.push_back(with_sum / 2);
      prices.push_back(with_sum / without_sum - 1.0);
    }
    return {{"rounds", prices.size()},
            {"step_ms_without", Median(without_ms)},
            {"step_ms_with", Median(with_ms)},
            {"price_percent", 100.0 * Median(prices)}};
  }

  std::unique_ptr<ModelRunner> runner_;
  const double seconds_;
  const SamplingParams sampling_;
  absl::Status status_;
};

int Run(const std::string& model, const std::string& dtype, int num_threads, double seconds) {
  ModelOptions options;
  (std::filesystem::is_directory(model) ? options.model_directory : options.random_shape) = model;
  options.dtype = dtype == "float32" ? ModelDtype::kFloat32 : ModelDtype::kBFloat16;
  options.num_threads = num_threads;
  auto weights = LoadSharedWeights(options);
  if (!weights.ok()) return std::fprintf(stderr, "%s\n", weights.status().ToString().c_str()), 1;
  auto runner = CreateTorchModelRunner(*std::move(weights), {num_threads, int64_t{2} << 30});
  if (!runner.ok()) return std::fprintf(stderr, "%s\n", runner.status().ToString().c_str()), 1;
  Json result = {{"model", (*runner)->info().name}, {"dtype", dtype}, {"threads", num_threads}};
  Bench bench(*std::move(runner), seconds);
  const std::vector<std::pair<int32_t, int32_t>> sizes = {
      {1, 300}, {8, 300}, {32, 300}, {1, 1500}, {8, 1500}};
  for (const auto& [num_requests, num_keys] : sizes) {
    result["cases"].push_back(bench.Attribution(num_requests, num_keys));
  }
  for (const int32_t num_requests : {1, 8}) {
    for (const bool is_logit_mean : {true, false}) {
      result["cases"].push_back(bench.Disagreement(num_requests, 80, is_logit_mean));
    }
  }
  if (!bench.status().ok()) {
    return std::fprintf(stderr, "%s\n", bench.status().ToString().c_str()), 1;
  }
  std::printf("%s\n", result.dump(1).c_str());
  return 0;
}

}  // namespace
}  // namespace chorus

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) {
    std::fprintf(
        stderr,
        "usage: probe_bench DIRECTORY|SHAPE float32|bfloat16 NUM_THREADS [SECONDS a case]\n"
        "Prices of attribution and of disagreement a decode step, as JSON.\n");
    return 2;
  }
  return chorus::Run(argv[1], argv[2], std::stoi(argv[3]), argc == 5 ? std::stod(argv[4]) : 5.0);
}
