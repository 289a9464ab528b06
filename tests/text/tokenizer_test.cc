#include "core/text/tokenizer.h"

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

std::unique_ptr<const Tokenizer> Load(const std::string& name) {
  auto tokenizer = Tokenizer::Load("tests/text/data/" + name + ".json");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

std::string File(const std::string& members) {
  return R"({"model": {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]})" + members + "}";
}

TEST(TokenizerTest, SpecialSpellingsAreTokensOnlyWhereRecognized) {
  const auto tokenizer = Load("llama3_like");
  ASSERT_NE(tokenizer, nullptr);
  const int32_t eot = tokenizer->TokenToId("<|eot_id|>").value();
  EXPECT_THAT(tokenizer->Encode("<|eot_id|>", SpecialTokens::kRecognize), ElementsAre(eot));
  const std::vector<int32_t> plain = tokenizer->Encode("<|eot_id|>", SpecialTokens::kPlainText);
  EXPECT_GT(plain.size(), 1u);
  for (const int32_t id : plain) EXPECT_FALSE(tokenizer->IsSpecial(id));
  EXPECT_EQ(tokenizer->Decode(plain, true), "<|eot_id|>");
  EXPECT_EQ(tokenizer->Decode({eot}, true), "");
  EXPECT_EQ(tokenizer->Decode({eot}, false), "<|eot_id|>");
}

TEST(TokenizerTest, NoBosOrEosIsAddedButTheFilesWishIsKnown) {
  const auto llama3 = Load("llama3_like");
  const auto llama2 = Load("llama2_like");
  const auto gpt2 = Load("gpt2_like");
  EXPECT_THAT(llama3->Encode("", SpecialTokens::kRecognize), IsEmpty());
  EXPECT_EQ(llama3->leading_token_id(), llama3->TokenToId("<|begin_of_text|>"));
  EXPECT_EQ(llama2->leading_token_id(), 1);
  EXPECT_EQ(gpt2->leading_token_id(), std::nullopt);
}

TEST(TokenizerTest, TextsComeBackFromByteLevelAndByteFallbackIds) {
  const std::string text =
      "It's 1234 caf\u00E9s,\n\n \u65E5\u672C\u8A9E \U0001F469\u200D\U0001F467!\t";
  for (const char* name : {"llama3_like", "llama2_like"}) {
    const auto tokenizer = Load(name);
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text, SpecialTokens::kPlainText), true), text);
  }
}

TEST(TokenizerTest, InvalidUtf8CountsAsReplacementCharacters) {
  const auto tokenizer = Load("llama3_like");
  EXPECT_EQ(tokenizer->Encode("a\xFF\xE2\x82z", SpecialTokens::kPlainText),
            tokenizer->Encode("a\uFFFD\uFFFDz", SpecialTokens::kPlainText));
}

TEST(TokenizerTest, VocabularyLookUpsGoBothWays) {
  const auto tokenizer = Load("metaspace_like");
  EXPECT_EQ(tokenizer->vocab_size(), 705);
  EXPECT_EQ(tokenizer->IdToToken(tokenizer->TokenToId("Oslo").value()).value(), "Oslo");
  EXPECT_TRUE(tokenizer->IsSpecial(0));
  EXPECT_FALSE(tokenizer->IsSpecial(-1));
  EXPECT_FALSE(tokenizer->IsSpecial(100000));
  EXPECT_EQ(tokenizer->TokenToId("no such token"), std::nullopt);
  EXPECT_TRUE(absl::IsOutOfRange(tokenizer->IdToToken(-1).status()));
  EXPECT_TRUE(absl::IsOutOfRange(tokenizer->IdToToken(705).status()));
  EXPECT_EQ(tokenizer->Decode({-5, 705, 1 << 30}, false), "");
}

void EncodeOneLetter(const Tokenizer& tokenizer, const std::string& name, size_t num_ids) {
  const std::string text(1 << 20, 'a');
  const auto start = std::chrono::steady_clock::now();
  const std::vector<int32_t> ids = tokenizer.Encode(text, SpecialTokens::kPlainText);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("%s: 1 MiB of one letter, %zu ids, %.3f s\n", name.c_str(), ids.size(),
              seconds.count());
  EXPECT_EQ(ids.size(), num_ids);
  EXPECT_THAT(tokenizer.Decode(ids, true), testing::EndsWith(text));
}

TEST(TokenizerTest, AMegabyteOfOneLetterIsEncoded) {
  // Runs of 1, 2, 4, .. 64 letters, so that every merge happens: a quadratic algorithm would take
  // hours.
  nlohmann::json json = {{"model", {{"vocab", {{"a", 0}}}, {"merges", nlohmann::json::array()}}},
                         {"decoder", {{"type", "Fuse"}}}};
  for (int i = 1; i <= 6; ++i) {
    const std::string half(size_t{1} << (i - 1), 'a');
    json["model"]["vocab"][half + half] = i;
    json["model"]["merges"].push_back({half, half});
  }
  const auto doubling = Tokenizer::Parse(json.dump());
  ASSERT_TRUE(doubling.ok()) << doubling.status();
  EncodeOneLetter(**doubling, "doubling", (1 << 20) / 64);
  EncodeOneLetter(*Load("llama3_like"), "llama3_like", 1 << 20);
  EncodeOneLetter(*Load("llama2_like"), "llama2_like", 1 << 20);
}

TEST(TokenizerTest, ThreadsMayShareOne) {
  const auto tokenizer = Load("llama3_like");
  const std::string text = "The capital of Norway is Oslo, 1234 \u00E9t\u00E9.\n";
  const std::vector<int32_t> expected = tokenizer->Encode(text, SpecialTokens::kPlainText);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) {
        const std::vector<int32_t> ids = tokenizer->Encode(text, SpecialTokens::kPlainText);
        wrong[t] += ids != expected || tokenizer->Decode(ids, true) != text;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ElementsAre(0, 0, 0, 0));
}

TEST(TokenizerTest, AMinimalFileIsEnough) {
  const auto tokenizer = Tokenizer::Parse(File(""));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT((*tokenizer)->Encode("abxa", SpecialTokens::kRecognize), ElementsAre(2, 0));
  EXPECT_EQ((*tokenizer)->Decode({2, 0}, false), "ab a");
}

TEST(TokenizerTest, MalformedFilesAreRefusedWithFileAndPath) {
  EXPECT_TRUE(absl::IsNotFound(Tokenizer::Load("tests/text/data/none.json").status()));
  const auto not_json = Tokenizer::Load("tests/text/CMakeLists.txt").status();
  EXPECT_THAT(std::string(not_json.message()), StartsWith("tests/text/CMakeLists.txt: "));
  for (const auto& [json, message] : std::vector<std::pair<std::string, std::string>>{
           {"[]", "must be an object"},
           {"{}", "model: must be an object"},
           {File(R"(, "version": "2.0")"), "version: must be \"1.0\""},
           {File(R"(, "pre_tokenizer": {"type": "Sequence", "pretokenizers":
                [{"type": "Digits"}, {"type": "Foo"}]})"),
            "pre_tokenizer.pretokenizers[1]: unknown type 'Foo'"},
           {File(R"(, "normalizer": {"type": "Foo"})"), "normalizer: unknown type 'Foo'"},
           {File(R"(, "decoder": {"type": "Foo"})"), "decoder: unknown type 'Foo'"},
           {File(R"(, "post_processor": {"type": "Foo"})"), "post_processor: unknown type 'Foo'"},
           {File(R"(, "post_processor": {"type": "TemplateProcessing", "single":
                [{"SpecialToken": {"id": "x"}}], "special_tokens": {"x": {"ids": [77]}}})"),
            "post_processor.special_tokens.x.ids: no token has the id 77"},
           {File(R"(, "added_tokens": 3)"), "added_tokens: must be a list"}}) {
    const auto status = Tokenizer::Parse(json).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << json;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST(TokenizerTest, EveryPrefixOfAFileIsRefusedWithoutACrash) {
  const std::string json = File(R"(, "decoder": {"type": "ByteLevel"})");
  for (size_t length = 0; length < json.size(); ++length) {
    EXPECT_FALSE(Tokenizer::Parse(json.substr(0, length)).ok());
  }
}

}  // namespace
}  // namespace chorus
