#include "core/text/byte_level.h"

#include <string>

#include <gtest/gtest.h>

#include "core/text/unicode_text.h"

namespace chorus {
namespace {

TEST(ByteLevelTest, EveryByteHasItsOwnCharacterAndComesBack) {
  for (int byte = 0; byte < 256; ++byte) {
    std::string mapped;
    AppendByteLevel(std::string(1, static_cast<char>(byte)), &mapped);
    const Utf8Step step = ReadUtf8(mapped);
    ASSERT_TRUE(step.is_valid);
    ASSERT_EQ(static_cast<size_t>(step.num_bytes), mapped.size());
    ASSERT_EQ(ByteOfCharacter(step.code_point), static_cast<uint8_t>(byte));
  }
}

TEST(ByteLevelTest, WellKnownCharactersAreWhereGpt2PutThem) {
  std::string mapped;
  AppendByteLevel(" \n\x7F\xAD!", &mapped);
  EXPECT_EQ(mapped, "\u0120\u010A\u0121\u0143!");
}

TEST(ByteLevelTest, CharactersOutsideTheAlphabetHaveNoByte) {
  for (const uint32_t outside : {0x20u, 0xADu, 0x144u, 0x2581u, 0x10FFFFu}) {
    EXPECT_EQ(ByteOfCharacter(outside), std::nullopt);
  }
}

}  // namespace
}  // namespace chorus
