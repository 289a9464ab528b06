#include "server/logging.h"

#include <cmath>

#include <gmock/gmock.h>
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

TEST(LoggerTest, JsonHasNoInfinityAndNoNan) {
  const LogFields fields = {{"nan", std::nan("")}, {"infinite", HUGE_VAL}, {"small", 1e-300}};
  const auto line = nlohmann::json::parse("{" + Logger::Format(true, "e", fields) + "}");
  EXPECT_TRUE(line["nan"].is_null());
  EXPECT_TRUE(line["infinite"].is_null());
  EXPECT_EQ(line["small"], 1e-300);
}

TEST(LoggerTest, EveryByteMakesAJsonLineOfOneLine) {
  for (int first = 0; first < 256; ++first) {
    for (const int second : {0x00, 0x0A, 0x22, 0x80, 0xBF, 0xFF}) {
      const std::string text = {static_cast<char>(first), static_cast<char>(second), 'x'};
      const std::string line = Logger::Format(true, text, {{"field", text}});
      EXPECT_TRUE(nlohmann::json::accept("{" + line + "}")) << first << " " << second;
      EXPECT_EQ(line.find('\n'), std::string::npos);
    }
  }
}

TEST(LoggerTest, LevelGoesUpAndDownByOneAndStopsAtTheEnds) {
  const auto log_lines = [](int more, int less) {
    testing::internal::CaptureStderr();
    LogConfig config;
    config.format = "json";
    Logger logger(config);
    for (int i = 0; i < more; ++i) logger.SayMore();
    for (int i = 0; i < less; ++i) logger.SayLess();
    logger.Log(Logger::Level::kDebug, "quiet", {});
    logger.Log(Logger::Level::kInfo, "plain", {});
    logger.Log(Logger::Level::kError, "loud", {});
    return testing::internal::GetCapturedStderr();
  };
  EXPECT_THAT(log_lines(1, 0), testing::HasSubstr("\"quiet\""));
  EXPECT_THAT(log_lines(5, 1), testing::Not(testing::HasSubstr("\"quiet\"")));
  EXPECT_THAT(log_lines(5, 1), testing::HasSubstr("\"plain\""));
  EXPECT_THAT(log_lines(0, 1), testing::Not(testing::HasSubstr("\"plain\"")));
  EXPECT_THAT(log_lines(0, 9), testing::Not(testing::HasSubstr("\"loud\"")));
}

TEST(LoggerTest, TextLinesStayOneLine) {
  EXPECT_EQ(Logger::Format(false, "request", kFields),
            "request id=\"a \\\"b\\\"\\n\xEF\xBF\xBD\" method=vote tokens=12 seconds=0.5");
}

}  // namespace
}  // namespace chorus
