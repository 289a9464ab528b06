#pragma once

#include <string>
#include <utility>
#include <vector>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/generated_enum_reflection.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace chorus {

// Flag spellings come from the contract itself: FUSION_METHOD_LOGIT_MEAN is "logit_mean". The
// prefix is what stands before UNSPECIFIED in the value 0, which every enum of the contract has.
template <typename Enum>
std::string EnumName(Enum value) {
  const google::protobuf::EnumDescriptor* descriptor = google::protobuf::GetEnumDescriptor<Enum>();
  const auto* found = descriptor->FindValueByNumber(static_cast<int>(value));
  if (found == nullptr) return absl::StrCat(static_cast<int>(value));  // a newer server's value
  absl::string_view prefix = descriptor->FindValueByNumber(0)->name();
  absl::ConsumeSuffix(&prefix, "UNSPECIFIED");
  return absl::AsciiStrToLower(absl::StripPrefix(found->name(), prefix));
}

// Every value but 0 with its flag spelling, in the contract's order.
template <typename Enum>
std::vector<std::pair<std::string, Enum>> EnumChoices() {
  const google::protobuf::EnumDescriptor* descriptor = google::protobuf::GetEnumDescriptor<Enum>();
  std::vector<std::pair<std::string, Enum>> choices;
  for (int i = 0; i < descriptor->value_count(); ++i) {
    const auto value = static_cast<Enum>(descriptor->value(i)->number());
    if (static_cast<int>(value) != 0) choices.emplace_back(EnumName(value), value);
  }
  return choices;
}

}  // namespace chorus
