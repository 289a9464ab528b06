#include "core/text/pre_tokenizer.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> Split(const std::string& json, std::string_view text,
                               bool is_first = true) {
  const auto document = JsonNode::ParseDocument(json, "x");
  const auto pre_tokenizer = PreTokenizer::Parse(JsonNode(&*document, "pre_tokenizer"));
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  std::vector<std::string> words;
  if (!pre_tokenizer.ok()) return words;
  TextArena arena;
  for (const TextPiece& piece : pre_tokenizer->Split({text, is_first}, &arena)) {
    words.emplace_back(piece.text);
  }
  return words;
}

std::string SplitOn(const std::string& behavior, bool invert = false) {
  return R"({"type": "Split", "pattern": {"String": "-"}, "behavior": ")" + behavior +
         R"(", "invert": )" + (invert ? "true}" : "false}");
}

// The table of the reference's own documentation.
TEST(PreTokenizerTest, TheFiveBehavioursOfSplit) {
  const std::string text = "The-final--countdown";
  EXPECT_THAT(Split(SplitOn("Removed"), text), ElementsAre("The", "final", "countdown"));
  EXPECT_THAT(Split(SplitOn("Isolated"), text),
              ElementsAre("The", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(Split(SplitOn("MergedWithPrevious"), text),
              ElementsAre("The-", "final-", "-", "countdown"));
  EXPECT_THAT(Split(SplitOn("MergedWithNext"), text),
              ElementsAre("The", "-final", "-", "-countdown"));
  EXPECT_THAT(Split(SplitOn("Contiguous"), text),
              ElementsAre("The", "-", "final", "--", "countdown"));
  EXPECT_THAT(Split(SplitOn("Removed", /*invert=*/true), text), ElementsAre("-", "-", "-"));
}

TEST(PreTokenizerTest, SmolLmSplitsDigitsAndThenGpt2sWords) {
  const std::string json = R"({"type": "Sequence", "pretokenizers": [
      {"type": "Digits", "individual_digits": true},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}]})";
  EXPECT_THAT(Split(json, "it's 12\u00BD"),
              ElementsAre("it", "'s", "\u0120", "1", "2", "\u00C2\u00BD"));
}

TEST(PreTokenizerTest, ByteLevelAddsASpaceOnlyWhereThereIsNone) {
  const std::string json = R"({"type": "ByteLevel", "add_prefix_space": true})";
  EXPECT_THAT(Split(json, "a b"), ElementsAre("\u0120a", "\u0120b"));
  EXPECT_THAT(Split(json, " a"), ElementsAre("\u0120a"));
  EXPECT_THAT(Split(json, ""), IsEmpty());
}

TEST(PreTokenizerTest, DigitsStayTogetherUnlessIndividual) {
  EXPECT_THAT(Split(R"({"type": "Digits"})", "a12b3"), ElementsAre("a", "12", "b", "3"));
  EXPECT_THAT(Split(R"({"type": "Digits", "individual_digits": true})", "a12"),
              ElementsAre("a", "1", "2"));
}

TEST(PreTokenizerTest, MetaspacePrependsAsItsSchemeSays) {
  const auto metaspace = [](const std::string& scheme) {
    return R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": ")" + scheme + R"("})";
  };
  EXPECT_THAT(Split(metaspace("always"), "a  b"), ElementsAre("_a", "_", "_b"));
  EXPECT_THAT(Split(metaspace("always"), " a"), ElementsAre("_a"));
  EXPECT_THAT(Split(metaspace("never"), "a b"), ElementsAre("a", "_b"));
  EXPECT_THAT(Split(metaspace("first"), "a", /*is_first=*/true), ElementsAre("_a"));
  EXPECT_THAT(Split(metaspace("first"), "a", /*is_first=*/false), ElementsAre("a"));
  EXPECT_THAT(Split(R"({"type": "Metaspace", "replacement": "_", "split": false})", "a b"),
              ElementsAre("_a_b"));
}

TEST(PreTokenizerTest, NullSplitsNothing) { EXPECT_THAT(Split("null", "a b"), ElementsAre("a b")); }

TEST(PreTokenizerTest, UnknownAndMalformedComponentsAreRefusedWithTheirPath) {
  for (const auto& [json, message] : std::vector<std::pair<std::string, std::string>>{
           {R"({"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "Foo"}]})",
            "pre_tokenizer.pretokenizers[1]: unknown type 'Foo'"},
           {SplitOn("Chopped"), "pre_tokenizer.behavior: unknown behavior 'Chopped'"},
           {R"({"type": "Metaspace", "replacement": "ab"})",
            "pre_tokenizer.replacement: must be one character"},
           {R"({"type": "Metaspace", "replacement": "_", "add_prefix_space": false})",
            "pre_tokenizer.prepend_scheme: must be \"never\" where add_prefix_space is false"},
           {R"({"type": "ByteLevel", "use_regex": 1})",
            "pre_tokenizer.use_regex: must be true or false"}}) {
    const auto document = JsonNode::ParseDocument(json, "x");
    const auto status = PreTokenizer::Parse(JsonNode(&*document, "pre_tokenizer")).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status));
    EXPECT_EQ(std::string(status.message()), message);
  }
}

}  // namespace
}  // namespace chorus
