#include "core/text/detokenizer.h"

#include <utility>

#include "core/text/tokenizer.h"

namespace chorus {

Detokenizer::Detokenizer(const Tokenizer* tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer),
      skip_special_tokens_(skip_special_tokens),
      stages_(tokenizer->decoder().Start()) {}

std::string Detokenizer::Append(int32_t id) {
  if (skip_special_tokens_ && tokenizer_->IsSpecial(id)) return std::string();
  const std::string* token = tokenizer_->FindToken(id);
  if (token == nullptr) return std::string();
  return Run({*token}, 0);
}

std::string Detokenizer::Flush() {
  std::string text;
  for (size_t i = 0; i < stages_.size(); ++i) {
    std::vector<std::string> held;
    stages_[i]->Flush(&held);
    text += Run(std::move(held), i + 1);
  }
  stages_ = tokenizer_->decoder().Start();
  return text;
}

std::string Detokenizer::Run(std::vector<std::string> tokens, size_t stage) {
  for (; stage < stages_.size(); ++stage) {
    std::vector<std::string> output;
    for (const std::string& token : tokens) stages_[stage]->Push(token, &output);
    tokens = std::move(output);
  }
  std::string text;
  for (const std::string& token : tokens) text += token;
  return text;
}

}  // namespace chorus
