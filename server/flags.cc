// absl's flags were looked at and not taken: they are mutable globals, an unknown flag ends the
// process with code 1 and several lines, and their defaults would be written a second time beside
// ServerConfig. Values are still parsed by absl's own number and duration parsers.
#include "server/flags.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <functional>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

#include "core/base/status_macros.h"

namespace chorus {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

struct Flag {
  const char* group;
  const char* name;
  const char* placeholder;
  const char* help;
  std::function<bool(const std::string&, ServerConfig*)> set;  // false: the value is no such thing
  std::function<std::string(const ServerConfig&)> get;
};

bool ParseValue(const std::string& text, std::string* value) {
  *value = text;
  return true;
}

bool ParseValue(const std::string& text, int32_t* value) { return absl::SimpleAtoi(text, value); }

bool ParseValue(const std::string& text, absl::Duration* value) {
  return absl::ParseDuration(text, value);
}

// A number of bytes: plain, or with KiB, MiB or GiB behind it.
bool ParseValue(const std::string& text, int64_t* value) {
  absl::string_view digits = text;
  int shift = 0;
  if (absl::ConsumeSuffix(&digits, "KiB"))
    shift = 10;
  else if (absl::ConsumeSuffix(&digits, "MiB"))
    shift = 20;
  else if (absl::ConsumeSuffix(&digits, "GiB"))
    shift = 30;
  if (!absl::SimpleAtoi(digits, value)) return false;
  if (*value < 0 || *value > (INT64_MAX >> shift)) return false;
  *value <<= shift;
  return true;
}

std::string FormatValue(const std::string& value) { return value; }
std::string FormatValue(int64_t value) { return absl::StrCat(value); }
std::string FormatValue(absl::Duration value) { return absl::FormatDuration(value); }

// A flag whose value is the member that `member` returns a reference to.
template <typename Member>
Flag MakeFlag(const char* group, const char* name, const char* placeholder, const char* help,
              Member member) {
  return Flag{group,
              name,
              placeholder,
              help,
              [member](const std::string& text, ServerConfig* config) {
                return ParseValue(text, &member(*config));
              },
              [member](const ServerConfig& config) {
                ServerConfig copy = config;
                return FormatValue(member(copy));
              }};
}

using Config = ServerConfig;

void AddModelFlags(std::vector<Flag>* flags) {
  static constexpr char kGroup[] = "Model";
  flags->insert(
      flags->end(),
      {MakeFlag(kGroup, "model", "DIR", "Hugging Face directory: config, weights, tokenizer",
                [](Config& c) -> auto& { return c.model.directory; }),
       MakeFlag(kGroup, "random_weights", "SHAPE",
                "serve random weights of llama-3.2-3b, llama-3.1-8b or smollm2-135m, for "
                "benchmarks; --model then gives the tokenizer only",
                [](Config& c) -> auto& { return c.model.random_weights; }),
       MakeFlag(kGroup, "devices", "LIST", "auto or cpu; auto is cpu in this build",
                [](Config& c) -> auto& { return c.model.devices; }),
       MakeFlag(kGroup, "dtype", "TYPE", "auto, float32 or bfloat16; auto is bfloat16",
                [](Config& c) -> auto& { return c.model.dtype; }),
       MakeFlag(kGroup, "workers", "N", "replicas that share the weights, each with its own batch",
                [](Config& c) -> auto& { return c.model.workers; }),
       MakeFlag(kGroup, "threads", "N", "compute threads a worker; 0: hardware threads / workers",
                [](Config& c) -> auto& { return c.model.threads; }),
       MakeFlag(kGroup, "kv_cache_bytes", "BYTES",
                "memory for keys and values a worker; KiB, MiB and GiB may stand behind it; 0: half "
                "of what is free once the weights are loaded, shared by the workers",
                [](Config& c) -> auto& { return c.model.kv_cache_bytes; })});
}

void AddNetworkFlags(std::vector<Flag>* flags) {
  static constexpr char kGroup[] = "Network";
  flags->insert(
      flags->end(),
      {MakeFlag(kGroup, "listen", "HOST:PORT", "gRPC address; port 0 takes a free one",
                [](Config& c) -> auto& { return c.network.listen; }),
       MakeFlag(kGroup, "metrics_listen", "HOST:PORT",
                "Prometheus page /metrics; port 0 takes a free one; empty: none",
                [](Config& c) -> auto& { return c.network.metrics_listen; }),
       MakeFlag(kGroup, "port_file", "PATH",
                "gets {\"grpc\": PORT, \"metrics\": PORT} once the server serves",
                [](Config& c) -> auto& { return c.network.port_file; }),
       MakeFlag(kGroup, "drain_delay", "TIME",
                "after SIGTERM, health says NOT_SERVING and new requests are still taken for this "
                "long, until load balancers have turned to other servers",
                [](Config& c) -> auto& { return c.network.drain_delay; }),
       MakeFlag(kGroup, "drain_timeout", "TIME",
                "then running streams may take this long to finish",
                [](Config& c) -> auto& { return c.network.drain_timeout; }),
       MakeFlag(kGroup, "stuck_after", "TIME",
                "health says NOT_SERVING when a worker with work makes no step for this long",
                [](Config& c) -> auto& { return c.network.stuck_after; })});
}

void AddLimitFlags(std::vector<Flag>* flags) {
  static constexpr char kGroup[] = "Limits";
  flags->insert(
      flags->end(),
      {MakeFlag(kGroup, "max_queued_requests", "N",
                "waiting requests; further ones get RESOURCE_EXHAUSTED",
                [](Config& c) -> auto& { return c.engine.max_queued_requests; }),
       MakeFlag(kGroup, "max_queued_tokens", "N",
                "prompt and generated tokens of waiting requests; likewise",
                [](Config& c) -> auto& { return c.engine.max_queued_tokens; }),
       MakeFlag(kGroup, "max_explain_requests", "N",
                "Explain requests, waiting and running; further ones get RESOURCE_EXHAUSTED",
                [](Config& c) -> auto& { return c.engine.max_explain_requests; }),
       MakeFlag(kGroup, "max_queue_delay", "TIME",
                "a request that waits longer ends with RESOURCE_EXHAUSTED, before any compute",
                [](Config& c) -> auto& { return c.engine.max_queue_delay; }),
       MakeFlag(kGroup, "priority_ageing", "TIME",
                "one step of priority counts as much as having waited this much longer",
                [](Config& c) -> auto& { return c.engine.priority_ageing; }),
       MakeFlag(kGroup, "max_running_requests", "N",
                "requests in one worker's batch, without those whose readers are behind",
                [](Config& c) -> auto& { return c.engine.max_running_requests; }),
       MakeFlag(kGroup, "max_step_rows", "N",
                "rows of one model step; longer prompts are read in chunks",
                [](Config& c) -> auto& { return c.engine.max_step_rows; }),
       MakeFlag(kGroup, "prompt_share_rows", "N",
                "rows a step for each prompt being read while others generate: fewer keep streams "
                "smoother, more bring first tokens sooner",
                [](Config& c) -> auto& { return c.engine.prompt_share_rows; }),
       MakeFlag(kGroup, "max_idle_cache_tokens", "N",
                "tokens of segments that are kept for later requests, a worker; 0: none",
                [](Config& c) -> auto& { return c.engine.max_idle_cache_tokens; }),
       MakeFlag(kGroup, "max_reader_stall", "TIME",
                "a request whose reader takes nothing for this long ends with DEADLINE_EXCEEDED",
                [](Config& c) -> auto& { return c.engine.max_reader_stall; }),
       MakeFlag(kGroup, "max_request_tokens", "N", "tokens of one request, generated ones included",
                [](Config& c) -> auto& { return c.engine.max_request_tokens; }),
       MakeFlag(kGroup, "stream_buffer_events", "N",
                "unread tokens after which a slow reader's request is paused",
                [](Config& c) -> auto& { return c.network.stream_buffer_events; }),
       MakeFlag(kGroup, "max_stream_requests", "N",
                "requests under way in one GenerateMany call; further ones are not read yet",
                [](Config& c) -> auto& { return c.network.max_stream_requests; }),
       MakeFlag(kGroup, "tokenizer_threads", "N", "threads that tokenise long texts",
                [](Config& c) -> auto& { return c.network.tokenizer_threads; }),
       MakeFlag(kGroup, "tokenizer_queue", "N", "long texts that may wait to be tokenised",
                [](Config& c) -> auto& { return c.network.tokenizer_queue; })});
}

void AddLogFlags(std::vector<Flag>* flags) {
  static constexpr char kGroup[] = "Log (stderr; texts of prompts and answers are never logged)";
  flags->insert(flags->end(),
                {MakeFlag(kGroup, "log_level", "LEVEL", "debug, info, warning, error or off",
                          [](Config& c) -> auto& { return c.log.level; }),
                 MakeFlag(kGroup, "log_format", "FORMAT", "text, or json for one object a line",
                          [](Config& c) -> auto& { return c.log.format; })});
}

std::vector<Flag> AllFlags() {
  std::vector<Flag> flags;
  AddModelFlags(&flags);
  AddNetworkFlags(&flags);
  AddLimitFlags(&flags);
  AddLogFlags(&flags);
  return flags;
}

absl::Status Apply(const std::vector<Flag>& flags, const std::string& name,
                   const std::string& value, const std::string& where, ServerConfig* config) {
  const auto flag = std::find_if(flags.begin(), flags.end(),
                                 [&](const Flag& candidate) { return name == candidate.name; });
  if (flag == flags.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, name, " is not a flag: see chorus-server --help"));
  }
  if (!flag->set(value, config)) {
    return absl::InvalidArgumentError(absl::StrCat(where, name, "=", value, " cannot be read as ",
                                                   flag->placeholder, ": ", flag->help));
  }
  return absl::OkStatus();
}

// Lines `name=value`; blank lines and lines that begin with # are skipped.
absl::StatusOr<Pairs> ReadConfigFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    return absl::InvalidArgumentError(
        absl::StrCat("--config=", path, " cannot be opened: name a readable file"));
  }
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  Pairs pairs;
  int line_number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++line_number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line.front() == '#') continue;
    absl::ConsumePrefix(&line, "--");
    const std::pair<std::string, std::string> pair = absl::StrSplit(line, absl::MaxSplits('=', 1));
    if (!absl::StrContains(line, '=')) {
      return absl::InvalidArgumentError(
          absl::StrCat("--config=", path, " line ", line_number, " is not name=value"));
    }
    pairs.emplace_back(absl::StripAsciiWhitespace(pair.first),
                       absl::StripAsciiWhitespace(pair.second));
  }
  return pairs;
}

// Splits the command line into pairs; --help and --version go straight into `parsed`.
absl::StatusOr<Pairs> SplitArguments(const std::vector<std::string>& arguments,
                                     ParsedFlags* parsed) {
  Pairs pairs;
  for (size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view argument = arguments[i];
    if (argument == "--help" || argument == "-h") {
      parsed->help = true;
    } else if (argument == "--version") {
      parsed->version = true;
    } else if (!absl::ConsumePrefix(&argument, "--") || argument.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          arguments[i], " is not a flag: flags are --name=value, see chorus-server --help"));
    } else if (const size_t equals = argument.find('='); equals != absl::string_view::npos) {
      pairs.emplace_back(argument.substr(0, equals), argument.substr(equals + 1));
    } else if (i + 1 < arguments.size() && !absl::StartsWith(arguments[i + 1], "--")) {
      pairs.emplace_back(argument, arguments[++i]);
    } else {
      return absl::InvalidArgumentError(absl::StrCat(
          arguments[i], " has no value: write ", arguments[i], "=VALUE, see chorus-server --help"));
    }
  }
  return pairs;
}

}  // namespace

absl::StatusOr<ParsedFlags> ParseFlags(const std::vector<std::string>& arguments) {
  const std::vector<Flag> flags = AllFlags();
  ParsedFlags parsed;
  CHORUS_ASSIGN_OR_RETURN(const Pairs pairs, SplitArguments(arguments, &parsed));
  for (const auto& [name, value] : pairs) {
    if (name != "config") continue;
    CHORUS_ASSIGN_OR_RETURN(const Pairs file_pairs, ReadConfigFile(value));
    for (const auto& [file_name, file_value] : file_pairs) {
      CHORUS_RETURN_IF_ERROR(Apply(flags, file_name, file_value,
                                   absl::StrCat("in --config=", value, ": "), &parsed.config));
    }
  }
  for (const auto& [name, value] : pairs) {
    if (name == "config") continue;
    CHORUS_RETURN_IF_ERROR(Apply(flags, name, value, "--", &parsed.config));
  }
  return parsed;
}

std::string HelpText() {
  std::string text =
      "chorus-server: a gRPC service that lets a Llama model read a question and its paraphrases\n"
      "side by side and streams back one fused answer.\n\n"
      "Example:\n"
      "  chorus-server --model=models/smollm2-135m-instruct --listen=127.0.0.1:50051\n"
      "  chorus ask \"What is the capital of Norway?\" \\\n"
      "      --paraphrase=\"Name Norway's capital city.\"\n\n"
      "Services: chorus.v1.Inference, grpc.health.v1.Health, server reflection. SIGTERM stops\n"
      "admission, lets running streams finish and exits 0; a second one ends at once.\n"
      "Exit codes: 0 done, 1 failure while running, 2 bad flags or model.\n\n"
      "General:\n"
      "  --config=FILE    lines name=value with the flags below, # begins a comment line;\n"
      "                   a flag on the command line beats the file\n"
      "  --help           this text\n"
      "  --version        the version\n";
  const ServerConfig defaults;
  std::string group;
  for (const Flag& flag : AllFlags()) {
    if (group != flag.group) absl::StrAppend(&text, "\n", flag.group, ":\n");
    group = flag.group;
    const std::string value = flag.get(defaults);
    absl::StrAppend(&text, "  --", flag.name, "=", flag.placeholder, "\n      ", flag.help,
                    value.empty() ? "" : absl::StrCat(" (default ", value, ")"), "\n");
  }
  return text;
}

std::vector<std::pair<std::string, std::string>> DescribeConfig(const ServerConfig& config) {
  Pairs pairs;
  for (const Flag& flag : AllFlags()) pairs.emplace_back(flag.name, flag.get(config));
  return pairs;
}

}  // namespace chorus
