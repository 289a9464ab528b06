#include "tests/server/proto_compatibility.h"

#include "absl/strings/str_cat.h"

namespace chorus {
namespace {

using google::protobuf::DescriptorProto;
using google::protobuf::EnumDescriptorProto;
using google::protobuf::FieldDescriptorProto;
using google::protobuf::FileDescriptorProto;
using google::protobuf::MethodDescriptorProto;
using google::protobuf::ServiceDescriptorProto;
using Changes = std::vector<std::string>;

template <typename List>
const typename List::value_type* FindByName(const List& list, const std::string& name) {
  for (const auto& item : list) {
    if (item.name() == name) return &item;
  }
  return nullptr;
}

template <typename List>
const typename List::value_type* FindByNumber(const List& list, int number) {
  for (const auto& item : list) {
    if (item.number() == number) return &item;
  }
  return nullptr;
}

std::string OneofOf(const DescriptorProto& message, const FieldDescriptorProto& field) {
  if (!field.has_oneof_index() || field.proto3_optional()) return "";
  return message.oneof_decl(field.oneof_index()).name();
}

std::string TypeOf(const FieldDescriptorProto& field) {
  return absl::StrCat(FieldDescriptorProto::Label_Name(field.label()), " ",
                      FieldDescriptorProto::Type_Name(field.type()), " ", field.type_name());
}

void CompareField(const DescriptorProto& before_message, const FieldDescriptorProto& before,
                  const DescriptorProto& now_message, Changes* changes) {
  const std::string path = absl::StrCat(before_message.name(), ".", before.name());
  const FieldDescriptorProto* const now = FindByNumber(now_message.field(), before.number());
  if (now == nullptr) {
    const FieldDescriptorProto* const moved = FindByName(now_message.field(), before.name());
    changes->push_back(moved == nullptr
                           ? absl::StrCat("field ", path, " = ", before.number(), " was removed")
                           : absl::StrCat("field ", path, " was renumbered from ", before.number(),
                                          " to ", moved->number()));
    return;
  }
  if (now->name() != before.name()) {
    changes->push_back(
        absl::StrCat("field ", path, " = ", before.number(), " is now called ", now->name()));
  }
  if (TypeOf(*now) != TypeOf(before)) {
    changes->push_back(
        absl::StrCat("field ", path, " was retyped from ", TypeOf(before), " to ", TypeOf(*now)));
  }
  if (now->proto3_optional() != before.proto3_optional()) {
    changes->push_back(
        absl::StrCat("field ", path,
                     before.proto3_optional() ? " is no longer optional" : " has become optional"));
  }
  if (OneofOf(now_message, *now) != OneofOf(before_message, before)) {
    changes->push_back(absl::StrCat("field ", path, " moved from oneof '",
                                    OneofOf(before_message, before), "' to '",
                                    OneofOf(now_message, *now), "'"));
  }
}

void CompareEnum(const EnumDescriptorProto& before, const EnumDescriptorProto* now,
                 Changes* changes) {
  if (now == nullptr) {
    changes->push_back(absl::StrCat("enum ", before.name(), " was removed"));
    return;
  }
  for (const auto& value : before.value()) {
    const auto* const same = FindByName(now->value(), value.name());
    if (same == nullptr) {
      changes->push_back(
          absl::StrCat("enum value ", value.name(), " = ", value.number(), " was removed"));
    } else if (same->number() != value.number()) {
      changes->push_back(absl::StrCat("enum value ", value.name(), " was renumbered from ",
                                      value.number(), " to ", same->number()));
    }
  }
}

void CompareMessage(const DescriptorProto& before, const DescriptorProto* now, Changes* changes) {
  if (now == nullptr) {
    changes->push_back(absl::StrCat("message ", before.name(), " was removed"));
    return;
  }
  for (const auto& field : before.field()) CompareField(before, field, *now, changes);
  for (const auto& nested : before.nested_type()) {
    CompareMessage(nested, FindByName(now->nested_type(), nested.name()), changes);
  }
  for (const auto& nested : before.enum_type()) {
    CompareEnum(nested, FindByName(now->enum_type(), nested.name()), changes);
  }
}

void CompareMethod(const std::string& service, const MethodDescriptorProto& before,
                   const MethodDescriptorProto* now, Changes* changes) {
  const std::string path = absl::StrCat(service, ".", before.name());
  if (now == nullptr) {
    changes->push_back(absl::StrCat("rpc ", path, " was removed"));
    return;
  }
  if (now->input_type() != before.input_type() || now->output_type() != before.output_type()) {
    changes->push_back(absl::StrCat("rpc ", path, " takes or returns another message"));
  }
  if (now->client_streaming() != before.client_streaming() ||
      now->server_streaming() != before.server_streaming()) {
    changes->push_back(absl::StrCat("rpc ", path, " streams differently"));
  }
}

}  // namespace

Changes BreakingChanges(const FileDescriptorProto& before, const FileDescriptorProto& now) {
  Changes changes;
  if (now.package() != before.package()) {
    changes.push_back(
        absl::StrCat("package was renamed from ", before.package(), " to ", now.package()));
  }
  for (const auto& message : before.message_type()) {
    CompareMessage(message, FindByName(now.message_type(), message.name()), &changes);
  }
  for (const auto& value : before.enum_type()) {
    CompareEnum(value, FindByName(now.enum_type(), value.name()), &changes);
  }
  for (const ServiceDescriptorProto& service : before.service()) {
    const auto* const same = FindByName(now.service(), service.name());
    if (same == nullptr) {
      changes.push_back(absl::StrCat("service ", service.name(), " was removed"));
      continue;
    }
    for (const auto& method : service.method()) {
      CompareMethod(service.name(), method, FindByName(same->method(), method.name()), &changes);
    }
  }
  return changes;
}

}  // namespace chorus
