#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "chorus/v1/inference.pb.h"

#include "core/engine/engine.h"
#include "server/parse_request.h"

namespace chorus {

// What one round of load asks for, the same by every way of asking.
struct Workload {
  int32_t num_requests = 256;
  int32_t num_streams = 64;  // requests under way at a time
  int32_t num_prompts = 3;
  int32_t prompt_tokens = 8;  // of each prompt
  int32_t max_new_tokens = 128;
  int32_t vocab_size = 0;
  uint64_t seed = 0;  // no two rounds of different seeds share a prompt
  v1::FusionMethod method = v1::FUSION_METHOD_ATTENTION;
};

// Tokens of one message, and when they came.
struct Arrival {
  absl::Time time;
  int64_t num_tokens = 0;
};

// What arrived. Every answer was compared: the streamed ids and texts together are those of its
// last event.
struct LoadResult {
  int64_t num_tokens = 0;    // streamed token ids
  int64_t num_messages = 0;  // events that brought them
  int64_t text_bytes = 0;
  std::vector<std::vector<Arrival>> answers;  // of each, in the order they came
  double wall_seconds = 0.0;
  double cpu_seconds = 0.0;  // of the whole process
};

// Tokens a second while every answer was being written: from the last first token to the first last
// one. 0 if there is no such time, as when requests wait for others to end.
double DecodeTokensPerSecond(const LoadResult& result);

// The i-th request of a round: random token ids, exactly max_new_tokens tokens to answer.
v1::GenerateRequest MakeRequest(const Workload& workload, int32_t index);

// Ways of asking. Each returns when the last answer has come; a failed or wrong answer ends
// the process, as a figure that hides one means nothing.
//
// In process, straight into the engine.
LoadResult RunEngineLoad(const Workload& workload, const RequestParser& parser, Engine& engine);
// num_streams Generate calls at a time, over `num_channels` connections to `target`.
LoadResult RunGenerateLoad(const Workload& workload, const std::string& target,
                           int32_t num_channels);
// All requests over one GenerateMany call a connection, as fast as the server reads them: it is the
// server that bounds how many are under way.
LoadResult RunManyLoad(const Workload& workload, const std::string& target, int32_t num_channels);

}  // namespace chorus
