// Any bytes as a tokenizer.json: parsed or refused, never a crash; what parses also encodes and
// decodes.
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/base/check.h"
#include "core/text/tokenizer.h"
#include "core/text/unicode_text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = chorus::Tokenizer::Parse(json);
  if (!tokenizer.ok()) {
    CHECK(!tokenizer.status().message().empty());
    return 0;
  }
  for (const std::string_view text :
       {std::string_view("Hello  World's 123\n\xE2\x96\x81 caf\xC3\xA9 <s>\xF0\x9F\x99\x82\xFF"),
        std::string_view("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ab ba"), json.substr(0, 200)}) {
    for (const auto special :
         {chorus::SpecialTokens::kRecognize, chorus::SpecialTokens::kPlainText}) {
      const std::vector<int32_t> ids = (*tokenizer)->Encode(text, special);
      for (const int32_t id : ids) CHECK((*tokenizer)->IdToToken(id).ok());
      CHECK(chorus::IsValidUtf8((*tokenizer)->Decode(ids, /*skip_special_tokens=*/false)));
    }
  }
  return 0;
}
