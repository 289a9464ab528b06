#include "core/text/json_node.h"

#include <filesystem>
#include <fstream>
#include <system_error>

#include "core/base/status_macros.h"
#include "core/text/absl_text.h"

namespace chorus {

absl::StatusOr<nlohmann::json> JsonNode::ParseDocument(std::string_view text,
                                                       std::string_view name) {
  nlohmann::json document =
      nlohmann::json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) {
    return absl::InvalidArgumentError(Concat(name, ": not valid JSON"));
  }
  return document;
}

JsonNode JsonNode::Member(std::string_view key) const {
  // Behind a file's name ("config.json: ") a member needs no dot.
  const bool needs_dot = !path_.empty() && path_.back() != ' ';
  std::string path = Concat(path_, needs_dot ? "." : "", key);
  if (!IsObject()) return JsonNode(nullptr, std::move(path));
  const auto found = value_->find(std::string(key));
  return JsonNode(found == value_->end() ? nullptr : &*found, std::move(path));
}

JsonNode JsonNode::Element(size_t i) const {
  return JsonNode(&(*value_)[i], Concat(path_, "[", i, "]"));
}

absl::StatusOr<std::string> JsonNode::String() const {
  if (!IsString()) return Error("must be a string");
  return value_->get_ref<const std::string&>();
}

absl::StatusOr<bool> JsonNode::Bool() const {
  if (value_ == nullptr || !value_->is_boolean()) return Error("must be true or false");
  return value_->get<bool>();
}

absl::StatusOr<int64_t> JsonNode::Integer(int64_t max) const {
  if (value_ == nullptr || !value_->is_number_integer()) return Error("must be an integer");
  // Unsigned numbers above the signed range would wrap: nlohmann keeps the two kinds apart.
  const bool is_huge =
      value_->is_number_unsigned() && value_->get<uint64_t>() > static_cast<uint64_t>(max);
  if (is_huge || value_->get<int64_t>() < 0) {
    return Error(Concat("is ", value_->dump(), ", must be in [0, ", max, "]"));
  }
  return value_->get<int64_t>();
}

absl::StatusOr<std::string> JsonNode::StringMember(std::string_view key,
                                                   std::string_view fallback) const {
  const JsonNode member = Member(key);
  if (member.IsNull()) return std::string(fallback);
  return member.String();
}

absl::StatusOr<bool> JsonNode::BoolMember(std::string_view key, bool fallback) const {
  const JsonNode member = Member(key);
  if (member.IsNull()) return fallback;
  return member.Bool();
}

absl::StatusOr<std::string> JsonNode::StringMember(std::string_view key) const {
  return Member(key).String();
}

absl::Status JsonNode::Error(std::string_view message) const {
  return absl::InvalidArgumentError(Concat(path_.empty() ? "the document" : path_, ": ", message));
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, int64_t max_bytes) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::NotFoundError(Concat(path, ": no such file"));
  }
  const auto size = std::filesystem::file_size(path, error);
  if (error) return absl::UnavailableError(Concat(path, ": ", error.message()));
  if (size > static_cast<uintmax_t>(max_bytes)) {
    return absl::InvalidArgumentError(
        Concat(path, ": has ", size, " bytes, at most ", max_bytes, " are read"));
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(size, '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(size))) {
    return absl::UnavailableError(Concat(path, ": cannot be read"));
  }
  return text;
}

}  // namespace chorus
