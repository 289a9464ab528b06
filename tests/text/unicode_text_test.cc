#include "core/text/unicode_text.h"

#include <random>
#include <string>

#include <gtest/gtest.h>

namespace chorus {
namespace {

TEST(UnicodeTextTest, EveryScalarValueReadsBackAsWritten) {
  for (uint32_t code_point = 0; code_point < 0x110000; ++code_point) {
    if (code_point >= 0xD800 && code_point < 0xE000) continue;
    std::string text;
    AppendUtf8(code_point, &text);
    const Utf8Step step = ReadUtf8(text);
    ASSERT_TRUE(step.is_valid) << code_point;
    ASSERT_EQ(step.code_point, code_point);
    ASSERT_EQ(static_cast<size_t>(step.num_bytes), text.size());
  }
}

// Expected values: bytes.decode("utf-8", errors="replace") of CPython 3.11.
TEST(UnicodeTextTest, InvalidPartsAreCutAsPythonCutsThem) {
  const std::string r(kReplacementCharacter);
  EXPECT_EQ(ToValidUtf8("\x80"), r);
  EXPECT_EQ(ToValidUtf8("a\xFF"
                        "b"),
            "a" + r + "b");
  EXPECT_EQ(ToValidUtf8("\xE2\x82"), r);
  EXPECT_EQ(ToValidUtf8("\xE2\x82x"), r + "x");
  EXPECT_EQ(ToValidUtf8("\xF0\x9F\x99"), r);
  EXPECT_EQ(ToValidUtf8("\xC0\x80"), r + r);                  // overlong
  EXPECT_EQ(ToValidUtf8("\xED\xA0\x80"), r + r + r);          // surrogate
  EXPECT_EQ(ToValidUtf8("\xF4\x90\x80\x80"), r + r + r + r);  // above U+10FFFF
  EXPECT_EQ(ToValidUtf8("\xF0\x9F\xE2\x82\xAC"), r + "\xE2\x82\xAC");
  EXPECT_EQ(ToValidUtf8(std::string_view("a\0b", 3)), std::string("a\0b", 3));
}

TEST(UnicodeTextTest, WhatIsMadeValidIsValidAndStaysTheSame) {
  std::mt19937 random(7);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes(random() % 12, '\0');
    for (char& c : bytes) c = static_cast<char>(random() % 3 ? 0x80 + random() % 128 : random());
    const std::string valid = ToValidUtf8(bytes);
    ASSERT_TRUE(IsValidUtf8(valid));
    ASSERT_EQ(ToValidUtf8(valid), valid);
    ASSERT_EQ(IsValidUtf8(bytes), bytes == valid);
  }
}

TEST(UnicodeTextTest, OnlyTheBeginningOfACharacterCountsAsTruncated) {
  EXPECT_EQ(NumTruncatedBytes(""), 0u);
  EXPECT_EQ(NumTruncatedBytes("abc"), 0u);
  EXPECT_EQ(NumTruncatedBytes("a\xF0"), 1u);
  EXPECT_EQ(NumTruncatedBytes("a\xF0\x9F"), 2u);
  EXPECT_EQ(NumTruncatedBytes("a\xF0\x9F\x99"), 3u);
  EXPECT_EQ(NumTruncatedBytes("a\xF0\x9F\x99\x82"), 0u);
  EXPECT_EQ(NumTruncatedBytes("\x99\x82\x82\x82"), 0u);
  EXPECT_EQ(NumTruncatedBytes("\xED\xA0"), 0u);  // can only become a surrogate
  EXPECT_EQ(NumTruncatedBytes("\xC0"), 0u);
}

TEST(UnicodeTextTest, StandInsKeepLengthAndLeaveOlderCharactersAlone) {
  std::string buffer;
  const std::string old = "a\xC3\xA9\xE8\xAA\x9E";
  EXPECT_EQ(WithStandIns(old, &buffer).data(), old.data());
  const std::string newer = "x\xF0\xB1\x8D\x90y";  // U+31350, of Unicode 15
  EXPECT_EQ(WithStandIns(newer, &buffer), "x\xF0\xA0\x80\x80y");
  for (uint32_t code_point = 0x800; code_point < 0x110000; ++code_point) {
    std::string a;
    std::string b;
    AppendUtf8(code_point, &a);
    AppendUtf8(StandInFor(code_point), &b);
    ASSERT_EQ(a.size(), b.size()) << code_point;
  }
}

TEST(UnicodeTextTest, CharacterClassesAreThoseOfRust) {
  EXPECT_TRUE(IsNumeric('7'));
  EXPECT_TRUE(IsNumeric(0x0663));   // Arabic-Indic three
  EXPECT_TRUE(IsNumeric(0x00BD));   // one half
  EXPECT_TRUE(IsNumeric(0x10D40));  // Garay zero, Unicode 16
  EXPECT_FALSE(IsNumeric('a'));
  EXPECT_FALSE(IsNumeric(0x4E00));  // the ideograph for one is a letter
  EXPECT_TRUE(IsWhitespace(0x3000));
  EXPECT_FALSE(IsWhitespace(0x180E));
  EXPECT_FALSE(IsWhitespace(0x200B));
  EXPECT_TRUE(IsWordCharacter('_'));
  EXPECT_TRUE(IsWordCharacter(0x200D));
  EXPECT_TRUE(IsWordCharacter(0x0301));
  EXPECT_FALSE(IsWordCharacter('-'));
  EXPECT_EQ(ToLowerCase('A'), static_cast<uint32_t>('a'));
  EXPECT_EQ(ToLowerCase(0x3A3), 0x3C3u);
  EXPECT_EQ(ToLowerCase(0x10D50), 0x10D70u);
}

}  // namespace
}  // namespace chorus
