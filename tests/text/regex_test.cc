#include "core/text/regex.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/text/regex_syntax.h"

namespace chorus {
namespace {

using ::testing::HasSubstr;

// The matches, in [brackets], and what lies between them.
std::string Marked(std::string_view pattern, std::string_view text) {
  const absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << regex.status();
  if (!regex.ok()) return "";
  std::vector<TextSpan> spans;
  regex->FindSpans(text, &spans);
  std::string marked;
  for (const TextSpan& span : spans) {
    const std::string part(text.substr(span.begin, span.end - span.begin));
    marked += span.is_match ? "[" + part + "]" : part;
  }
  return marked;
}

TEST(RegexTest, SpansCoverTheText) {
  EXPECT_EQ(Marked("b+", "abbcb"), "a[bb]c[b]");
  EXPECT_EQ(Marked("x", ""), "");
  EXPECT_EQ(Marked("x", "abc"), "abc");
}

// Values from Oniguruma through PyPI tokenizers: Replace(Regex("b*"), "-") makes "-a-a-".
TEST(RegexTest, EmptyMatchesCountUnlessTheyTouchTheMatchBefore) {
  EXPECT_EQ(Marked("b*", "abba"), "[]a[bb]a[]");
  EXPECT_EQ(Marked("", "\u00E9x"), "[]\u00E9[]x[]");
}

TEST(RegexTest, UnicodeClassesLookaheadAndCaseWork) {
  EXPECT_EQ(Marked(R"(\p{L}+)", "ab \u00E9\u4E2D1"), "[ab] [\u00E9\u4E2D]1");
  EXPECT_EQ(Marked(R"(\s+(?!\S)|\s+)", "a   b  "), "a[  ][ ]b[  ]");
  EXPECT_EQ(Marked(R"((?i:'s|'t))", "it'S 'T"), "it['S] ['T]");
  EXPECT_EQ(Marked(R"(\p{L}+)", "\U00031350\U0001E030-"), "[\U00031350\U0001E030]-");  // Unicode 15
}

TEST(RegexTest, OnigurumasMeaningOfClassesIsKept) {
  EXPECT_EQ(Marked(R"(\s)", "\u180E \u3000"), "\u180E[ ][\u3000]");
  EXPECT_EQ(Marked(R"(\h+)", "xbeefx 1"), "x[beef]x [1]");
  EXPECT_EQ(Marked(R"(\w+)", "a\u0301_\u00B2-\u2160"), "[a\u0301_\u00B2]-[\u2160]");
  EXPECT_EQ(Marked(R"(\d+)", "1\u0663\u00B2"), "[1\u0663]\u00B2");
  EXPECT_EQ(Marked(R"(\p{Han}+)", "\u4E2D\u3001\u6587"), "[\u4E2D]\u3001[\u6587]");
  EXPECT_EQ(Marked(R"((?m:a.b))", "a\nb"), "[a\nb]");
  EXPECT_EQ(Marked(R"(^b$)", "a\nb\nc"), "a\n[b]\nc");
  EXPECT_EQ(Marked(R"([\w\h-]+)", "a-b c"), "[a-b] [c]");
  EXPECT_EQ(Marked(R"(\u00e9|\x41)", "e\u00E9A"), "e[\u00E9][A]");
  EXPECT_EQ(Marked(R"(\bab\b)", "ab abc"), "[ab] abc");
  EXPECT_EQ(Marked(R"([[:digit:]]+)", "a12"), "a[12]");
  EXPECT_EQ(Marked(R"([]x]+)", "a]x"), "a[]x]");
  EXPECT_EQ(Marked(R"(\p{^L}+)", "a12b"), "a[12]b");
}

TEST(RegexTest, WhatHasNoCounterpartIsRefusedWithAReason) {
  for (const auto& [pattern, reason] :
       std::vector<std::pair<std::string, std::string>>{{"[a&&b]", "an intersection"},
                                                        {"[a[bc]]", "a class inside a class"},
                                                        {"a{1,2}+", "possessive interval"},
                                                        {R"([\W])", "in a class"},
                                                        {R"([\H])", "in a class"},
                                                        {R"(\xFF)", "raw byte"},
                                                        {"(*UTF)a", "a verb"},
                                                        {"(?u)a", "options"},
                                                        {"a\\", "backslash"},
                                                        {R"(\pL)", "without {name}"},
                                                        {R"(\u12)", "four digits"}}) {
    const auto translated = TranslateOniguruma(pattern);
    ASSERT_FALSE(translated.ok()) << pattern;
    EXPECT_TRUE(absl::IsInvalidArgument(translated.status()));
    EXPECT_THAT(std::string(translated.status().message()), HasSubstr(reason)) << pattern;
  }
}

TEST(RegexTest, MalformedPatternsAreRefused) {
  const std::string nested = std::string(10000, '(') + std::string(10000, ')');
  for (const std::string& pattern :
       {std::string("("), std::string("[a"), std::string("*"), std::string(R"(\p{Klingon})"),
        std::string("\xFF"), std::string(1 << 17, 'a'), nested, std::string(R"(a\Cb)"),
        std::string("((((a{9999}){9999}){9999}){9999})")}) {
    const auto regex = Regex::Compile(pattern);
    EXPECT_TRUE(absl::IsInvalidArgument(regex.status())) << pattern.substr(0, 20);
  }
}

TEST(RegexTest, ACatastrophicPatternGivesUpInsteadOfRunningForHours) {
  const std::string text = std::string(60, 'a') + "!";
  EXPECT_EQ(Marked("(a+)+$", text), text);
  EXPECT_EQ(Marked("(?:a|aa)+$", text), text);
}

TEST(RegexTest, LongRunsNeedNoStack) {
  const std::string spaces(1 << 20, ' ');
  EXPECT_EQ(Marked(R"(\s+(?!\S)|\s+)", spaces + "x"), "[" + spaces.substr(1) + "][ ]x");
  // A group that is repeated needs one stack frame a round; the interpreter takes over.
  EXPECT_EQ(Marked("(?:a|b)+", std::string(200000, 'a')), "[" + std::string(200000, 'a') + "]");
}

}  // namespace
}  // namespace chorus
