#include "server/grpc_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

#include "core/base/field_error.h"

namespace chorus {
namespace {

google::rpc::Status DetailsOf(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  return details;
}

TEST(GrpcStatusTest, OkIsOk) { EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok()); }

TEST(GrpcStatusTest, EveryCodeKeepsItsNumberAndMessage) {
  for (int code = 1; code <= 16; ++code) {
    const grpc::Status status =
        ToGrpcStatus(absl::Status(static_cast<absl::StatusCode>(code), "why"));
    EXPECT_EQ(static_cast<int>(status.error_code()), code);
    EXPECT_EQ(status.error_message(), "why");
    EXPECT_EQ(DetailsOf(status).code(), code);
    EXPECT_EQ(DetailsOf(status).message(), "why");
  }
}

TEST(GrpcStatusTest, FieldErrorsNameFieldValueAndLimit) {
  const google::rpc::Status details =
      DetailsOf(ToGrpcStatus(FieldError("sampling.top_p", "1.5", "must be in (0, 1]")));
  google::rpc::BadRequest bad_request;
  ASSERT_EQ(details.details_size(), 1);
  ASSERT_TRUE(details.details(0).UnpackTo(&bad_request));
  ASSERT_EQ(bad_request.field_violations_size(), 1);
  EXPECT_EQ(bad_request.field_violations(0).field(), "sampling.top_p");
  EXPECT_EQ(bad_request.field_violations(0).description(), "1.5 is not valid: must be in (0, 1]");
}

TEST(GrpcStatusTest, ResourceExhaustedSaysWhenToRetry) {
  const google::rpc::Status details = DetailsOf(ToGrpcStatus(absl::ResourceExhaustedError("full")));
  google::rpc::RetryInfo retry;
  ASSERT_EQ(details.details_size(), 1);
  ASSERT_TRUE(details.details(0).UnpackTo(&retry));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
}

TEST(GrpcStatusTest, MessagesAreClippedAndCleaned) {
  const grpc::Status status = ToGrpcStatus(
      absl::InternalError(std::string("a\nb\xFF\xC3\xA9\xC3") + std::string(5000, 'x')));
  EXPECT_THAT(status.error_message(), testing::StartsWith("a?b?\xC3\xA9?xxx"));
  EXPECT_LE(status.error_message().size(), 1024u + 3);
}

}  // namespace
}  // namespace chorus
