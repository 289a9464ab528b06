#include "core/text/detokenizer.h"

#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/text/tokenizer.h"
#include "core/text/unicode_text.h"

namespace chorus {
namespace {

std::unique_ptr<const Tokenizer> Load(const std::string& name) {
  auto tokenizer = Tokenizer::Load("tests/text/data/" + name + ".json");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

class DetokenizerTest : public testing::TestWithParam<const char*> {};

TEST_P(DetokenizerTest, StreamingGivesTheTextOfDecodingForRandomIds) {
  const unsigned seed = 20261123;
  const auto tokenizer = Load(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  std::mt19937 random(seed);
  for (int i = 0; i < 3000; ++i) {
    std::vector<int32_t> ids(random() % 40);
    // Low ids are single bytes in every family: mixed in often, as they break characters.
    for (int32_t& id : ids) {
      id = static_cast<int32_t>(random() % (random() % 2 ? 300 : tokenizer->vocab_size() + 3)) - 1;
    }
    for (const bool skip_special_tokens : {true, false}) {
      Detokenizer detokenizer(tokenizer.get(), skip_special_tokens);
      std::string streamed;
      for (const int32_t id : ids) {
        const std::string text = detokenizer.Append(id);
        ASSERT_TRUE(IsValidUtf8(text)) << "seed " << seed << " round " << i;
        streamed += text;
      }
      streamed += detokenizer.Flush();
      ASSERT_EQ(streamed, tokenizer->Decode(ids, skip_special_tokens)) << "seed " << seed;
    }
  }
}

TEST_P(DetokenizerTest, FlushStartsAnew) {
  const auto tokenizer = Load(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  const std::vector<int32_t> ids =
      tokenizer->Encode(" the water \U0001F642", SpecialTokens::kPlainText);
  Detokenizer detokenizer(tokenizer.get(), /*skip_special_tokens=*/true);
  std::string first;
  std::string second;
  for (const int32_t id : ids) first += detokenizer.Append(id);
  first += detokenizer.Flush();
  for (const int32_t id : ids) second += detokenizer.Append(id);
  second += detokenizer.Flush();
  EXPECT_FALSE(first.empty());
  EXPECT_EQ(first, second);
}

INSTANTIATE_TEST_SUITE_P(Families, DetokenizerTest,
                         testing::Values("llama3_like", "llama2_like", "metaspace_like",
                                         "gpt2_like"));

TEST(DetokenizerHoldTest, ACharacterComesWithItsLastByteAndNotBefore) {
  const auto tokenizer = Load("llama3_like");
  ASSERT_NE(tokenizer, nullptr);
  const std::vector<int32_t> ids = tokenizer->Encode("\U0001FAE0", SpecialTokens::kPlainText);
  ASSERT_GT(ids.size(), 1u);
  Detokenizer detokenizer(tokenizer.get(), true);
  for (size_t i = 0; i + 1 < ids.size(); ++i) EXPECT_EQ(detokenizer.Append(ids[i]), "");
  EXPECT_EQ(detokenizer.Append(ids.back()), "\U0001FAE0");
  EXPECT_EQ(detokenizer.Append(ids.front()), "");
  EXPECT_EQ(detokenizer.Flush(), "\uFFFD");
}

TEST(DetokenizerHoldTest, TextOfOrdinaryTokensIsNotHeldBack) {
  const auto tokenizer = Load("llama2_like");
  ASSERT_NE(tokenizer, nullptr);
  Detokenizer detokenizer(tokenizer.get(), true);
  std::string streamed;
  for (const int32_t id : tokenizer->Encode("the water", SpecialTokens::kPlainText)) {
    const std::string text = detokenizer.Append(id);
    EXPECT_FALSE(text.empty());
    streamed += text;
  }
  EXPECT_EQ(streamed, "the water");
  EXPECT_EQ(detokenizer.Flush(), "");
}

}  // namespace
}  // namespace chorus
