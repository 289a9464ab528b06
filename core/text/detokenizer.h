#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/text/decoder.h"

namespace chorus {

class Tokenizer;

// Turns the ids of one sequence into text as they come. Whatever Append and Flush return,
// concatenated, is Tokenizer::Decode of all the ids: text is returned once no later id can change
// it, so never half a character. With a byte-fallback tokenizer (Llama 2) a run of byte tokens is
// complete only at the next other token. Owned and used by one thread.
class Detokenizer {
 public:
  // `tokenizer` must outlive this. `skip_special_tokens`: special tokens add nothing to the text.
  Detokenizer(const Tokenizer* tokenizer, bool skip_special_tokens);

  // The text that `id` completes, possibly none. An id without a token adds nothing.
  std::string Append(int32_t id);
  // The rest; bytes that never became a character are U+FFFD. The next Append starts a new
  // sequence.
  std::string Flush();

 private:
  // Sends `tokens` through the stages from `stage` on and returns what comes out at the end.
  std::string Run(std::vector<std::string> tokens, size_t stage);

  const Tokenizer* const tokenizer_;
  const bool skip_special_tokens_;
  std::vector<std::unique_ptr<DecodeStage>> stages_;
};

}  // namespace chorus
