#include "server/logging.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace chorus {
namespace {

const LogFields kFields = {{"id", std::string("a \"b\"\n\xFF")},
                           {"method", std::string("vote")},
                           {"tokens", int64_t{12}},
                           {"seconds", 0.5}};

TEST(LoggerTest, JsonLinesParseWhateverTheFieldsHold) {
  const auto line = nlohmann::json::parse("{" + Logger::Format(true, "request", kFields) + "}");
  EXPECT_EQ(line["event"], "request");
  EXPECT_EQ(line["id"], "a \"b\"\n\xEF\xBF\xBD");
  EXPECT_EQ(line["method"], "vote");
  EXPECT_EQ(line["tokens"], 12);
  EXPECT_EQ(line["seconds"], 0.5);
}

TEST(LoggerTest, TextLinesStayOneLine) {
  EXPECT_EQ(Logger::Format(false, "request", kFields),
            "request id=\"a \\\"b\\\"\\n\xEF\xBF\xBD\" method=vote tokens=12 seconds=0.5");
}

}  // namespace
}  // namespace chorus
