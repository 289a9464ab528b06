#include "server/bearer_tokens.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr char kFirst[] = "first-token-0123456789";
constexpr char kSecond[] = "second/token+0123456789==";

TEST(BearerTokensTest, AcceptsExactlyWhatStandsInTheFile) {
  const auto tokens = BearerTokens::Parse(
      std::string("# who may call\n\n  ") + kFirst + " \r\n\t# another\n" + kSecond);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->size(), 2u);
  EXPECT_TRUE(tokens->Accepts(std::string("Bearer ") + kFirst));
  EXPECT_TRUE(tokens->Accepts(std::string("bEARER ") + kSecond));
  const std::string first(kFirst);
  for (const std::string& header :
       {std::string(), first, "Basic " + first, "Bearer" + first, "Bearer  " + first,
        "Bearer " + first + " ", "Bearer " + first.substr(1), "Bearer " + first + "0",
        std::string("Bearer "), std::string("Bearer # who may call"),
        "Bearer " + first + std::string("\0x", 2)}) {
    EXPECT_FALSE(tokens->Accepts(header)) << header;
  }
}

TEST(BearerTokensTest, RefusesFilesThatLetNobodyOrAnybodyIn) {
  const struct {
    std::string text;
    std::string message;
  } kCases[] = {{"", "no token"},
                {"\n  \n# only this\n", "no token"},
                {"ok-0123456789-ok-ok\nshort-secret\n", "line 2: a token must have 16..4096"},
                {std::string(4097, 'x'), "this one has 4097"},
                {"two words 0123456789", "line 1: a token may hold"},
                {"quoted\"token\"0123456789", "line 1"},
                {std::string("nul\0-0123456789-0123", 20), "line 1"},
                {"umlaut-\xC3\xA4-0123456789", "line 1"}};
  for (const auto& entry : kCases) {
    const auto tokens = BearerTokens::Parse(entry.text);
    ASSERT_FALSE(tokens.ok()) << entry.message;
    const std::string message(tokens.status().message());
    EXPECT_THAT(message, HasSubstr(entry.message));
    EXPECT_THAT(message, Not(HasSubstr("secret")));
  }
  std::string many;
  for (size_t i = 0; i <= BearerTokens::kMaxTokens; ++i) {
    many += "token-0123456789-" + std::to_string(i) + "\n";
  }
  EXPECT_THAT(std::string(BearerTokens::Parse(many).status().message()), HasSubstr("more than"));
}

TEST(BearerTokensTest, TwoOfTheSameFileAreEqual) {
  EXPECT_EQ(*BearerTokens::Parse(kFirst), *BearerTokens::Parse(std::string("#\n") + kFirst));
  EXPECT_FALSE(*BearerTokens::Parse(kFirst) == *BearerTokens::Parse(kSecond));
}

}  // namespace
}  // namespace chorus
