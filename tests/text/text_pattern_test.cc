#include "core/text/text_pattern.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

absl::StatusOr<TextPattern> Parse(const std::string& json) {
  const auto document = JsonNode::ParseDocument(json, "x");
  return TextPattern::Parse(JsonNode(&*document, "pattern"));
}

TEST(TextPatternTest, LiteralsAndExpressionsReplaceEveryMatch) {
  EXPECT_EQ(Parse(R"({"String": "aa"})")->ReplaceAll("aaaab", "x"), "xxb");
  EXPECT_EQ(Parse(R"({"String": "."})")->ReplaceAll("a.b", "-"), "a-b");
  EXPECT_EQ(Parse(R"({"Regex": "a+"})")->ReplaceAll("aaba", "x"), "xbx");
  EXPECT_EQ(Parse(R"({"String": ""})")->ReplaceAll("ab", "-"), "-a-b-");
  EXPECT_EQ(Parse(R"({"String": ""})")->ReplaceAll("", "-"), "");
}

TEST(TextPatternTest, AnythingElseIsRefusedWithItsPath) {
  EXPECT_THAT(std::string(Parse("{}").status().message()), testing::StartsWith("pattern: must be"));
  EXPECT_THAT(std::string(Parse("null").status().message()), testing::StartsWith("pattern: must"));
  EXPECT_THAT(std::string(Parse(R"({"String": 1})").status().message()),
              testing::StartsWith("pattern.String: must be a string"));
  EXPECT_THAT(std::string(Parse(R"({"Regex": "("})").status().message()),
              testing::StartsWith("pattern: the regular expression does not compile"));
}

}  // namespace
}  // namespace chorus
