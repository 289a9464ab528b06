#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include <nlohmann/json.hpp>

#include "chorus/v1/inference.pb.h"

namespace chorus {

// Gathers the events of one Generate call into the object that `chorus ask --json` prints; its
// keys are listed in the help of `chorus ask`. One thread.
class AnswerJson {
 public:
  explicit AnswerJson(v1::FusionMethod method);

  void Add(const v1::GenerateResponse& event);

  // Gives every token its text. `spell`: that of a token id.
  void SpellTokens(const std::function<std::string(int32_t)>& spell);

  const nlohmann::ordered_json& object() const { return object_; }

 private:
  nlohmann::ordered_json object_;
};

// Parts of it that other commands print too.
nlohmann::ordered_json PromptInfoJson(const v1::PromptInfo& info);
nlohmann::ordered_json TimingJson(const v1::Timing& timing);
// text, token_ids, finish_reason, stop, usage, timing.
nlohmann::ordered_json FinishJson(const v1::FinishInfo& finish);

// `value` on one line. Broken UTF-8 becomes U+FFFD: a single bad byte must not lose an answer.
std::string JsonLine(const nlohmann::ordered_json& value);

}  // namespace chorus
