#include "client/speller.h"

#include "absl/strings/str_cat.h"

namespace chorus {

std::string Speller::operator()(int32_t token_id) {
  const auto [text, is_new] = texts_.try_emplace(token_id);
  if (is_new) {
    text->second = client_.Detokenize({token_id}).value_or(absl::StrCat("#", token_id));
  }
  return text->second;
}

}  // namespace chorus
