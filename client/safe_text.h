#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace chorus {

// `text` with U+FFFD for control characters other than newline and tab: those below U+0020, and
// U+007F to U+009F, of which UTF-8 starts the upper ones with C2. A model's text must not drive the
// reader's terminal.
std::string WithoutControls(absl::string_view text);

}  // namespace chorus
