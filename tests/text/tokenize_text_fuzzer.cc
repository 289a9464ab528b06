// Any bytes as a text for the small tokenizers: every id has a token, decoding gives UTF-8,
// streaming gives the same text, and so do the bytes read as ids.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/check.h"
#include "core/text/detokenizer.h"
#include "core/text/tokenizer.h"
#include "core/text/unicode_text.h"

namespace {

using Tokenizers = std::vector<std::unique_ptr<const chorus::Tokenizer>>;

// Loaded once: the fuzzer and the corpus run start in the repository root.
const Tokenizers& SmallTokenizers() {
  static const Tokenizers* const tokenizers = [] {
    auto* loaded = new Tokenizers;
    for (const char* name : {"llama3_like", "llama2_like", "metaspace_like", "gpt2_like"}) {
      auto tokenizer = chorus::Tokenizer::Load(std::string("tests/text/data/") + name + ".json");
      if (!tokenizer.ok()) {
        std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
        std::abort();
      }
      loaded->push_back(*std::move(tokenizer));
    }
    return loaded;
  }();
  return *tokenizers;
}

void CheckDecoding(const chorus::Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                   bool skip_special_tokens) {
  const std::string whole = tokenizer.Decode(ids, skip_special_tokens);
  CHECK(chorus::IsValidUtf8(whole));
  chorus::Detokenizer detokenizer(&tokenizer, skip_special_tokens);
  std::string streamed;
  for (const int32_t id : ids) {
    const std::string text = detokenizer.Append(id);
    CHECK(chorus::IsValidUtf8(text));
    streamed += text;
  }
  streamed += detokenizer.Flush();
  CHECK(streamed == whole);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const auto& tokenizer : SmallTokenizers()) {
    for (const auto special :
         {chorus::SpecialTokens::kRecognize, chorus::SpecialTokens::kPlainText}) {
      const std::vector<int32_t> ids = tokenizer->Encode(text, special);
      CHECK(ids == tokenizer->Encode(chorus::ToValidUtf8(text), special));
      for (const int32_t id : ids) CHECK(tokenizer->IdToToken(id).ok());
      CheckDecoding(*tokenizer, ids, /*skip_special_tokens=*/true);
    }
    std::vector<int32_t> ids;  // ids below and just above the vocabulary, and negative ones
    for (size_t i = 0; i + 1 < size; i += 2) {
      ids.push_back((data[i] << 8 | data[i + 1]) % (tokenizer->vocab_size() + 8) - 4);
    }
    CheckDecoding(*tokenizer, ids, /*skip_special_tokens=*/size % 2 == 0);
  }
  return 0;
}
