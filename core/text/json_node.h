#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace chorus {

// A value of a JSON document together with its path ("pre_tokenizer.pretokenizers[1]"), so that
// every complaint says where. A view: the document must outlive it. Every reader answers a missing
// or mistyped value with InvalidArgument; nothing throws.
class JsonNode {
 public:
  // `value` may be null: the node of something that is not there.
  JsonNode(const nlohmann::json* value, std::string path) : value_(value), path_(std::move(path)) {}

  // Parses `text`; `name` is what messages call the document, a file name as a rule.
  static absl::StatusOr<nlohmann::json> ParseDocument(std::string_view text, std::string_view name);

  bool IsNull() const { return value_ == nullptr || value_->is_null(); }
  bool IsArray() const { return value_ != nullptr && value_->is_array(); }
  bool IsObject() const { return value_ != nullptr && value_->is_object(); }
  bool IsString() const { return value_ != nullptr && value_->is_string(); }
  const std::string& path() const { return path_; }
  // REQUIRES: not IsNull().
  const nlohmann::json& value() const { return *value_; }

  // The member `key`; a null node if this is no object or has no such member.
  JsonNode Member(std::string_view key) const;
  // REQUIRES: IsArray() and i < Size().
  JsonNode Element(size_t i) const;
  size_t Size() const { return IsArray() || IsObject() ? value_->size() : 0; }

  absl::StatusOr<std::string> String() const;
  absl::StatusOr<bool> Bool() const;
  // An integer in [0, max].
  absl::StatusOr<int64_t> Integer(int64_t max) const;

  // Members, with a default for one that is missing or null.
  absl::StatusOr<std::string> StringMember(std::string_view key, std::string_view fallback) const;
  absl::StatusOr<bool> BoolMember(std::string_view key, bool fallback) const;
  // The member that must be there.
  absl::StatusOr<std::string> StringMember(std::string_view key) const;

  // InvalidArgument: "<path>: <message>".
  absl::Status Error(std::string_view message) const;

 private:
  const nlohmann::json* value_;
  std::string path_;
};

// Reads a whole file. NotFound if there is none; InvalidArgument above `max_bytes`.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, int64_t max_bytes);

}  // namespace chorus
