#include "client/load_workload.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"

#include "client/load_vocabulary.h"
#include "core/base/status_macros.h"

namespace chorus {
namespace {

// For --unique: short, for it is read as part of every prompt, and in front, where a cache of
// beginnings would look.
std::string UniqueTag(uint64_t seed, uint64_t index) {
  return absl::StrCat("[", seed % 10000, ".", index, "] ");
}

}  // namespace

absl::StatusOr<WorkloadParts> PrepareWorkload(const LoadOptions& options,
                                              std::vector<DataItem> items, ChorusClient& client) {
  WorkloadParts parts;
  parts.items = std::move(items);
  if (options.synthetic || options.stall_probe) {
    CHORUS_ASSIGN_OR_RETURN(parts.plain_token_ids,
                            FindPlainTokenIds(client, options.synthetic_first_id.value_or(0)));
  }
  const std::string separator = options.ask.separator.value_or("");
  if (options.synthetic && !separator.empty()) {
    CHORUS_ASSIGN_OR_RETURN(const v1::TokenizeResponse tokens,
                            client.Tokenize(separator, /*recognize_special=*/true));
    parts.separator_tokens.assign(tokens.token_ids().begin(), tokens.token_ids().end());
  }
  return parts;
}

Workload::Workload(const LoadOptions& options, WorkloadParts parts)
    : options_(options), parts_(std::move(parts)), order_(parts_.items.size()) {
  for (const v1::FusionMethod method : options.ask.methods) {
    bases_.push_back(MakeGenerateRequest(options.ask, method));
  }
  std::iota(order_.begin(), order_.end(), 0);
  if (options.is_shuffled) {
    std::mt19937 generator = Generator(Draw::kOrder, 0);
    std::shuffle(order_.begin(), order_.end(), generator);
  }
  has_answers_ = std::any_of(parts_.items.begin(), parts_.items.end(),
                             [](const DataItem& item) { return !item.answers.empty(); });
}

v1::GenerateRequest Workload::MakeRequest(uint64_t index) const {
  v1::GenerateRequest request = bases_[index % bases_.size()];
  if (options_.synthetic) {
    FillTokens(index, *request.mutable_prompt()->mutable_tokens());
  } else {
    FillText(index, *request.mutable_prompt()->mutable_text());
  }
  if (options_.ask.seed) request.mutable_sampling()->set_seed(*options_.ask.seed + index);
  if (options_.ask.request_id) {
    request.set_request_id(absl::StrCat(*options_.ask.request_id, "-", index));
  }
  return request;
}

v1::GenerateRequest Workload::MakeStallProbe() const {
  v1::GenerateRequest request;
  request.mutable_fusion()->set_method(bases_.front().fusion().method());
  request.mutable_stopping()->set_max_new_tokens(1);
  // The first token must come whatever it is: an EOS would be no token.
  request.mutable_stopping()->set_ignore_eos(true);
  request.set_priority(bases_.front().priority());
  std::mt19937 generator = Generator(Draw::kStallProbe, 0);
  FillRandomTokens(*options_.stall_probe, generator,
                   *request.mutable_prompt()->mutable_tokens()->add_segments());
  return request;
}

const std::vector<std::string>& Workload::answers(uint64_t index) const {
  static const std::vector<std::string> kNone;
  return parts_.items.empty() ? kNone : item(index).answers;
}

std::mt19937 Workload::Generator(Draw draw, uint64_t index) const {
  const uint64_t seed = options_.random_seed;
  std::seed_seq sequence = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
                            static_cast<uint32_t>(draw), static_cast<uint32_t>(index),
                            static_cast<uint32_t>(index >> 32)};
  return std::mt19937(sequence);
}

// Every method asks every question, where there are several: item 0 by each, then item 1.
const DataItem& Workload::item(uint64_t index) const {
  return parts_.items[order_[index / bases_.size() % order_.size()]];
}

void Workload::FillText(uint64_t index, v1::TextPrompt& prompt) const {
  const DataItem& asked = item(index);
  std::vector<std::string> wordings = {asked.question};
  wordings.insert(wordings.end(), asked.paraphrases.begin(), asked.paraphrases.end());
  if (options_.shuffles_prompts) {
    std::mt19937 generator = Generator(Draw::kPromptOrder, index);
    std::shuffle(wordings.begin(), wordings.end(), generator);
  }
  if (options_.is_unique) {
    for (std::string& wording : wordings) {
      wording.insert(0, UniqueTag(options_.random_seed, index));
    }
  }
  prompt.set_question(wordings.front());
  prompt.mutable_paraphrases()->Assign(wordings.begin() + 1, wordings.end());
}

void Workload::FillTokens(uint64_t index, v1::TokenPrompt& prompt) const {
  const int32_t repeat = options_.repeat.value_or(0);
  std::mt19937 prompts =
      Generator(Draw::kPrompts, repeat > 0 ? index / bases_.size() % repeat : index);
  for (int i = 0; i < options_.synthetic->num_prompts; ++i) {
    FillRandomTokens(options_.synthetic->prompt_tokens, prompts, *prompt.add_segments());
  }
  if (options_.shuffles_prompts) {
    std::mt19937 generator = Generator(Draw::kPromptOrder, index);
    std::shuffle(prompt.mutable_segments()->pointer_begin(),
                 prompt.mutable_segments()->pointer_end(), generator);
  }
  std::mt19937 shared = Generator(Draw::kShared, 0);
  if (options_.prefix_tokens) {
    FillRandomTokens(*options_.prefix_tokens, shared, *prompt.mutable_prefix());
  }
  if (options_.suffix_tokens) {
    FillRandomTokens(*options_.suffix_tokens, shared, *prompt.mutable_suffix());
  }
  prompt.mutable_separator()->mutable_token_ids()->Assign(parts_.separator_tokens.begin(),
                                                          parts_.separator_tokens.end());
}

void Workload::FillRandomTokens(int32_t count, std::mt19937& generator,
                                v1::TokenSegment& segment) const {
  std::uniform_int_distribution<size_t> place(0, parts_.plain_token_ids.size() - 1);
  segment.mutable_token_ids()->Reserve(count);
  for (int32_t i = 0; i < count; ++i) {
    segment.add_token_ids(parts_.plain_token_ids[place(generator)]);
  }
}

}  // namespace chorus
