#include "client/flag_values.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

#include "core/base/status_macros.h"

namespace chorus {
namespace {

absl::Status ParseNumber(const std::string& value, float* number) {
  if (absl::SimpleAtof(value, number)) return absl::OkStatus();
  return absl::InvalidArgumentError("is not a number");
}

absl::Status ParseNumber(const std::string& value, double* number) {
  if (absl::SimpleAtod(value, number)) return absl::OkStatus();
  return absl::InvalidArgumentError("is not a number");
}

template <typename Integer>
absl::Status ParseNumber(const std::string& value, Integer* number) {
  if (absl::SimpleAtoi(value, number)) return absl::OkStatus();
  if constexpr (sizeof(Integer) == 8) {
    return absl::InvalidArgumentError("is not a whole number of 0 to 2^64 - 1");
  }
  return absl::InvalidArgumentError("is not a whole number of 32 bits");
}

template <typename Number>
FlagSetter IntoNumber(std::optional<Number>* target) {
  return [target](const std::string& value) { return ParseNumber(value, &target->emplace()); };
}

template <typename Number>
absl::StatusOr<std::vector<Number>> ParseList(const std::string& text) {
  std::vector<Number> numbers;
  const std::vector<std::string> pieces = absl::StrSplit(text, ',');
  for (const std::string& piece : pieces) {
    CHORUS_RETURN_IF_ERROR(ParseNumber(piece, &numbers.emplace_back()));
  }
  return numbers;
}

template <typename Number>
FlagSetter IntoNumbers(std::vector<Number>* target) {
  return [target](const std::string& value) -> absl::Status {
    absl::StatusOr<std::vector<Number>> numbers = ParseList<Number>(value);
    if (!numbers.ok()) {
      return absl::InvalidArgumentError("is not a list of numbers separated by commas");
    }
    *target = *std::move(numbers);
    return absl::OkStatus();
  };
}

}  // namespace

FlagSetter Into(std::string* target) {
  return [target](const std::string& value) {
    *target = value;
    return absl::OkStatus();
  };
}

FlagSetter Into(std::optional<std::string>* target) {
  return [target](const std::string& value) {
    *target = value;
    return absl::OkStatus();
  };
}

FlagSetter Into(std::optional<float>* target) { return IntoNumber(target); }
FlagSetter Into(std::optional<double>* target) { return IntoNumber(target); }
FlagSetter Into(std::optional<int32_t>* target) { return IntoNumber(target); }
FlagSetter Into(std::optional<uint64_t>* target) { return IntoNumber(target); }
FlagSetter IntoList(std::vector<float>* target) { return IntoNumbers(target); }
FlagSetter IntoList(std::vector<int32_t>* target) { return IntoNumbers(target); }

FlagSetter Into(absl::Duration* target) {
  return [target](const std::string& value) -> absl::Status {
    double seconds = 0;
    absl::Duration duration;
    if (absl::SimpleAtod(value, &seconds)) {
      duration = absl::Seconds(seconds);
    } else if (!absl::ParseDuration(value, &duration)) {
      return absl::InvalidArgumentError("is not a time such as 90s, 1m30s or 500ms");
    }
    if (duration <= absl::ZeroDuration()) return absl::InvalidArgumentError("is not above 0");
    *target = duration;
    return absl::OkStatus();
  };
}

FlagSetter Into(std::optional<absl::Duration>* target) {
  return [target](const std::string& value) { return Into(&target->emplace())(value); };
}

FlagSetter Append(std::vector<std::string>* target) {
  return [target](const std::string& value) {
    target->push_back(value);
    return absl::OkStatus();
  };
}

FlagSetter IntoUnescaped(std::optional<std::string>* target) {
  return [target](const std::string& value) -> absl::Status {
    CHORUS_ASSIGN_OR_RETURN(*target, Unescape(value));
    return absl::OkStatus();
  };
}

FlagSetter AppendUnescaped(std::vector<std::string>* target) {
  return [target](const std::string& value) -> absl::Status {
    CHORUS_ASSIGN_OR_RETURN(std::string text, Unescape(value));
    target->push_back(std::move(text));
    return absl::OkStatus();
  };
}

FlagSetter AppendLogitBias(std::vector<std::pair<int32_t, float>>* target) {
  return [target](const std::string& value) -> absl::Status {
    const std::vector<std::string> parts = absl::StrSplit(value, ':');
    std::pair<int32_t, float> bias;
    if (parts.size() != 2 || !ParseNumber(parts[0], &bias.first).ok() ||
        !ParseNumber(parts[1], &bias.second).ok()) {
      return absl::InvalidArgumentError("is not TOKEN_ID:NUMBER, such as 1234:-2.5");
    }
    target->push_back(bias);
    return absl::OkStatus();
  };
}

absl::StatusOr<std::string> Unescape(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      result.push_back(text[i]);
      continue;
    }
    const char next = i + 1 < text.size() ? text[++i] : '\0';
    switch (next) {
      case 'n':
        result.push_back('\n');
        break;
      case 't':
        result.push_back('\t');
        break;
      case '\\':
        result.push_back('\\');
        break;
      default:
        return absl::InvalidArgumentError(
            "holds a backslash that is none of \\n (newline), \\t (tab), \\\\ (backslash)");
    }
  }
  return result;
}

absl::StatusOr<std::vector<int32_t>> ParseTokenIds(const std::string& text) {
  return ParseList<int32_t>(text);
}

}  // namespace chorus
