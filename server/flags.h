#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "server/config.h"

namespace chorus {

struct ParsedFlags {
  ServerConfig config;
  bool help = false;
  bool version = false;
  bool check = false;
};

// Reads `--name=value`, `--name value`, for a switch also `--name`; `--config=FILE` first, then the
// command line, so that a flag beats the file. `arguments` is argv without the program's name.
// The configuration is not yet validated. INVALID_ARGUMENT in one line: which flag, which value,
// how to mend it.
absl::StatusOr<ParsedFlags> ParseFlags(const std::vector<std::string>& arguments);

// Text of --help: what the server is, an example, and every flag with its default, grouped.
std::string HelpText();

// The configuration as `name=value` pairs in --help's order, one line; printed once at start.
std::vector<std::pair<std::string, std::string>> DescribeConfig(const ServerConfig& config);

}  // namespace chorus
