#include "core/text/added_tokens.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using ::testing::HasSubstr;

constexpr char kModel[] = R"({"vocab": {"a": 0, "<s>": 1}, "merges": []})";

absl::StatusOr<AddedTokens> Parse(const std::string& json,
                                  const std::string& normalizer_json = "null") {
  const auto document = JsonNode::ParseDocument(json, "x");
  const auto model_document = JsonNode::ParseDocument(kModel, "x");
  const auto normalizer_document = JsonNode::ParseDocument(normalizer_json, "x");
  return AddedTokens::Parse(JsonNode(&*document, "added_tokens"),
                            *BpeModel::Parse(JsonNode(&*model_document, "model")),
                            *Normalizer::Parse(JsonNode(&*normalizer_document, "normalizer")));
}

// Text as it is, tokens as <id:text>.
std::string Cut(const AddedTokens& tokens, std::string_view text, bool normalized = false,
                bool skip_special = false) {
  std::string cut;
  for (const TokenSpan& span : tokens.Split(text, normalized, skip_special)) {
    const std::string part(text.substr(span.begin, span.end - span.begin));
    cut += span.id.has_value() ? "{" + std::to_string(*span.id) + ":" + part + "}" : part;
  }
  return cut;
}

TEST(AddedTokensTest, TheLeftmostThenLongestMatchWins) {
  const auto tokens = Parse(R"([{"id": 2, "content": "ab", "normalized": false},
                                {"id": 3, "content": "abc", "normalized": false},
                                {"id": 4, "content": "bcd", "normalized": false}])");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(Cut(*tokens, "xabcdx"), "x{3:abc}dx");
  EXPECT_EQ(Cut(*tokens, "abdbcd"), "{2:ab}d{4:bcd}");
  EXPECT_EQ(Cut(*tokens, ""), "");
}

TEST(AddedTokensTest, SpecialOnesAreTextWhereAskedAndStillHideWhatIsInside) {
  const auto tokens = Parse(R"([{"id": 1, "content": "<s>", "special": true},
                                {"id": 2, "content": "s", "normalized": false}])");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(Cut(*tokens, "a<s>s"), "a{1:<s>}{2:s}");
  EXPECT_EQ(Cut(*tokens, "a<s>s", false, /*skip_special=*/true), "a<s>{2:s}");
}

TEST(AddedTokensTest, StrippingAndSingleWordsFollowTheFlags) {
  const auto tokens = Parse(R"([
      {"id": 2, "content": "L", "normalized": false, "lstrip": true},
      {"id": 3, "content": "R", "normalized": false, "rstrip": true},
      {"id": 4, "content": "word", "normalized": false, "single_word": true}])");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(Cut(*tokens, "a \u3000L b R  c"), "a{2: \u3000L} b {3:R  }c");
  EXPECT_EQ(Cut(*tokens, "R  L"), "{3:R  }{2:L}");
  EXPECT_EQ(Cut(*tokens, "word words sword \u00E9word word"),
            "{4:word} words sword \u00E9word {4:word}");
}

TEST(AddedTokensTest, NormalizedOnesAreLookedForInTheirNormalizedSpelling) {
  const auto tokens =
      Parse(R"([{"id": 2, "content": "Day", "normalized": true}])", R"({"type": "Lowercase"})");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(Cut(*tokens, "Day day", /*normalized=*/true), "Day {2:day}");
  EXPECT_EQ(Cut(*tokens, "day", /*normalized=*/false), "day");
}

TEST(AddedTokensTest, IdsMustBeThoseTheReferenceGives) {
  for (const auto& [json, message] : std::vector<std::pair<std::string, std::string>>{
           {R"([{"id": 5, "content": "x"}])", "added_tokens[0]: 'x' has id 5, must be 2, the next"},
           {R"([{"id": 0, "content": "<s>"}])", "has id 0, must be 1, its id in the vocabulary"},
           {R"([{"id": 2, "content": "x"}, {"id": 3, "content": "x"}])", "given twice"},
           {R"([{"id": 2, "content": ""}])", "added_tokens[0].content: must not be empty"},
           {R"([{"id": 99999999999, "content": "x"}])", "added_tokens[0].id: is 99999999999"},
           {R"([{"id": 2}])", "added_tokens[0].content: must be a string"},
           {R"([{"id": 2, "content": "x", "special": "yes"}])", "special: must be true or false"},
           {R"([3])", "added_tokens[0]: must be an object"},
           {R"({})", "added_tokens: must be a list"}}) {
    const auto status = Parse(json).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << json;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST(AddedTokensTest, TokensAreFoundByIdAndContent) {
  const auto tokens = Parse(R"([{"id": 1, "content": "<s>", "special": true}])");
  EXPECT_EQ(tokens->Find(1)->content, "<s>");
  EXPECT_EQ(tokens->Find("<s>")->id, 1);
  EXPECT_EQ(tokens->Find(0), nullptr);
  EXPECT_EQ(tokens->Find("a"), nullptr);
}

}  // namespace
}  // namespace chorus
