// Load time, resident set, prefill and decode speed of a model, as one line of JSON.
//   model_bench DIRECTORY|SHAPE float32|bfloat16 NUM_THREADS
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/time/clock.h"

#include "core/model/sampler.h"
#include "core/model/torch_model_runner.h"
#include "tests/model/plan_builder.h"

namespace chorus {
namespace {

// A line of /proc/self/status in MiB: "VmRSS" or "VmHWM".
double StatusMebibytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::stod(line.substr(field.size() + 1)) / 1024;
  }
  return 0;
}

double SecondsSince(absl::Time start) { return absl::ToDoubleSeconds(absl::Now() - start); }

// Microseconds of one greedy choice, its log-probability included.
double GreedyMicroseconds(int32_t vocab_size) {
  std::vector<float> row(vocab_size);
  for (int32_t i = 0; i < vocab_size; ++i) row[i] = static_cast<float>(i * 7919 % 1000) * 0.01f;
  const SamplingParams sampling;
  const TokenChoice choice = GreedyChoice(0, sampling, false);
  double best = 1e9;
  for (int repeat = 0; repeat < 200; ++repeat) {
    const absl::Time begin = absl::Now();
    if (!SampleToken(choice, row.data(), vocab_size).status.ok()) return -1;
    best = std::min(best, SecondsSince(begin));
  }
  return best * 1e6;
}

StepPlan PlanOf(const TestSequence& sequence, int32_t begin, int32_t end,
                const SamplingParams& sampling) {
  StepPlan plan;
  const int32_t first = AppendRows(sequence, begin, end, plan);
  plan.choices.push_back(GreedyChoice(first + end - begin - 1, sampling, false));
  return plan;
}

int Run(const std::string& model, const std::string& dtype, int num_threads) {
  ModelOptions options;
  (std::filesystem::is_directory(model) ? options.model_directory : options.random_shape) = model;
  options.dtype = dtype == "float32" ? ModelDtype::kFloat32 : ModelDtype::kBFloat16;
  options.num_threads = num_threads;
  const absl::Time start = absl::Now();
  auto weights = LoadSharedWeights(options);
  if (!weights.ok()) return std::fprintf(stderr, "%s\n", weights.status().ToString().c_str()), 1;
  const double load_seconds = SecondsSince(start);
  auto runner = CreateTorchModelRunner(*std::move(weights), {num_threads, int64_t{1} << 30});
  if (!runner.ok()) return std::fprintf(stderr, "%s\n", runner.status().ToString().c_str()), 1;
  const double loaded_mebibytes = StatusMebibytes("VmRSS");

  constexpr int32_t kPromptTokens = 256;
  constexpr int32_t kSteps = 64;
  std::vector<int32_t> tokens(kPromptTokens + kSteps);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(100 + 7 * i);
  const TestSequence sequence = CausalSequence(tokens, 0);
  const SamplingParams sampling;
  double prefill_seconds = 1e9;
  for (int repeat = 0; repeat < 4; ++repeat) {
    const absl::Time begin = absl::Now();
    const auto result = (*runner)->Run(PlanOf(sequence, 0, kPromptTokens, sampling));
    if (!result.ok()) return std::fprintf(stderr, "%s\n", result.status().ToString().c_str()), 1;
    prefill_seconds = std::min(prefill_seconds, SecondsSince(begin));
  }
  const absl::Time begin = absl::Now();
  for (int32_t i = kPromptTokens; i < kPromptTokens + kSteps; ++i) {
    const auto result = (*runner)->Run(PlanOf(sequence, i, i + 1, sampling));
    if (!result.ok()) return std::fprintf(stderr, "%s\n", result.status().ToString().c_str()), 1;
  }
  const double decode_steps_per_second = kSteps / SecondsSince(begin);
  std::printf(
      "{\"model\": \"%s\", \"dtype\": \"%s\", \"threads\": %d, \"load_seconds\": %.2f, "
      "\"weight_mebibytes\": %.1f, \"resident_mebibytes\": %.1f, \"peak_mebibytes\": %.1f, "
      "\"prefill_tokens_per_second\": %.0f, \"decode_steps_per_second\": %.1f, "
      "\"greedy_microseconds\": %.1f}\n",
      (*runner)->info().name.c_str(), (*runner)->info().dtype.c_str(), num_threads, load_seconds,
      static_cast<double>((*runner)->info().weight_bytes) / (1 << 20), loaded_mebibytes,
      StatusMebibytes("VmHWM"), kPromptTokens / prefill_seconds, decode_steps_per_second,
      GreedyMicroseconds((*runner)->info().vocab_size));
  return 0;
}

}  // namespace
}  // namespace chorus

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: model_bench DIRECTORY|SHAPE float32|bfloat16 NUM_THREADS\n");
    return 2;
  }
  return chorus::Run(argv[1], argv[2], std::stoi(argv[3]));
}
