#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace chorus {

// GPT-2's printable alphabet for the 256 bytes: printable Latin-1 characters stand for themselves,
// the others for U+0100 upwards in the order of the bytes. A space becomes U+0120.

// Appends the characters that stand for the bytes of `text`.
void AppendByteLevel(std::string_view text, std::string* mapped);

// The byte that `code_point` stands for; nullopt for a character outside the alphabet.
std::optional<uint8_t> ByteOfCharacter(uint32_t code_point);

}  // namespace chorus
