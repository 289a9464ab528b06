#include "client/safe_text.h"

namespace chorus {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace

std::string WithoutControls(absl::string_view text) {
  std::string safe;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0;
    const bool is_upper_control = byte == 0xC2 && next >= 0x80 && next <= 0x9F;
    const bool is_control = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F;
    if (is_upper_control) ++i;
    if (is_control || is_upper_control) {
      safe += kReplacement;
    } else {
      safe.push_back(static_cast<char>(byte));
    }
  }
  return safe;
}

}  // namespace chorus
