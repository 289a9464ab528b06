#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/engine/request.h"

namespace chorus {

// A row of logits as the golden files hold it: all of it (ids empty) or some ids of it.
struct GoldenRow {
  std::vector<int32_t> ids;
  std::vector<float> values;
};

struct GoldenAnswer {
  std::vector<int32_t> token_ids;
  std::vector<float> margins;   // top-1 minus top-2 of the row each token came from
  std::vector<float> logprobs;
  GoldenRow first_row;          // empty values: not recorded
};

struct GoldenCase {
  std::string name;
  Request request;  // greedy; eos handling as recorded
  // One for the fused methods; one a prompt for PER_PROMPT and VOTE.
  std::vector<GoldenAnswer> answers;
  std::vector<int32_t> fused_token_ids;  // empty for PER_PROMPT
};

struct GoldenFile {
  std::string model_directory;
  std::vector<GoldenCase> cases;
};

// Reads tests/golden/data/<name>.json, made by make_golden.py (schema in README.md there). Throws
// nlohmann's exceptions on a file that does not follow the schema: a test then fails.
GoldenFile LoadGoldenFile(const std::string& path);

}  // namespace chorus
