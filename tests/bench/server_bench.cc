// What the gRPC layer costs: the same requests asked of the engine in process, and over gRPC on the
// loopback, with server and clients in this one process. Modes take turns, round after round, so
// that a machine that drifts hits them alike; figures are medians over rounds. Without a model what
// is measured is everything around it. The last words of a command line are chorus-server's:
//   server_bench --streams=64 --waves=1 -- --random_weights=llama-3.2-3b --devices=cuda:0
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
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "client/flag_parser.h"
#include "core/base/status_macros.h"
#include "server/flags.h"
#include "server/logging.h"
#include "server/model_setup.h"
#include "server/server.h"
#include "tests/bench/instant_model_runner.h"
#include "tests/bench/load.h"
#include "tests/bench/step_weight_bytes.h"

namespace chorus {
namespace {

constexpr char kTinyModel[] = "tests/golden/models/tiny_mha";
constexpr char kAnswer[] = "All answers of this model are one text, which begins anew at its end. ";
constexpr int32_t kInstantSlots = 1 << 20;

struct Options {
  std::vector<std::string> modes = {"engine", "generate", "many"};
  std::vector<int32_t> streams = {64};  // a load each
  int32_t waves = 0;                    // requests a stream and round; 0: as workload says
  int32_t rounds = 5;
  int32_t channels = 2;
  int32_t many_calls = 1;
  Workload workload;
  ServerConfig config;

  bool is_instant() const {
    return config.model.directory.empty() && config.model.random_weights.empty();
  }
};

FlagSetter IntoNumber(int32_t* target) {
  return [target](const std::string& value) {
    std::optional<int32_t> number;
    CHORUS_RETURN_IF_ERROR(Into(&number)(value));
    *target = *number;
    return *number >= 1 ? absl::OkStatus() : absl::InvalidArgumentError("is not at least 1");
  };
}

FlagSetter IntoStreams(std::vector<int32_t>* target) {
  return [target](const std::string& value) {
    target->clear();
    CHORUS_RETURN_IF_ERROR(IntoList(target)(value));
    const bool is_valid =
        !target->empty() && *std::min_element(target->begin(), target->end()) >= 1;
    return is_valid ? absl::OkStatus() : absl::InvalidArgumentError("is not at least 1");
  };
}

FlagParser MakeParser(Options* options) {
  FlagParser parser("server_bench", "[flags] [-- chorus-server's flags]",
                    "Streamed tokens a second of the engine alone and through gRPC, as JSON.");
  parser.AddSection("Load:");
  parser.AddFlag("mode", "LIST", "of engine, generate and many, in turns",
                 [=](const std::string& value) {
                   options->modes = absl::StrSplit(value, ',');
                   return absl::OkStatus();
                 });
  Workload* const load = &options->workload;
  parser.AddFlag("streams", "LIST", "requests under way at a time, a load for each number",
                 IntoStreams(&options->streams));
  parser.AddFlag("requests", "N", "requests a round", IntoNumber(&load->num_requests));
  parser.AddFlag("waves", "N", "requests a round for each stream, in place of --requests",
                 IntoNumber(&options->waves));
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
  std::vector<double> rates, decode_rates, cpu;
  nlohmann::json rounds = nlohmann::json::array();
  for (const LoadResult& result : results) {
    const auto tokens = static_cast<double>(result.num_tokens);
    rates.push_back(tokens / result.wall_seconds);
    decode_rates.push_back(DecodeTokensPerSecond(result));
    cpu.push_back(1e6 * result.cpu_seconds / tokens);
    rounds.push_back({{"tokens", result.num_tokens},
                      {"text_bytes", result.text_bytes},
                      {"tokens_per_message", tokens / static_cast<double>(result.num_messages)},
                      {"tokens_per_second", rates.back()},
                      {"decode_tokens_per_second", decode_rates.back()},
                      {"cpu_microseconds_per_token", cpu.back()}});
  }
  return {{"tokens_per_second", Median(rates)},
          {"decode_tokens_per_second", Median(decode_rates)},
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

// All modes in turns, with options.workload.
absl::StatusOr<nlohmann::json> RunRounds(Options& options, const RequestParser& parser,
                                         Server& server) {
  const Workload& workload = options.workload;
  std::map<std::string, std::vector<LoadResult>> results;
  for (int32_t round = 0; round <= options.rounds; ++round) {
    for (const std::string& mode : options.modes) {
      ++options.workload.seed;
      CHORUS_ASSIGN_OR_RETURN(LoadResult result, RunMode(mode, options, parser, server));
      std::fprintf(stderr, "%d streams, round %d, %s: %.0f tokens/s\n", workload.num_streams, round,
                   mode.c_str(), TokensPerSecond(result));
      if (round > 0) results[mode].push_back(std::move(result));  // the first warms up
    }
  }
  nlohmann::json load = {
      {"streams", workload.num_streams},
      {"requests", workload.num_requests},
      {"prompts", workload.num_prompts},
      {"prompt_tokens", workload.prompt_tokens},
      {"max_new_tokens", workload.max_new_tokens},
      {"ratios_of_tokens_per_second", Ratios(options.modes, results, TokensPerSecond)},
      {"ratios_of_cpu_per_token", Ratios(options.modes, results, CpuPerToken)}};
  for (const auto& [mode, rounds] : results) load["modes"][mode] = Summarise(rounds);
  return load;
}

// Keeps what is said of a model as it loads.
class Warnings final : public LoadObserver {
 public:
  void OnWarning(const std::string& text) override { lines.push_back(text); }
  std::vector<std::string> lines;
};

absl::StatusOr<std::vector<std::unique_ptr<ModelRunner>>> LoadModel(const ServerConfig& config,
                                                                    nlohmann::json* report) {
  CHORUS_RETURN_IF_ERROR(Validate(config));
  CHORUS_ASSIGN_OR_RETURN(const ServedDevices devices, ChooseDevices(config.model));
  const absl::Time begin = absl::Now();
  Warnings warnings;
  CHORUS_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<ModelRunner>> runners,
                          LoadRunners(config, devices, warnings));
  const ModelInfo& info = runners[0]->info();
  const ModelConfigFlags& model = config.model;
  CHORUS_ASSIGN_OR_RETURN(
      const int64_t step_weight_bytes,
      bench::StepWeightBytes(model.random_weights.empty() ? model.directory : model.random_weights,
                             info));
  report->update({{"devices", devices.names()},
                  {"workers", runners.size()},
                  {"dtype", info.dtype},
                  {"load_seconds", absl::ToDoubleSeconds(absl::Now() - begin)},
                  {"warnings", warnings.lines},
                  {"step_weight_bytes", step_weight_bytes},
                  {"kv_bytes_per_token", info.kv_bytes_per_token}});
  return runners;
}

// Of the server, as the largest load needs it.
void Configure(const Options& options, ServerConfig* config) {
  const int32_t streams = *std::max_element(options.streams.begin(), options.streams.end());
  config->network.listen = "127.0.0.1:0";
  config->network.metrics_listen = "";
  config->log.level = "off";
  config->engine.max_queued_requests =
      std::max(options.workload.num_requests, options.waves * streams);
  config->engine.max_running_requests = streams;
  config->network.max_stream_requests = (streams + options.many_calls - 1) / options.many_calls;
}

absl::Status Run(Options options) {
  Configure(options, &options.config);
  ModelConfigFlags text_model = options.config.model;
  if (text_model.directory.empty()) text_model.directory = kTinyModel;
  CHORUS_ASSIGN_OR_RETURN(const TextSetup text, LoadText(text_model));
  nlohmann::json report = {{"loads", nlohmann::json::array()}};
  std::vector<std::unique_ptr<ModelRunner>> runners;
  if (options.is_instant()) {
    runners = InstantRunners(*text.tokenizer);
  } else {
    CHORUS_ASSIGN_OR_RETURN(runners, LoadModel(options.config, &report));
  }
  const Logger logger(options.config.log);
  CHORUS_ASSIGN_OR_RETURN(const std::unique_ptr<Server> server,
                          Server::Start(options.config, text.tokenizer.get(), text.config,
                                        std::move(runners), &logger));
  report["model"] = server->engine().model_info().name;
  options.workload.vocab_size = server->engine().model_info().vocab_size;
  const RequestParser parser(
      text.tokenizer.get(), text.config,
      {options.workload.vocab_size, options.config.engine.max_request_tokens});
  for (const int32_t streams : options.streams) {
    options.workload.num_streams = streams;
    if (options.waves > 0) options.workload.num_requests = options.waves * streams;
    CHORUS_ASSIGN_OR_RETURN(nlohmann::json load, RunRounds(options, parser, *server));
    report["loads"].push_back(std::move(load));
  }
  std::puts(report.dump(1).c_str());
  return absl::OkStatus();
}

// What stands behind "--" is taken out of `arguments`.
absl::StatusOr<ServerConfig> TakeServerFlags(std::vector<std::string>* arguments) {
  const auto end = std::find(arguments->begin(), arguments->end(), "--");
  if (end == arguments->end()) return ServerConfig();
  CHORUS_ASSIGN_OR_RETURN(ParsedFlags parsed,
                          ParseFlags(std::vector<std::string>(end + 1, arguments->end())));
  arguments->erase(end, arguments->end());
  return std::move(parsed.config);
}

absl::StatusOr<FlagParser::Result> ParseCommandLine(std::vector<std::string> arguments,
                                                    const FlagParser& parser, Options* options) {
  CHORUS_ASSIGN_OR_RETURN(options->config, TakeServerFlags(&arguments));
  return parser.Parse(arguments);
}

int Main(const std::vector<std::string>& arguments) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  // as chorus-server does
  Options options;
  const FlagParser parser = MakeParser(&options);
  const auto parsed = ParseCommandLine(arguments, parser, &options);
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
