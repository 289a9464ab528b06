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
  const char* placeholder;  // empty for a switch, whose value need not be written
  const char* help;
  std::function<bool(const std::string&, ServerConfig*)> set;  // false: the value is no such thing
  std::function<std::string(const ServerConfig&)> get;
};

bool ParseValue(const std::string& text, std::string* value) {
  *value = text;
  return true;
}

bool ParseValue(const std::string& text, bool* value) {
  *value = text == "true";
  return *value || text == "false";
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
std::string FormatValue(bool value) { return value ? "true" : "false"; }
std::string FormatValue(int32_t value) { return absl::StrCat(value); }
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
       MakeFlag(kGroup, "devices", "LIST",
                "auto, cpu, or GPUs by number: cuda:0,cuda:1; auto is every GPU that can be used, "
                "else cpu",
                [](Config& c) -> auto& { return c.model.devices; }),
       MakeFlag(kGroup, "dtype", "TYPE", "auto, float32 or bfloat16; auto is bfloat16, all that GPUs take",
                [](Config& c) -> auto& { return c.model.dtype; }),
       MakeFlag(kGroup, "workers", "N",
                "workers on each device, each with its own batch; they share its weights",
                [](Config& c) -> auto& { return c.model.workers; }),
       MakeFlag(kGroup, "threads", "N", "compute threads a worker on the CPU; 0: hardware threads / workers",
                [](Config& c) -> auto& { return c.model.threads; }),
       MakeFlag(kGroup, "kv_cache_bytes", "BYTES",
                "memory for keys and values a worker; KiB, MiB and GiB may stand behind it; 0: half "
                "of what is free once the weights are loaded, nine tenths of it on a GPU, shared by "
                "the workers there",
                [](Config& c) -> auto& { return c.model.kv_cache_bytes; }),
       MakeFlag(kGroup, "cuda_graphs", "",
                "on GPUs, steps that only generate are recorded at the start and replayed: faster, "
                "for a longer start",
                [](Config& c) -> auto& { return c.model.cuda_graphs; })});
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
       MakeFlag(kGroup, "health_listen", "HOST:PORT",
                "a second gRPC port for health checks and nothing else, always in plain text: for "
                "probes that know no TLS; port 0 takes a free one; empty: none",
                [](Config& c) -> auto& { return c.network.health_listen; }),
       MakeFlag(kGroup, "port_file", "PATH",
                "gets {\"grpc\": PORT, \"metrics\": PORT, \"health\": PORT} once the server serves; "
                "0 stands for none",
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

void AddSecurityFlags(std::vector<Flag>* flags) {
  static constexpr char kGroup[] = "Security";
  flags->insert(
      flags->end(),
      {MakeFlag(kGroup, "tls_certificate", "FILE",
                "PEM certificates, the server's own first; --listen then speaks TLS only",
                [](Config& c) -> auto& { return c.security.tls_certificate; }),
       MakeFlag(kGroup, "tls_key", "FILE", "PEM private key of that certificate",
                [](Config& c) -> auto& { return c.security.tls_key; }),
       MakeFlag(kGroup, "tls_client_ca", "FILE",
                "PEM certificates of those who sign clients: mutual TLS, nobody else gets in",
                [](Config& c) -> auto& { return c.security.tls_client_ca; }),
       MakeFlag(kGroup, "token_file", "FILE",
                "bearer tokens, one a line, # begins a comment line; every call but health checks "
                "must send one as metadata 'authorization: Bearer TOKEN'",
                [](Config& c) -> auto& { return c.security.token_file; }),
       MakeFlag(kGroup, "reload_interval", "TIME",
                "the files above are read again this often; what changed counts for new connections "
                "and new calls, what runs is left alone, and a bad file changes nothing",
                [](Config& c) -> auto& { return c.security.reload_interval; }),
       MakeFlag(kGroup, "insecure", "",
                "allows a --listen that other machines reach without TLS, or without tokens or "
                "client certificates",
                [](Config& c) -> auto& { return c.security.insecure; })});
}

void AddConnectionFlags(std::vector<Flag>* flags) {
  static constexpr char kGroup[] = "Limits of connections";
  flags->insert(
      flags->end(),
      {MakeFlag(kGroup, "max_message_bytes", "BYTES",
                "one message; a longer one is RESOURCE_EXHAUSTED",
                [](Config& c) -> auto& { return c.connections.max_message_bytes; }),
       MakeFlag(kGroup, "max_metadata_bytes", "N", "all headers of one call together",
                [](Config& c) -> auto& { return c.connections.max_metadata_bytes; }),
       MakeFlag(kGroup, "max_concurrent_streams", "N",
                "calls under way on one connection; a client lets further ones wait",
                [](Config& c) -> auto& { return c.connections.max_concurrent_streams; }),
       MakeFlag(kGroup, "grpc_memory_bytes", "BYTES",
                "memory of all connections and the messages in them; beyond it gRPC reads no "
                "more and then cuts connections",
                [](Config& c) -> auto& { return c.connections.memory_bytes; }),
       MakeFlag(kGroup, "handshake_timeout", "TIME",
                "a connection that has not spoken TLS and HTTP/2 within this is cut",
                [](Config& c) -> auto& { return c.connections.handshake_timeout; }),
       MakeFlag(kGroup, "keepalive_time", "TIME",
                "a client that is silent for this long is asked for a sign of life",
                [](Config& c) -> auto& { return c.connections.keepalive_time; }),
       MakeFlag(kGroup, "keepalive_timeout", "TIME",
                "and cut after this long without one, which ends its requests",
                [](Config& c) -> auto& { return c.connections.keepalive_timeout; }),
       MakeFlag(kGroup, "max_connection_idle", "TIME",
                "a connection without calls is closed after this",
                [](Config& c) -> auto& { return c.connections.max_connection_idle; }),
       MakeFlag(kGroup, "max_connection_age", "TIME",
                "a connection takes no new calls after this: clients open another, which spreads "
                "them over servers that came later",
                [](Config& c) -> auto& { return c.connections.max_connection_age; }),
       MakeFlag(kGroup, "max_connection_age_grace", "TIME",
                "and its running calls are cut after this",
                [](Config& c) -> auto& { return c.connections.max_connection_age_grace; })});
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
  static constexpr char kGroup[] = "Log (stderr; SIGUSR1 makes it say more, SIGUSR2 less)";
  flags->insert(flags->end(),
                {MakeFlag(kGroup, "log_level", "LEVEL", "debug, info, warning, error or off",
                          [](Config& c) -> auto& { return c.log.level; }),
                 MakeFlag(kGroup, "log_format", "FORMAT", "text, or json for one object a line",
                          [](Config& c) -> auto& { return c.log.format; }),
                 MakeFlag(kGroup, "log_prompts", "",
                          "logs the texts of prompts; without it no line ever holds any",
                          [](Config& c) -> auto& { return c.log.prompts; })});
}

std::vector<Flag> AllFlags() {
  std::vector<Flag> flags;
  AddModelFlags(&flags);
  AddNetworkFlags(&flags);
  AddSecurityFlags(&flags);
  AddConnectionFlags(&flags);
  AddLimitFlags(&flags);
  AddLogFlags(&flags);
  return flags;
}

// Null if there is no such flag.
const Flag* Find(const std::vector<Flag>& flags, absl::string_view name) {
  const auto flag = std::find_if(flags.begin(), flags.end(),
                                 [&](const Flag& candidate) { return name == candidate.name; });
  return flag == flags.end() ? nullptr : &*flag;
}

bool IsSwitch(const Flag& flag) { return *flag.placeholder == '\0'; }

absl::Status Apply(const std::vector<Flag>& flags, const std::string& name,
                   const std::string& value, const std::string& where, ServerConfig* config) {
  const Flag* const flag = Find(flags, name);
  if (flag == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, name, " is not a flag: see chorus-server --help"));
  }
  if (!flag->set(value, config)) {
    return absl::InvalidArgumentError(absl::StrCat(where, name, "=", value, " cannot be read as ",
                                                   IsSwitch(*flag) ? "true or false"
                                                                   : flag->placeholder,
                                                   ": ", flag->help));
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

// Splits the command line into pairs; --help, --version and --check go straight into `parsed`.
absl::StatusOr<Pairs> SplitArguments(const std::vector<Flag>& flags,
                                     const std::vector<std::string>& arguments,
                                     ParsedFlags* parsed) {
  Pairs pairs;
  for (size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view argument = arguments[i];
    if (argument == "--help" || argument == "-h") {
      parsed->help = true;
    } else if (argument == "--version") {
      parsed->version = true;
    } else if (argument == "--check") {
      parsed->check = true;
    } else if (!absl::ConsumePrefix(&argument, "--") || argument.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          arguments[i], " is not a flag: flags are --name=value, see chorus-server --help"));
    } else if (const size_t equals = argument.find('='); equals != absl::string_view::npos) {
      pairs.emplace_back(argument.substr(0, equals), argument.substr(equals + 1));
    } else if (const Flag* flag = Find(flags, argument); flag != nullptr && IsSwitch(*flag)) {
      pairs.emplace_back(argument, "true");
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
  CHORUS_ASSIGN_OR_RETURN(const Pairs pairs, SplitArguments(flags, arguments, &parsed));
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
      "Services: chorus.v1.Inference, grpc.health.v1.Health, server reflection. Other machines are\n"
      "let in by TLS and a token:\n"
      "  openssl rand -hex 32 > tokens; chmod 600 tokens\n"
      "  chorus-server --model=DIR --listen=0.0.0.0:50051 --tls_certificate=server.pem \\\n"
      "      --tls_key=server.key --token_file=tokens\n"
      "  chorus ask --server=HOST:50051 --tls --ca=ca.pem --token_file=tokens \"...\"\n\n"
      "SIGTERM stops\n"
      "admission, lets running streams finish and exits 0; a second one ends at once.\n"
      "Exit codes: 0 done, 1 failure while running, 2 bad flags or model.\n\n"
      "General:\n"
      "  --config=FILE    lines name=value with the flags below, # begins a comment line;\n"
      "                   a flag on the command line beats the file\n"
      "  --check          checks flags, files, model and ports, says what would be served, exits\n"
      "  --help           this text\n"
      "  --version        the version\n";
  const ServerConfig defaults;
  std::string group;
  for (const Flag& flag : AllFlags()) {
    if (group != flag.group) absl::StrAppend(&text, "\n", flag.group, ":\n");
    group = flag.group;
    const std::string value = flag.get(defaults);
    absl::StrAppend(&text, "  --", flag.name, IsSwitch(flag) ? "" : "=", flag.placeholder, "\n      ", flag.help,
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
