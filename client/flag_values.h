#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"

#include "client/enum_names.h"

namespace chorus {

// Stores the text behind a flag's "=". An error says what a right value looks like, for instance
// "is not a whole number"; the parser puts the flag and the value before it.
using FlagSetter = std::function<absl::Status(const std::string& value)>;

// Setters that parse the value and store it in `target`, which must outlive the parsing.
FlagSetter Into(std::string* target);
FlagSetter Into(std::optional<std::string>* target);
FlagSetter Into(std::optional<float>* target);
FlagSetter Into(std::optional<double>* target);
FlagSetter Into(std::optional<int32_t>* target);
FlagSetter Into(std::optional<uint64_t>* target);
FlagSetter Into(absl::Duration* target);  // "90s", "1m30s", "500ms", or a plain number of seconds
FlagSetter Into(std::optional<absl::Duration>* target);
FlagSetter IntoList(std::vector<float>* target);    // "0.5,1,1"
FlagSetter IntoList(std::vector<int32_t>* target);  // "5,17,2"
FlagSetter Append(std::vector<std::string>* target);
FlagSetter IntoUnescaped(std::optional<std::string>* target);
FlagSetter AppendUnescaped(std::vector<std::string>* target);
FlagSetter AppendLogitBias(std::vector<std::pair<int32_t, float>>* target);  // "TOKEN_ID:NUMBER"

// A text with \n, \t and \\ replaced by newline, tab and backslash. INVALID_ARGUMENT for any other
// backslash: a silently kept one would change the prompt.
absl::StatusOr<std::string> Unescape(const std::string& text);

// Several whole numbers, separated by commas.
absl::StatusOr<std::vector<int32_t>> ParseTokenIds(const std::string& text);

template <typename Enum>
absl::StatusOr<Enum> ParseEnum(const std::string& value) {
  std::vector<std::string> names;
  for (const auto& [name, choice] : EnumChoices<Enum>()) {
    if (name == value) return choice;
    names.push_back(name);
  }
  return absl::InvalidArgumentError(absl::StrCat("is not one of ", absl::StrJoin(names, ", ")));
}

template <typename Enum>
FlagSetter IntoEnum(std::optional<Enum>* target) {
  return [target](const std::string& value) {
    const absl::StatusOr<Enum> parsed = ParseEnum<Enum>(value);
    if (parsed.ok()) *target = *parsed;
    return parsed.status();
  };
}

// "attention|logit_mean|...", for help texts.
template <typename Enum>
std::string EnumSyntax() {
  return absl::StrJoin(EnumChoices<Enum>(), "|",
                       [](std::string* out, const auto& choice) { out->append(choice.first); });
}

}  // namespace chorus
