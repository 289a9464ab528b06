#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "chorus/v1/inference.pb.h"

#include "client/ask_options.h"
#include "client/flag_parser.h"

namespace chorus {

// What `chorus explain` was told. Empty lists: the server's defaults.
struct ExplainOptions {
  AskOptions ask;
  std::vector<int32_t> layers, heads, steps;
  std::optional<std::string> output;  // a file for the JSON
};

// The parser of `chorus explain`; it writes into `options`, which must outlive it.
FlagParser MakeExplainParser(ExplainOptions& options);

// After ApplyPreset.
v1::ExplainRequest MakeExplainRequest(const ExplainOptions& options);

}  // namespace chorus
