#include "core/text/byte_level.h"

#include <array>

#include "core/text/unicode_text.h"

namespace chorus {
namespace {

constexpr uint32_t kNumCharacters = 0x144;  // 256 + the 68 bytes that are not printable

constexpr bool IsPrintable(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<uint16_t, 256> character_of_byte{};
  std::array<int16_t, kNumCharacters> byte_of_character{};
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int16_t& byte : alphabet.byte_of_character) byte = -1;
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const uint32_t character = IsPrintable(byte) ? byte : next++;
    alphabet.character_of_byte[byte] = static_cast<uint16_t>(character);
    alphabet.byte_of_character[character] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

void AppendByteLevel(std::string_view text, std::string* mapped) {
  for (const char c : text) {
    const uint32_t character = kAlphabet.character_of_byte[static_cast<unsigned char>(c)];
    if (character < 0x80) {
      mapped->push_back(static_cast<char>(character));
    } else {
      mapped->push_back(static_cast<char>(0xC0 | character >> 6));
      mapped->push_back(static_cast<char>(0x80 | (character & 0x3F)));
    }
  }
}

std::optional<uint8_t> ByteOfCharacter(uint32_t code_point) {
  if (code_point >= kNumCharacters || kAlphabet.byte_of_character[code_point] < 0) {
    return std::nullopt;
  }
  return static_cast<uint8_t>(kAlphabet.byte_of_character[code_point]);
}

}  // namespace chorus
