#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "client/ask_options.h"
#include "client/flag_parser.h"

namespace chorus {

// --synthetic=PROMPTSxTOKENS.
struct SyntheticShape {
  int32_t num_prompts = 0;
  int32_t prompt_tokens = 0;
};

// --warmup=N or --warmup=TIME: what is sent in it is not measured.
struct Warmup {
  int64_t num_requests = 0;
  absl::Duration duration = absl::ZeroDuration();
};

// What `chorus load` was told. An empty optional was not given: the accessor beside it holds the
// default.
struct LoadOptions {
  // Fusion, sampling, stopping, connection. Its question and paraphrases stay empty.
  AskOptions ask;

  // What is asked: one of the two.
  std::optional<std::string> data_path;
  std::optional<SyntheticShape> synthetic;
  bool is_shuffled = false;
  bool is_unique = false;
  bool shuffles_prompts = false;
  std::optional<int32_t> synthetic_first_id, prefix_tokens, suffix_tokens, repeat;

  // When it is asked: clients is a closed loop, rate an open one.
  std::optional<int32_t> clients;
  std::optional<double> rate;  // requests a second
  std::optional<int32_t> max_in_flight;
  std::optional<absl::Duration> error_pause;
  std::optional<int32_t> channels;

  // How long.
  std::optional<int32_t> requests;
  std::optional<absl::Duration> duration;
  Warmup warmup;

  // Callers that behave badly.
  std::optional<double> cancel;  // probability
  std::optional<absl::Duration> cancel_within;
  std::optional<double> slow_readers;  // share
  std::optional<absl::Duration> slow_read;

  std::optional<int32_t> stall_probe;  // tokens
  std::optional<absl::Duration> stall_probe_after;

  bool is_quiet = false;
  uint64_t random_seed = 0;  // --seed, or drawn: set by FinishLoadOptions

  bool is_open_loop() const { return rate.has_value(); }
  int num_clients() const { return clients.value_or(8); }
  int most_in_flight() const { return max_in_flight.value_or(1000); }
  int num_channels() const { return channels.value_or(1); }
};

// The parser of `chorus load`; it writes into `options`, which must outlive it.
FlagParser MakeLoadParser(LoadOptions& options);

// Checks what no single flag can check, applies --preset, and fills the defaults that depend on
// other flags: the duration, and the seed if none was given. Call once, after parsing.
// INVALID_ARGUMENT with one line that names the flags.
absl::Status FinishLoadOptions(LoadOptions& options);

}  // namespace chorus
