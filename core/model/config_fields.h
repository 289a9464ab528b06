#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace chorus {

// One JSON object of a config.json and how its fields are named in errors. Internal to the reading
// of ModelConfig. `object` must outlive it.
class ConfigFields {
 public:
  ConfigFields(const nlohmann::json& object, std::string file, std::string path = "")
      : object_(object), file_(std::move(file)), path_(std::move(path)) {}

  absl::Status Error(const std::string& field, const std::string& what) const {
    return absl::InvalidArgumentError(absl::StrCat(file_, ": ", path_, field, ": ", what));
  }

  // Null if the field is absent or null.
  const nlohmann::json* Find(const std::string& field) const {
    const auto found = object_.find(field);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  // Whether the field is there, be it null.
  bool Has(const std::string& field) const { return object_.contains(field); }

  // An integer in [minimum, maximum].
  absl::StatusOr<int32_t> Integer(const std::string& field, int32_t minimum, int32_t maximum,
                                  int32_t fallback) const {
    const nlohmann::json* value = Find(field);
    if (value == nullptr) return fallback;
    const bool in_range = value->is_number_unsigned() &&
                          value->get<uint64_t>() >= static_cast<uint64_t>(minimum) &&
                          value->get<uint64_t>() <= static_cast<uint64_t>(maximum);
    if (in_range) return value->get<int32_t>();
    return Error(field, absl::StrCat(Text(*value), " is not valid: must be an integer in [",
                                     minimum, ", ", maximum, "]"));
  }

  // An integer in [1, maximum]; `fallback` 0: the field is required.
  absl::StatusOr<int32_t> Count(const std::string& field, int32_t maximum, int32_t fallback) const {
    if (fallback == 0 && Find(field) == nullptr) return Error(field, "is missing");
    return Integer(field, 1, maximum, fallback);
  }

  // A finite number in [minimum, maximum].
  absl::StatusOr<double> Number(const std::string& field, double minimum, double maximum,
                                double fallback) const {
    const nlohmann::json* value = Find(field);
    if (value == nullptr) return fallback;
    const double number =
        value->is_number() ? value->get<double>() : std::numeric_limits<double>::quiet_NaN();
    if (number >= minimum && number <= maximum) return number;
    return Error(field, absl::StrCat(Text(*value), " is not valid: must be a number in [", minimum,
                                     ", ", maximum, "]"));
  }

  absl::StatusOr<bool> Bool(const std::string& field, bool fallback) const {
    const nlohmann::json* value = Find(field);
    if (value == nullptr) return fallback;
    if (value->is_boolean()) return value->get<bool>();
    return Error(field, absl::StrCat(Text(*value), " is not valid: must be true or false"));
  }

  absl::StatusOr<std::string> String(const std::string& field, const std::string& fallback) const {
    const nlohmann::json* value = Find(field);
    if (value == nullptr) return fallback;
    if (value->is_string()) return value->get<std::string>();
    return Error(field, absl::StrCat(Text(*value), " is not valid: must be a string"));
  }

  // The value as it would stand in JSON, shortened.
  static std::string Text(const nlohmann::json& value) {
    std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    if (text.size() > 60) text = text.substr(0, 60) + "...";
    return text;
  }

  const std::string& file() const { return file_; }

 private:
  const nlohmann::json& object_;
  std::string file_;
  std::string path_;
};

}  // namespace chorus
