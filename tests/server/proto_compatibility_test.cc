// Holds proto/chorus/v1/inference.proto against the committed description of what callers already
// rely on. After an additive change, renew the description and commit it with the change:
//
//   build/release/bin/proto_compatibility_test --update
//
// which refuses to write while a change breaks old callers.
#include "tests/server/proto_compatibility.h"

#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "chorus/v1/inference.pb.h"

#include "core/base/check.h"

namespace chorus {
namespace {

using google::protobuf::DescriptorProto;
using google::protobuf::FieldDescriptorProto;
using google::protobuf::FileDescriptorProto;
using google::protobuf::TextFormat;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr char kCommitted[] = "tests/server/data/inference.descriptor.txtpb";

FileDescriptorProto Current() {
  FileDescriptorProto file;
  v1::GenerateRequest::descriptor()->file()->CopyTo(&file);
  return file;
}

FileDescriptorProto Committed() {
  std::ifstream stream(kCommitted);
  const std::string text((std::istreambuf_iterator<char>(stream)),
                         std::istreambuf_iterator<char>());
  FileDescriptorProto file;
  CHECK(TextFormat::ParseFromString(text, &file));
  return file;
}

DescriptorProto* Message(FileDescriptorProto* file, const std::string& name) {
  for (DescriptorProto& message : *file->mutable_message_type()) {
    if (message.name() == name) return &message;
  }
  CHECK(false);
}

TEST(ProtoCompatibilityTest, NothingBreaksOldCallers) {
  EXPECT_THAT(BreakingChanges(Committed(), Current()), IsEmpty());
}

TEST(ProtoCompatibilityTest, CommittedDescriptionIsUpToDate) {
  EXPECT_EQ(Committed().DebugString(), Current().DebugString())
      << "run proto_compatibility_test --update and commit " << kCommitted;
}

TEST(BreakingChangesTest, AdditionsAreFree) {
  FileDescriptorProto now = Current();
  now.add_message_type()->set_name("New");
  FieldDescriptorProto* const field = Message(&now, "Sampling")->add_field();
  field->set_name("new_field");
  field->set_number(1000);
  now.mutable_service(0)->add_method()->set_name("NewRpc");
  now.mutable_enum_type(0)->add_value()->set_name("NEW_VALUE");
  EXPECT_THAT(BreakingChanges(Current(), now), IsEmpty());
}

TEST(BreakingChangesTest, RemovedRenumberedRenamedAndRetypedFieldsAreNamed) {
  FileDescriptorProto now = Current();
  DescriptorProto* const sampling = Message(&now, "Sampling");
  sampling->mutable_field()->DeleteSubrange(0, 1);                          // temperature
  sampling->mutable_field(0)->set_number(77);                               // top_p
  sampling->mutable_field(1)->set_name("k");                                // top_k
  sampling->mutable_field(2)->set_type(FieldDescriptorProto::TYPE_DOUBLE);  // min_p
  EXPECT_THAT(BreakingChanges(Current(), now),
              ElementsAre("field Sampling.temperature = 1 was removed",
                          "field Sampling.top_p was renumbered from 2 to 77",
                          "field Sampling.top_k = 3 is now called k",
                          "field Sampling.min_p was retyped from LABEL_OPTIONAL TYPE_FLOAT  to "
                          "LABEL_OPTIONAL TYPE_DOUBLE "));
}

TEST(BreakingChangesTest, PresenceLabelAndOneofCount) {
  FileDescriptorProto now = Current();
  Message(&now, "Stopping")->mutable_field(0)->set_proto3_optional(false);
  Message(&now, "Stopping")->mutable_field(0)->clear_oneof_index();
  Message(&now, "Stopping")->mutable_field(2)->set_label(FieldDescriptorProto::LABEL_OPTIONAL);
  Message(&now, "Prompt")->mutable_field(0)->clear_oneof_index();
  EXPECT_THAT(BreakingChanges(Current(), now),
              ElementsAre("field Prompt.text moved from oneof 'form' to ''",
                          "field Stopping.max_new_tokens is no longer optional",
                          "field Stopping.stop was retyped from LABEL_REPEATED TYPE_STRING  to "
                          "LABEL_OPTIONAL TYPE_STRING "));
}

TEST(BreakingChangesTest, EnumValuesRpcsMessagesAndPackageCount) {
  FileDescriptorProto now = Current();
  now.set_package("chorus.v2");
  for (auto& value : *now.mutable_enum_type()) {
    if (value.name() != "FusionMethod") continue;
    value.mutable_value(1)->set_number(70);
    value.mutable_value()->DeleteSubrange(7, 1);
  }
  auto* const methods = now.mutable_service(0)->mutable_method();
  ASSERT_EQ(methods->Get(0).name(), "Generate");
  ASSERT_EQ(methods->Get(4).name(), "Tokenize");
  methods->Mutable(0)->set_server_streaming(false);
  methods->Mutable(4)->set_output_type(".chorus.v1.Usage");
  methods->DeleteSubrange(5, 1);
  Message(&now, "Timing")->set_name("Times");
  EXPECT_THAT(
      BreakingChanges(Current(), now),
      ElementsAre("package was renamed from chorus.v1 to chorus.v2", "message Timing was removed",
                  "enum value FUSION_METHOD_ATTENTION was renumbered from 1 to 70",
                  "enum value FUSION_METHOD_VOTE = 7 was removed",
                  "rpc Inference.Generate streams differently",
                  "rpc Inference.Tokenize takes or returns another message",
                  "rpc Inference.Detokenize was removed"));
}

int Update() {
  if (std::ifstream(kCommitted).good()) {
    const auto changes = BreakingChanges(Committed(), Current());
    for (const std::string& change : changes) std::fprintf(stderr, "%s\n", change.c_str());
    if (!changes.empty()) return 1;
  }
  std::string text;
  CHECK(TextFormat::PrintToString(Current(), &text));
  std::ofstream(kCommitted) << "# The public contract as callers know it. Written by\n"
                               "# proto_compatibility_test --update; never edited.\n"
                            << text;
  return 0;
}

}  // namespace
}  // namespace chorus

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  if (argc == 2 && std::string(argv[1]) == "--update") return chorus::Update();
  return RUN_ALL_TESTS();
}
