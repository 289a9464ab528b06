// A whole model through the engine, as one JSON document: prefill, decode at several batch sizes,
// six fused prompts (ATTENTION) against the batched ensemble of the same prompts (LOGIT_MEAN), CUDA
// graphs on and off, and whether a request has the same tokens and log-probabilities alone and in a
// batch. gpu_run.py adds the share of the roofline.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/text/tokenizer.h"
#include "tests/bench/gpu_bench_runner.h"
#include "tests/bench/gpu_model_load.h"
#include "tests/bench/step_weight_bytes.h"

ABSL_FLAG(std::string, device, "cuda:0",
          "cuda:N; host: the kernels on simulated thread blocks, for tiny models, and times mean "
          "nothing; or cpu");
ABSL_FLAG(
    std::string, model, "llama-3.2-3b",
    "a shape with random weights (smollm2-135m, llama-3.2-1b, llama-3.2-3b, llama-3.1-8b), or "
    "a model's directory");
ABSL_FLAG(std::string, tokenizer, "tests/golden/models/tiny_gqa/tokenizer.json",
          "any tokenizer.json; what it makes of the tokens is not looked at");
ABSL_FLAG(std::string, dtype, "bfloat16", "bfloat16, or for the CPU float32");
ABSL_FLAG(std::vector<std::string>, batches,
          std::vector<std::string>({"1", "8", "32", "64", "128"}), "requests at once");
ABSL_FLAG(int32_t, prompt_tokens, 50, "tokens of each of six prompts");
ABSL_FLAG(int32_t, new_tokens, 64, "tokens that each request generates");
ABSL_FLAG(int32_t, max_step_rows, 8192, "rows of one step, at most");
ABSL_FLAG(int64_t, kv_cache_mebibytes, 16384, "memory for keys and values");
ABSL_FLAG(int32_t, threads, 1, "of the CPU");

namespace chorus::bench {
namespace {

using Json = nlohmann::json;

constexpr int32_t kPrompts = 6;

LoadShape ShapeOf(const ModelInfo& info) {
  return {.num_prompts = kPrompts,
          .prompt_tokens = absl::GetFlag(FLAGS_prompt_tokens),
          .max_new_tokens = absl::GetFlag(FLAGS_new_tokens),
          .vocab_size = info.vocab_size};
}

std::vector<Request> Requests(const LoadShape& shape, FusionMethod method, int32_t count) {
  static int32_t seed = 1;  // no two requests of a run are alike
  std::vector<Request> requests;
  for (int32_t i = 0; i < count; ++i) requests.push_back(MakeRequest(shape, method, seed++));
  return requests;
}

// One batch: prompts read, then `batch` requests decoding together.
absl::StatusOr<Json> RunBatch(BenchEngine& engine, FusionMethod method, int32_t batch) {
  const LoadShape shape = ShapeOf(engine.info());
  engine.TakeSteps();
  const absl::Time begin = absl::Now();
  CHORUS_RETURN_IF_ERROR(engine.Run(Requests(shape, method, batch)).status());
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  const std::vector<StepRecord> steps = engine.TakeSteps();
  const bool is_fused = method == FusionMethod::kAttention;
  const int32_t rows_a_step = batch * (is_fused ? 1 : kPrompts);
  const double steps_per_second = FullDecodeStepsPerSecond(steps, rows_a_step);
  // Keys that one decode step reads, in the middle of the answer.
  const int32_t own_tokens = shape.suffix_tokens + shape.max_new_tokens / 2;
  const int64_t keys = kPrompts * shape.prompt_tokens + (is_fused ? 1 : kPrompts) * own_tokens;
  return Json{{"method", is_fused ? "ATTENTION" : "LOGIT_MEAN"},
              {"batch", batch},
              {"prefill_rows_per_second", PrefillRowsPerSecond(steps)},
              {"decode_tokens_per_second", steps_per_second * batch},
              {"decode_rows_a_step", rows_a_step},
              {"keys_a_step", keys * batch},
              {"wall_tokens_per_second", batch * shape.max_new_tokens / seconds}};
}

std::vector<int32_t> TokensOf(const CollectingSink& sink) { return sink.finish.answer.token_ids; }
std::vector<float> LogprobsOf(const CollectingSink& sink) {
  std::vector<float> logprobs;
  for (const TokenEvent& event : sink.tokens) {
    logprobs.insert(logprobs.end(), event.logprobs.begin(), event.logprobs.end());
  }
  return logprobs;
}

// The first requests of a batch alone, then the whole batch: bit for bit the same.
absl::StatusOr<Json> CheckDeterminism(BenchEngine& engine, FusionMethod method, int32_t batch) {
  constexpr size_t kAlone = 3;
  const std::vector<Request> requests = Requests(ShapeOf(engine.info()), method, batch);
  CHORUS_ASSIGN_OR_RETURN(const BenchEngine::Sinks together, engine.Run(requests));
  int32_t num_alone = 0, num_same = 0;
  for (size_t i = 0; i < requests.size() && i < kAlone; ++i) {
    CHORUS_ASSIGN_OR_RETURN(const BenchEngine::Sinks alone, engine.Run({requests[i]}));
    ++num_alone;
    num_same += TokensOf(*alone[0]) == TokensOf(*together[i]) &&
                LogprobsOf(*alone[0]) == LogprobsOf(*together[i]);
  }
  return Json{{"method", method == FusionMethod::kAttention ? "ATTENTION" : "LOGIT_MEAN"},
              {"batch", batch},
              {"alone", num_alone},
              {"same", num_same},
              {"ok", num_same == num_alone}};
}

absl::StatusOr<std::vector<int32_t>> Batches() {
  std::vector<int32_t> batches;
  for (const std::string& text : absl::GetFlag(FLAGS_batches)) {
    int32_t batch = 0;
    if (!absl::SimpleAtoi(text, &batch) || batch < 1 || batch > 128) {
      return absl::InvalidArgumentError(
          absl::StrCat("--batches: '", text, "' is not a number from 1 to 128"));
    }
    batches.push_back(batch);
  }
  return batches;
}

absl::StatusOr<Json> RunEngine(const BenchModel& model, const Tokenizer* tokenizer,
                               bool has_graphs) {
  const int32_t max_step_rows = absl::GetFlag(FLAGS_max_step_rows);
  CHORUS_ASSIGN_OR_RETURN(const std::vector<int32_t> batches, Batches());
  std::vector<std::string> warnings;
  const absl::Time begin = absl::Now();
  CHORUS_ASSIGN_OR_RETURN(
      std::unique_ptr<ModelRunner> runner,
      model.create_runner({.kv_cache_bytes = absl::GetFlag(FLAGS_kv_cache_mebibytes) << 20,
                           .max_step_rows = max_step_rows,
                           .has_graphs = has_graphs,
                           .warnings = &warnings}));
  const double start_seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  CHORUS_ASSIGN_OR_RETURN(std::unique_ptr<BenchEngine> engine,
                          BenchEngine::Create(std::move(runner), tokenizer, max_step_rows));
  const ModelInfo& info = engine->info();
  CHORUS_ASSIGN_OR_RETURN(const int64_t step_weight_bytes,
                          StepWeightBytes(absl::GetFlag(FLAGS_model), info));
  Json result = {{"graphs", model.takes_graphs && has_graphs},
                 {"start_seconds", start_seconds},
                 {"warnings", warnings},
                 {"model", info.name},
                 {"dtype", info.dtype},
                 {"weight_bytes", info.weight_bytes},
                 {"step_weight_bytes", step_weight_bytes},
                 {"kv_bytes_per_token", info.kv_bytes_per_token},
                 {"runs", Json::array()},
                 {"determinism", Json::array()}};
  for (FusionMethod method : {FusionMethod::kAttention, FusionMethod::kLogitMean}) {
    CHORUS_RETURN_IF_ERROR(RunBatch(*engine, method, 2).status());  // warm-up
    for (int32_t batch : batches) {
      CHORUS_ASSIGN_OR_RETURN(Json run, RunBatch(*engine, method, batch));
      // All that is left of it if the program is stopped.
      std::fprintf(stderr, "%s, graphs %s, %s\n", info.name.c_str(),
                   model.takes_graphs && has_graphs ? "on" : "off", run.dump().c_str());
      result["runs"].push_back(std::move(run));
    }
    CHORUS_ASSIGN_OR_RETURN(Json check, CheckDeterminism(*engine, method, batches.back()));
    result["determinism"].push_back(std::move(check));
  }
  return result;
}

absl::StatusOr<Json> RunAll() {
  CHORUS_ASSIGN_OR_RETURN(std::unique_ptr<const Tokenizer> tokenizer,
                          Tokenizer::Load(absl::GetFlag(FLAGS_tokenizer)));
  ModelOptions options;
  const std::string name = absl::GetFlag(FLAGS_model);
  (std::filesystem::is_directory(name) ? options.model_directory : options.random_shape) = name;
  const bool is_float32 = absl::GetFlag(FLAGS_dtype) == "float32";
  options.dtype = is_float32 ? ModelDtype::kFloat32 : ModelDtype::kBFloat16;
  options.num_threads = absl::GetFlag(FLAGS_threads);
  const absl::Time begin = absl::Now();
  CHORUS_ASSIGN_OR_RETURN(const BenchModel model,
                          LoadBenchModel(absl::GetFlag(FLAGS_device), options));
  Json document = {{"device", model.device},
                   {"load_seconds", absl::ToDoubleSeconds(absl::Now() - begin)},
                   {"warnings", model.warnings},
                   {"prompts", kPrompts},
                   {"prompt_tokens", absl::GetFlag(FLAGS_prompt_tokens)},
                   {"new_tokens", absl::GetFlag(FLAGS_new_tokens)},
                   {"engines", Json::array()}};
  bool is_ok = true;
  for (bool has_graphs : {true, false}) {
    if (!has_graphs && !model.takes_graphs) break;
    CHORUS_ASSIGN_OR_RETURN(Json engine, RunEngine(model, tokenizer.get(), has_graphs));
    for (const Json& check : engine["determinism"]) is_ok = is_ok && check["ok"].get<bool>();
    document["engines"].push_back(std::move(engine));
  }
  document["ok"] = is_ok;
  return document;
}

int Main() {
  const absl::StatusOr<Json> document = RunAll();
  if (!document.ok()) {
    std::fprintf(stderr, "error: %s\n", std::string(document.status().message()).c_str());
    return 1;
  }
  std::printf("%s\n", document->dump(1).c_str());
  return (*document)["ok"].get<bool>() ? 0 : 1;
}

}  // namespace
}  // namespace chorus::bench

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "A whole model through the engine, as JSON: prefill and decode rates of fused prompts\n"
      "(ATTENTION) and of the batched ensemble (LOGIT_MEAN), CUDA graphs on and off, determinism.\n"
      "  gpu_model_bench --device=cuda:0 --model=llama-3.1-8b\n"
      "Exit code 1: an error, or a request had other tokens in a batch than alone.");
  absl::ParseCommandLine(argc, argv);
  return chorus::bench::Main();
}
