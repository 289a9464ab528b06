#include "core/base/field_error.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace chorus {
namespace {

constexpr char kFieldPayload[] = "chorus/field";

}  // namespace

absl::Status FieldError(std::string_view field, std::string_view value, std::string_view limit) {
  absl::Status status = absl::InvalidArgumentError(
      absl::StrCat(absl::string_view(field.data(), field.size()), ": ",
                   absl::string_view(value.data(), value.size()), " is not valid: ",
                   absl::string_view(limit.data(), limit.size())));
  status.SetPayload(kFieldPayload, absl::Cord(absl::string_view(field.data(), field.size())));
  return status;
}

std::optional<std::string> FieldOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kFieldPayload);
  if (!payload.has_value()) return std::nullopt;
  return std::string(*payload);
}

}  // namespace chorus
