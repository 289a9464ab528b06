#include "server/grpc_status.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"

#include "core/base/field_error.h"

namespace chorus {
namespace {

// gRPC's default limit for all headers of a response is 8 KiB, and the message is sent twice
// (plain and inside the details), percent-encoded at worst.
constexpr size_t kMaxMessageBytes = 1024;
constexpr int kRetrySeconds = 1;  // a queue of 256 empties within seconds

// Length of the well-formed UTF-8 sequence that `text` begins with; 0 if there is none.
size_t SequenceLength(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  const size_t length = lead < 0x80   ? 1
                        : lead < 0xC2 ? 0
                        : lead < 0xE0 ? 2
                        : lead < 0xF0 ? 3
                        : lead < 0xF5 ? 4
                                      : 0;
  if (length == 0 || length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) return 0;
  }
  return length;
}

// Printable, valid UTF-8 of at most kMaxMessageBytes: a message may quote what a caller sent.
std::string CleanMessage(std::string_view message) {
  std::string clean;
  for (size_t i = 0; i < message.size() && clean.size() < kMaxMessageBytes;) {
    const size_t length = SequenceLength(message.substr(i));
    const auto byte = static_cast<unsigned char>(message[i]);
    if (length == 0 || byte < 0x20 || byte == 0x7F) {
      clean += '?';
    } else {
      clean.append(message.substr(i, length));
    }
    i += std::max<size_t>(length, 1);
  }
  return clean;
}

google::rpc::BadRequest MakeBadRequest(const absl::Status& status, std::string_view message) {
  google::rpc::BadRequest detail;
  auto* violation = detail.add_field_violations();
  const std::string field = FieldOf(status).value_or("");
  violation->set_field(field);
  // FieldError's message is "FIELD: VALUE is not valid: LIMIT"; the field has its own place here.
  const std::string head = absl::StrCat(field, ": ");
  if (!field.empty() && message.substr(0, head.size()) == head) message.remove_prefix(head.size());
  violation->set_description(std::string(message));
  return detail;
}

}  // namespace

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  const std::string message =
      CleanMessage(std::string_view(status.message().data(), status.message().size()));
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(message);
  if (status.code() == absl::StatusCode::kInvalidArgument) {
    details.add_details()->PackFrom(MakeBadRequest(status, message));
  } else if (status.code() == absl::StatusCode::kResourceExhausted) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(kRetrySeconds);
    details.add_details()->PackFrom(retry);
  }
  return details;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status details = ToRpcStatus(status);
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), details.message(),
                      details.SerializeAsString());
}

}  // namespace chorus
