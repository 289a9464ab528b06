#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

#include "server/config.h"

namespace chorus {

// What a server with some configuration would find.
struct CheckReport {
  std::vector<std::string> facts;       // what it would serve, a line each
  std::vector<absl::Status> problems;  // why it would not, a line each
};

// Looks at everything that a start looks at, and reads no weights: tokenizer, config.json, headers
// of the weight files, memory, token file, certificates and their dates, and whether the ports can
// be had. All problems are found, not only the first. REQUIRES: Validate has accepted `config`.
CheckReport CheckServing(const ServerConfig& config);

}  // namespace chorus
