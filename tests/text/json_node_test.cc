#include "core/text/json_node.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using ::testing::HasSubstr;

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

TEST(JsonNodeTest, ErrorsNameThePath) {
  const auto document = JsonNode::ParseDocument(R"({"a": {"b": [1, "x"]}})", "file.json");
  ASSERT_TRUE(document.ok());
  const JsonNode list = JsonNode(&*document, "").Member("a").Member("b");
  EXPECT_EQ(list.Element(0).Integer(5).value(), 1);
  EXPECT_EQ(MessageOf(list.Element(0).String().status()), "a.b[0]: must be a string");
  EXPECT_EQ(MessageOf(list.Element(1).Integer(5).status()), "a.b[1]: must be an integer");
  EXPECT_EQ(MessageOf(list.Member("c").Bool().status()), "a.b.c: must be true or false");
}

TEST(JsonNodeTest, IntegersOutsideTheRangeAreRefused) {
  for (const char* text : {"-1", "6", "18446744073709551615", "-9223372036854775808"}) {
    const auto document = JsonNode::ParseDocument(text, "x");
    ASSERT_TRUE(document.ok());
    EXPECT_THAT(MessageOf(JsonNode(&*document, "n").Integer(5).status()),
                HasSubstr("must be in [0, 5]"))
        << text;
  }
  for (const char* text : {"1.0", "1e3", "true", "null", "\"1\"", "99999999999999999999999"}) {
    const auto document = JsonNode::ParseDocument(text, "x");
    ASSERT_TRUE(document.ok());
    EXPECT_FALSE(JsonNode(&*document, "n").Integer(5).ok()) << text;
  }
}

TEST(JsonNodeTest, MalformedDocumentsAreRefusedByName) {
  for (const std::string& text : {std::string(), std::string("{"), std::string("{\"a\": \"\xFF\"}"),
                                  std::string("[1,]"), std::string(100000, '[')}) {
    const auto document = JsonNode::ParseDocument(text, "file.json");
    EXPECT_EQ(MessageOf(document.status()), "file.json: not valid JSON");
  }
}

TEST(JsonNodeTest, DefaultsStandInForMissingAndNullMembers) {
  const auto document = JsonNode::ParseDocument(R"({"n": null, "t": true, "s": 1})", "x");
  const JsonNode node(&*document, "");
  EXPECT_EQ(node.BoolMember("n", true).value(), true);
  EXPECT_EQ(node.BoolMember("missing", false).value(), false);
  EXPECT_EQ(node.BoolMember("t", false).value(), true);
  EXPECT_EQ(node.StringMember("missing", "d").value(), "d");
  EXPECT_FALSE(node.StringMember("s", "d").ok());
  EXPECT_FALSE(node.StringMember("missing").ok());
}

TEST(JsonNodeTest, FilesThatAreMissingOrTooLongAreToldApart) {
  EXPECT_TRUE(absl::IsNotFound(ReadSmallFile("tests/text/no_such_file", 10).status()));
  EXPECT_TRUE(absl::IsNotFound(ReadSmallFile("tests/text", 10).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ReadSmallFile("tests/text/CMakeLists.txt", 10).status()));
  EXPECT_TRUE(ReadSmallFile("tests/text/CMakeLists.txt", 1 << 20).ok());
}

}  // namespace
}  // namespace chorus
