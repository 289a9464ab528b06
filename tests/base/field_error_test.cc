#include "core/base/field_error.h"

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace chorus {
namespace {

TEST(FieldErrorTest, NamesFieldValueAndLimit) {
  const absl::Status status = FieldError("sampling.top_p", "1.5", "must be in (0, 1]");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::string message(status.message());
  EXPECT_THAT(message, testing::HasSubstr("sampling.top_p"));
  EXPECT_THAT(message, testing::HasSubstr("1.5"));
  EXPECT_THAT(message, testing::HasSubstr("must be in (0, 1]"));
}

TEST(FieldErrorTest, FieldOfGivesTheFieldBack) {
  EXPECT_EQ(FieldOf(FieldError("prompt.text.paraphrases[3]", "\"\"", "must not be empty")),
            "prompt.text.paraphrases[3]");
  EXPECT_EQ(FieldOf(FieldError("", "", "")), "");
}

TEST(FieldErrorTest, FieldOfIsEmptyForOtherStatuses) {
  EXPECT_EQ(FieldOf(absl::OkStatus()), std::nullopt);
  EXPECT_EQ(FieldOf(absl::InvalidArgumentError("sampling.top_p: bad")), std::nullopt);
}

TEST(FieldErrorTest, TheFieldSurvivesCopies) {
  absl::Status copy;
  {
    const absl::Status status = FieldError("priority", "-1", "must be at least 0");
    copy = status;
  }
  EXPECT_EQ(FieldOf(copy), "priority");
}

}  // namespace
}  // namespace chorus
