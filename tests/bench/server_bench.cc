// What the gRPC layer costs: the same requests asked of the engine in process, and over gRPC on the
// loopback, with server and clients in this one process. Modes take turns, round after round, so
// that a machine that drifts hits them alike; figures are medians over rounds. Without --model the
// model costs nothing, and what is measured is everything around it.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"

#include "client/flag_parser.h"
#include "core/base/status_macros.h"
#include "server/logging.h"
#include "server/model_setup.h"
#include "server/server.h"
#include "tests/bench/instant_model_runner.h"
#include "tests/bench/load.h"

namespace chorus {
namespace {

constexpr char kTinyModel[] = "tests/golden/models/tiny_mha";
constexpr char kAnswer[] = "All answers of this model are one text, which begins anew at its end. ";
constexpr int32_t kInstantSlots = 1 << 20;

struct Options {
  std::vector<std::string> modes = {"engine", "generate", "many"};
  int32_t rounds = 5;
  int32_t channels = 2;
  int32_t many_calls = 1;
  Workload workload;
  ServerConfig config;
};

FlagSetter IntoNumber(int32_t* target) {
  return [target](const std::string& value) {
    std::optional<int32_t> number;
    CHORUS_RETURN_IF_ERROR(Into(&number)(value));
    *target = *number;
    return *number >= 1 ? absl::OkStatus() : absl::InvalidArgumentError("is not at least 1");
  };
}

FlagParser MakeParser(Options* options) {
  FlagParser parser("server_bench", "[flags]",
                    "Streamed tokens a second of the engine alone and through gRPC, as JSON.");
  parser.AddSection("Load:");
  parser.AddFlag("mode", "LIST", "of engine, generate and many, in turns",
                 [=](const std::string& value) {
                   options->modes = absl::StrSplit(value, ',');
                   return absl::OkStatus();
                 });
  Workload* const load = &options->workload;
  parser.AddFlag("streams", "N", "requests under way at a time", IntoNumber(&load->num_streams));
  parser.AddFlag("requests", "N", "requests a round", IntoNumber(&load->num_requests));
  parser.AddFlag("prompts", "N", "prompts a request", IntoNumber(&load->num_prompts));
  parser.AddFlag("prompt_tokens", "N", "tokens a prompt", IntoNumber(&load->prompt_tokens));
  parser.AddFlag("max_new_tokens", "N", "tokens an answer", IntoNumber(&load->max_new_tokens));
  parser.AddFlag("rounds", "N", "rounds of every mode", IntoNumber(&options->rounds));
  parser.AddFlag("channels", "N", "connections of generate", IntoNumber(&options->channels));
  parser.AddFlag("many_calls", "N", "calls of many, each with a connection",
                 IntoNumber(&options->many_calls));
  parser.AddSection("Server:");
  ServerConfig* const config = &options->config;
  parser.AddFlag("model", "DIR", "a real model instead of the instant one",
                 Into(&config->model.directory));
  parser.AddFlag("dtype", "TYPE", "float32 or bfloat16", Into(&config->model.dtype));
  parser.AddFlag("threads", "N", "compute threads", IntoNumber(&config->model.threads));
  parser.AddFlag("stream_buffer_events", "N", "as of chorus-server",
                 IntoNumber(&config->network.stream_buffer_events));
  return parser;
}

std::vector<std::unique_ptr<ModelRunner>> InstantRunners(const Tokenizer& tokenizer) {
  ModelInfo info;
  info.name = "instant";
  info.vocab_size = tokenizer.vocab_size();
  info.max_positions = kInstantSlots;
  info.num_kv_slots = kInstantSlots;
  std::vector<std::unique_ptr<ModelRunner>> runners;
  runners.push_back(std::make_unique<InstantModelRunner>(
      info, tokenizer.Encode(kAnswer, SpecialTokens::kPlainText)));
  return runners;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

// Every round's figures of one mode, and their medians.
nlohmann::json Summarise(const std::vector<LoadResult>& results) {
  std::vector<double> rates, cpu;
  nlohmann::json rounds = nlohmann::json::array();
  for (const LoadResult& result : results) {
    const auto tokens = static_cast<double>(result.num_tokens);
    rates.push_back(tokens / result.wall_seconds);
    cpu.push_back(1e6 * result.cpu_seconds / tokens);
    rounds.push_back({{"tokens", result.num_tokens},
                      {"text_bytes", result.text_bytes},
                      {"tokens_per_message", tokens / static_cast<double>(result.num_messages)},
                      {"tokens_per_second", rates.back()},
                      {"cpu_microseconds_per_token", cpu.back()}});
  }
  return {{"tokens_per_second", Median(rates)},
          {"cpu_microseconds_per_token", Median(cpu)},
          {"rounds", std::move(rounds)}};
}

double TokensPerSecond(const LoadResult& result) {
  return static_cast<double>(result.num_tokens) / result.wall_seconds;
}

double CpuPerToken(const LoadResult& result) {
  return result.cpu_seconds / static_cast<double>(result.num_tokens);
}

// How a figure of each mode compares with the first mode's: median of the ratios of neighbouring
// rounds.
nlohmann::json Ratios(const std::vector<std::string>& modes,
                      const std::map<std::string, std::vector<LoadResult>>& results,
                      double (*figure)(const LoadResult&)) {
  nlohmann::json ratios;
  for (size_t mode = 1; mode < modes.size(); ++mode) {
    const std::vector<LoadResult>& base = results.at(modes[0]);
    const std::vector<LoadResult>& other = results.at(modes[mode]);
    std::vector<double> of_rounds;
    for (size_t i = 0; i < base.size(); ++i)
      of_rounds.push_back(figure(other[i]) / figure(base[i]));
    ratios[absl::StrCat(modes[mode], "/", modes[0])] = Median(of_rounds);
  }
  return ratios;
}

absl::StatusOr<LoadResult> RunMode(const std::string& mode, const Options& options,
                                   const RequestParser& parser, Server& server) {
  const std::string target = absl::StrCat("127.0.0.1:", server.grpc_port());
  if (mode == "engine") return RunEngineLoad(options.workload, parser, server.engine());
  if (mode == "generate") return RunGenerateLoad(options.workload, target, options.channels);
  if (mode == "many") return RunManyLoad(options.workload, target, options.many_calls);
  return absl::InvalidArgumentError(
      absl::StrCat("--mode=", mode, " is not known: use engine, generate and many"));
}

absl::Status Run(Options options) {
  ModelConfigFlags text_model = options.config.model;
  if (text_model.directory.empty()) text_model.directory = kTinyModel;
  CHORUS_ASSIGN_OR_RETURN(const TextSetup text, LoadText(text_model));
  std::vector<std::unique_ptr<ModelRunner>> runners;
  if (options.config.model.directory.empty()) {
    runners = InstantRunners(*text.tokenizer);
  } else {
    CHORUS_ASSIGN_OR_RETURN(const ServedDevices devices, ChooseDevices(options.config.model));
    LoadObserver observer;
    CHORUS_ASSIGN_OR_RETURN(runners, LoadRunners(options.config, devices, observer));
  }
  options.config.network.listen = "127.0.0.1:0";
  options.config.network.metrics_listen = "";
  options.config.log.level = "off";
  options.config.engine.max_queued_requests = options.workload.num_requests;
  options.config.engine.max_running_requests = options.workload.num_streams;
  options.config.network.max_stream_requests =
      (options.workload.num_streams + options.many_calls - 1) / options.many_calls;
  const Logger logger(options.config.log);
  CHORUS_ASSIGN_OR_RETURN(const std::unique_ptr<Server> server,
                          Server::Start(options.config, text.tokenizer.get(), text.config,
                                        std::move(runners), &logger));
  options.workload.vocab_size = server->engine().model_info().vocab_size;
  const RequestParser parser(
      text.tokenizer.get(), text.config,
      {options.workload.vocab_size, options.config.engine.max_request_tokens});
  std::map<std::string, std::vector<LoadResult>> results;
  for (int32_t round = 0; round <= options.rounds; ++round) {
    for (const std::string& mode : options.modes) {
      ++options.workload.seed;
      CHORUS_ASSIGN_OR_RETURN(LoadResult result, RunMode(mode, options, parser, *server));
      if (round > 0) results[mode].push_back(result);  // the first warms up
    }
  }
  nlohmann::json report = {
      {"model", server->engine().model_info().name},
      {"streams", options.workload.num_streams},
      {"requests", options.workload.num_requests},
      {"max_new_tokens", options.workload.max_new_tokens},
      {"ratios_of_tokens_per_second", Ratios(options.modes, results, TokensPerSecond)},
      {"ratios_of_cpu_per_token", Ratios(options.modes, results, CpuPerToken)}};
  for (const auto& [mode, rounds] : results) report["modes"][mode] = Summarise(rounds);
  std::puts(report.dump(1).c_str());
  return absl::OkStatus();
}

int Main(const std::vector<std::string>& arguments) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  // as chorus-server does
  Options options;
  const FlagParser parser = MakeParser(&options);
  const auto parsed = parser.Parse(arguments);
  absl::Status status = parsed.status();
  if (status.ok() && parsed->wants_help) {
    std::fputs(parser.Help().c_str(), stdout);
    return 0;
  }
  if (status.ok()) status = Run(std::move(options));
  if (status.ok()) return 0;
  std::fprintf(stderr, "server_bench: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace
}  // namespace chorus

int main(int argc, char** argv) {
  return chorus::Main(std::vector<std::string>(argv + 1, argv + argc));
}
