#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace chorus {

// Bad input of a caller: an INVALID_ARGUMENT Status that names the field of the public contract
// (a path such as "sampling.temperature" or "prompt.text.paraphrases[3]"), the value and the limit.
// Example: FieldError("sampling.top_p", "1.5", "must be in (0, 1]").
absl::Status FieldError(std::string_view field, std::string_view value, std::string_view limit);

// The field that a Status made by FieldError names; nullopt for any other Status.
std::optional<std::string> FieldOf(const absl::Status& status);

}  // namespace chorus
