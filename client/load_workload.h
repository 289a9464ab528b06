#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "chorus/v1/inference.pb.h"

#include "client/chorus_client.h"
#include "client/load_data.h"
#include "client/load_options.h"

namespace chorus {

// What requests are made of.
struct WorkloadParts {
  std::vector<DataItem> items;            // of --data, else empty
  std::vector<int32_t> plain_token_ids;   // what --synthetic and --stall_probe draw from
  std::vector<int32_t> separator_tokens;  // --separator, for --synthetic
};

// Asks the server for what `options` need of it beside `items`.
absl::StatusOr<WorkloadParts> PrepareWorkload(const LoadOptions& options,
                                              std::vector<DataItem> items, ChorusClient& client);

// The requests of a load. Request `index` follows from options, parts and index alone, so a run can
// be repeated by its seed. Immutable; any thread.
class Workload {
 public:
  // `options` outlive the workload.
  Workload(const LoadOptions& options, WorkloadParts parts);

  v1::GenerateRequest MakeRequest(uint64_t index) const;

  // The request of --stall_probe: one prompt of random tokens, one new token.
  v1::GenerateRequest MakeStallProbe() const;

  bool has_answers() const { return has_answers_; }
  // What a right answer to request `index` may hold; empty if the data does not say.
  const std::vector<std::string>& answers(uint64_t index) const;

 private:
  // What random numbers are for: each purpose has its own.
  enum class Draw : uint32_t { kOrder, kPrompts, kShared, kPromptOrder, kStallProbe };

  std::mt19937 Generator(Draw draw, uint64_t index) const;
  const DataItem& item(uint64_t index) const;
  void FillText(uint64_t index, v1::TextPrompt& prompt) const;
  void FillTokens(uint64_t index, v1::TokenPrompt& prompt) const;
  void FillRandomTokens(int32_t count, std::mt19937& generator, v1::TokenSegment& segment) const;

  const LoadOptions& options_;
  const WorkloadParts parts_;
  std::vector<v1::GenerateRequest> bases_;  // one a method; all but the prompt
  std::vector<size_t> order_;               // of the items
  bool has_answers_ = false;
};

}  // namespace chorus
