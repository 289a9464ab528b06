#include "client/load_options.h"

#include <limits>
#include <random>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "core/base/status_macros.h"

namespace chorus {
namespace {

constexpr int32_t kMaxSyntheticTokens = 1 << 24;  // a request; no server takes that many
constexpr absl::Duration kDefaultDuration = absl::Seconds(30);

constexpr const char* kIntro =
    "Asks a server many questions at a time and measures it: time to the first token, time "
    "between\n"
    "tokens, throughput, errors. Ctrl-C ends early and prints what was measured until then.";

constexpr const char* kEpilogue =
    R"(In a closed loop a slow server is asked less often; in an open loop requests come as they come, at
random moments with --rate on average (Poisson), however slow the server is. --seed, above, seeds
sampling too: request i gets --seed + i. Without it the load's own draws differ from run to run;
the report says the seed that was drawn.

What is measured, in seconds:
  ttft         from sending to the first token, of every request that got one
  inter_token  between two arrivals of tokens of one answer (per_prompt: of one prompt's). A message
               with n tokens counts as one gap and n - 1 gaps of 0: a reader that is behind gets
               several tokens at once
  end_to_end   from sending to the end, of the requests that ended well
  queue        until the server's first step, as the server says
Percentiles are nearest-rank and exact up to 10 million samples of a kind, of a random choice of
10 million from there on. Rates are over the time from the first measured request's sending to the
last one's end.

Examples:
  chorus load --data=tests/data/qa.jsonl --clients=16 --requests=200 --max_new_tokens=16
  chorus load --data=tests/data/qa.jsonl --unique --rate=4 --duration=1m --method=attention,vote
  chorus load --synthetic=6x40 --prefix_tokens=200 --clients=64 --duration=30s --warmup=5s \
      --max_new_tokens=64 --ignore_eos --json | jq .ttft_seconds.p99
  chorus load --synthetic=1x100 --clients=4 --duration=30s --ignore_eos --stall_probe=6000

--json prints one object on one line, always with all of these keys:
  mode, method, clients, rate, seed, seconds
  requests       sent = ok + cancelled (by this client) + errors, an object CODE: count; not_sent:
                 arrivals of an open loop beyond --max_in_flight
  error_messages the first message of each CODE
  tokens         prompt, cached (of prompt), generated
  requests_per_second (ended well), generated_tokens_per_second, prompt_tokens_per_second
  ttft_seconds, inter_token_seconds, end_to_end_seconds, queue_seconds: each count, mean, p50,
                 p90, p95, p99, max
  answers_right  answers whose first line holds one of --data's answers, whatever the case; null
                 if it has none
  stall_probe    null, or prompt_tokens, ttft_seconds, median_inter_token_before,
                 p99_inter_token_during and max_inter_token_during (gaps that overlap the time from
                 the probe's sending to its first token), ratio (p99 during / median before), error

Exit code: 0 the run is complete, whatever the server answered; 1 every request failed, or no
server; 2 wrong usage or data file.)";

FlagSetter IntoShape(std::optional<SyntheticShape>* target) {
  return [target](const std::string& value) -> absl::Status {
    const std::vector<std::string> parts = absl::StrSplit(value, 'x');
    SyntheticShape shape;
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &shape.num_prompts) ||
        !absl::SimpleAtoi(parts[1], &shape.prompt_tokens) || shape.num_prompts < 1 ||
        shape.prompt_tokens < 1) {
      return absl::InvalidArgumentError(
          "is not PROMPTSxTOKENS, such as 6x40 for 6 prompts of 40 tokens");
    }
    if (int64_t{shape.num_prompts} * shape.prompt_tokens > kMaxSyntheticTokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("is more than ", kMaxSyntheticTokens, " tokens a request"));
    }
    *target = shape;
    return absl::OkStatus();
  };
}

FlagSetter IntoWarmup(Warmup* target) {
  return [target](const std::string& value) -> absl::Status {
    *target = Warmup();
    if (absl::SimpleAtoi(value, &target->num_requests) && target->num_requests >= 0) {
      return absl::OkStatus();
    }
    if (absl::ParseDuration(value, &target->duration) && target->duration > absl::ZeroDuration()) {
      target->num_requests = 0;
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError("is neither a number of requests nor a time such as 5s");
  };
}

void AddQuestionFlags(FlagParser& parser, LoadOptions& options) {
  parser.AddSection("What is asked (one of --data and --synthetic):");
  parser.AddFlag("data", "FILE.jsonl",
                 "questions, one JSON object a line: question, paraphrases, and answers if right "
                 "answers are to be counted; asked in turn, again and again",
                 Into(&options.data_path));
  parser.AddSwitch("shuffle", "--data: in another order, drawn by --seed", &options.is_shuffled);
  parser.AddSwitch("unique",
                   "--data: a number before every wording, new in each request, so that no cache "
                   "holds it",
                   &options.is_unique);
  parser.AddFlag("synthetic", "PROMPTSxTOKENS",
                 "so many prompts of so many random token ids, new in each request: 6x40",
                 IntoShape(&options.synthetic));
  parser.AddFlag("prefix_tokens", "N", "--synthetic: a prefix, the same in all requests",
                 Into(&options.prefix_tokens));
  parser.AddFlag("suffix_tokens", "N", "--synthetic: a suffix, the same in all requests",
                 Into(&options.suffix_tokens));
  parser.AddFlag("repeat", "K", "--synthetic: K different requests in turn; default: all differ",
                 Into(&options.repeat));
  parser.AddFlag("synthetic_first_id", "ID",
                 "lowest id drawn; default 0; special tokens are left out anyway",
                 Into(&options.synthetic_first_id));
  parser.AddSwitch("shuffle_prompts", "each request's prompts in a random order",
                   &options.shuffles_prompts);
}

void AddArrivalFlags(FlagParser& parser, LoadOptions& options) {
  parser.AddSection("When:");
  parser.AddFlag("clients", "N",
                 "closed loop: N callers, each asks again when its last request has ended; default "
                 "8, 1 to 100000",
                 Into(&options.clients));
  parser.AddFlag("rate", "R", "open loop: R requests a second on average", Into(&options.rate));
  parser.AddFlag("max_in_flight", "N",
                 "--rate: arrivals beyond so many running requests are counted as not sent; "
                 "default 1000",
                 Into(&options.max_in_flight));
  parser.AddFlag("error_pause", "TIME",
                 "--clients: how long a caller waits after an error before it asks again; default "
                 "100ms",
                 Into(&options.error_pause));
  parser.AddFlag("channels", "N", "connections; default 1, at most 1000", Into(&options.channels));
  parser.AddFlag("requests", "N", "end after so many measured requests", Into(&options.requests));
  parser.AddFlag("duration", "TIME",
                 "send for so long, counted from the end of the warm-up; default 30s if --requests "
                 "is not given",
                 Into(&options.duration));
  parser.AddFlag("warmup", "N|TIME", "the first N requests, or TIME, are not measured; default 0",
                 IntoWarmup(&options.warmup));
}

void AddTroubleFlags(FlagParser& parser, LoadOptions& options) {
  parser.AddSection("Trouble:");
  parser.AddFlag("cancel", "P", "each request is cancelled with probability P",
                 Into(&options.cancel));
  parser.AddFlag("cancel_within", "TIME", "at a random moment until then; default 1s",
                 Into(&options.cancel_within));
  parser.AddFlag("slow_readers", "P",
                 "a share P of the callers (--rate: of the requests) reads slowly",
                 Into(&options.slow_readers));
  parser.AddFlag("slow_read", "TIME", "how long those wait between two reads; default 100ms",
                 Into(&options.slow_read));
  parser.AddFlag("stall_probe", "TOKENS",
                 "one extra request with a prompt of so many random tokens, to see whether it "
                 "holds up the others",
                 Into(&options.stall_probe));
  parser.AddFlag("stall_probe_after", "TIME", "when it is sent, after the warm-up; default 5s",
                 Into(&options.stall_probe_after));
}

template <typename Number>
absl::Status CheckRange(const char* flag, const std::optional<Number>& value, Number min,
                        Number max) {
  if (!value || (*value >= min && *value <= max)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, "=", *value, " is not in ", min, " to ", max));
}

absl::Status CheckRanges(const LoadOptions& options) {
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  const struct {
    const char* flag;
    std::optional<int32_t> value;
    int32_t min, max;
  } counts[] = {{"clients", options.clients, 1, 100000},
                {"max_in_flight", options.max_in_flight, 1, kMost},
                {"channels", options.channels, 1, 1000},
                {"requests", options.requests, 1, kMost},
                {"prefix_tokens", options.prefix_tokens, 0, kMaxSyntheticTokens},
                {"suffix_tokens", options.suffix_tokens, 0, kMaxSyntheticTokens},
                {"synthetic_first_id", options.synthetic_first_id, 0, kMost},
                {"repeat", options.repeat, 0, kMost},
                {"stall_probe", options.stall_probe, 1, kMaxSyntheticTokens}};
  for (const auto& count : counts) {
    CHORUS_RETURN_IF_ERROR(CheckRange(count.flag, count.value, count.min, count.max));
  }
  CHORUS_RETURN_IF_ERROR(CheckRange("rate", options.rate, 1e-6, 1e6));
  CHORUS_RETURN_IF_ERROR(CheckRange("cancel", options.cancel, 0.0, 1.0));
  return CheckRange("slow_readers", options.slow_readers, 0.0, 1.0);
}

// The first flag that was given although what it belongs to was not.
absl::Status CheckBelongs(const LoadOptions& options) {
  const bool is_closed = !options.is_open_loop();
  const bool has_data = options.data_path.has_value();
  const AskOptions& ask = options.ask;
  const auto is_text = [](const std::optional<std::string>& text) {
    return text && !text->empty();
  };
  const struct {
    const char* flag;
    bool is_misplaced;
    const char* why;
  } cases[] = {
      {"shuffle", options.is_shuffled && !has_data, "belongs to --data"},
      {"unique", options.is_unique && !has_data,
       "belongs to --data; synthetic prompts are new in each request unless --repeat is given"},
      {"prefix_tokens", options.prefix_tokens && has_data, "belongs to --synthetic; see --prefix"},
      {"suffix_tokens", options.suffix_tokens && has_data, "belongs to --synthetic; see --suffix"},
      {"repeat", options.repeat && has_data, "belongs to --synthetic; --data repeats by itself"},
      {"synthetic_first_id", options.synthetic_first_id && has_data, "belongs to --synthetic"},
      {"prefix", is_text(ask.prefix) && !has_data, "belongs to --data; see --prefix_tokens"},
      {"suffix", is_text(ask.suffix) && !has_data, "belongs to --data; see --suffix_tokens"},
      {"system", is_text(ask.system) && !has_data, "belongs to --data: tokens have no template"},
      {"template", ask.prompt_template && !has_data, "belongs to --data: tokens have no template"},
      {"max_in_flight", options.max_in_flight && is_closed, "belongs to --rate"},
      {"error_pause", options.error_pause && !is_closed, "belongs to --clients"},
      {"cancel_within", options.cancel_within && !options.cancel, "belongs to --cancel=P"},
      {"slow_read", options.slow_read && !options.slow_readers, "belongs to --slow_readers=P"},
      {"stall_probe_after", options.stall_probe_after && !options.stall_probe,
       "belongs to --stall_probe=TOKENS"}};
  for (const auto& misplaced : cases) {
    if (!misplaced.is_misplaced) continue;
    return absl::InvalidArgumentError(absl::StrCat("--", misplaced.flag, " ", misplaced.why));
  }
  return absl::OkStatus();
}

}  // namespace

FlagParser MakeLoadParser(LoadOptions& options) {
  FlagParser parser("chorus load", "--data=FILE.jsonl|--synthetic=PROMPTSxTOKENS [flags]", kIntro);
  AddQuestionFlags(parser, options);
  AddArrivalFlags(parser, options);
  AddTroubleFlags(parser, options);
  AddRequestFlags(parser, options.ask, RequestFlags::kGenerate);
  options.ask.common.AddTo(parser);
  parser.AddSwitch("quiet", "no progress on standard error", &options.is_quiet);
  parser.AddEpilogue(kEpilogue);
  return parser;
}

absl::Status FinishLoadOptions(LoadOptions& options) {
  if (options.data_path.has_value() == options.synthetic.has_value()) {
    return absl::InvalidArgumentError(
        options.synthetic ? "--data and --synthetic exclude each other"
                          : "nothing to ask; for example --data=tests/data/qa.jsonl or "
                            "--synthetic=6x40 ('chorus load --help' explains)");
  }
  if (options.clients && options.rate) {
    return absl::InvalidArgumentError(
        "--clients (closed loop) and --rate (open loop) exclude each other");
  }
  CHORUS_RETURN_IF_ERROR(CheckRanges(options));
  CHORUS_RETURN_IF_ERROR(CheckBelongs(options));
  ApplyPreset(options.ask);
  if (!options.requests && !options.duration) options.duration = kDefaultDuration;
  options.random_seed = options.ask.seed ? *options.ask.seed : std::random_device()();
  return absl::OkStatus();
}

}  // namespace chorus
