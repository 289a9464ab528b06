#pragma once

#include <string>
#include <vector>

#include <google/protobuf/descriptor.pb.h>

namespace chorus {

// What in `now` would break a caller that was built against `before`: one sentence each, naming the
// message, field, enum value or rpc. Empty: only additions.
std::vector<std::string> BreakingChanges(const google::protobuf::FileDescriptorProto& before,
                                         const google::protobuf::FileDescriptorProto& now);

}  // namespace chorus
