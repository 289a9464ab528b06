#include "server/logging.h"

#include <algorithm>

#include <nlohmann/json.hpp>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace chorus {
namespace {

// Any bytes as a JSON string: bytes that are not UTF-8 become U+FFFD, never an exception.
std::string Quote(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool IsPlain(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) ||
           std::string_view("._-:/,+[]%").find(c) != std::string_view::npos;
  });
}

std::string FormatValue(const LogValue& value, bool always_quote) {
  if (const auto* text = std::get_if<std::string>(&value)) {
    return always_quote || !IsPlain(*text) ? Quote(*text) : *text;
  }
  if (const auto* number = std::get_if<int64_t>(&value)) return absl::StrCat(*number);
  return absl::StrCat(std::get<double>(value));
}

spdlog::level::level_enum ToSpdlog(Logger::Level level) {
  switch (level) {
    case Logger::Level::kDebug:
      return spdlog::level::debug;
    case Logger::Level::kInfo:
      return spdlog::level::info;
    case Logger::Level::kWarning:
      return spdlog::level::warn;
    case Logger::Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

}  // namespace

Logger::Logger(const LogConfig& config) : json_(config.format == "json") {
  logger_ =
      std::make_unique<spdlog::logger>("chorus", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger_->set_level(spdlog::level::from_str(config.level));
  logger_->flush_on(spdlog::level::debug);
  logger_->set_pattern(json_ ? R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v})"
                             : "%Y-%m-%dT%H:%M:%S.%eZ %-7l %v",
                       spdlog::pattern_time_type::utc);
}

Logger::~Logger() = default;

void Logger::Log(Level level, std::string_view event, const LogFields& fields) const {
  const spdlog::level::level_enum spdlog_level = ToSpdlog(level);
  if (!logger_->should_log(spdlog_level)) return;
  logger_->log(spdlog_level, "{}", Format(json_, event, fields));
}

std::string Logger::Format(bool json, std::string_view event, const LogFields& fields) {
  std::string line =
      json ? absl::StrCat("\"event\":", Quote(std::string(event))) : std::string(event);
  for (const auto& [name, value] : fields) {
    if (json) {
      absl::StrAppend(&line, ",", Quote(std::string(name)), ":", FormatValue(value, true));
    } else {
      absl::StrAppend(&line, " ", std::string(name), "=", FormatValue(value, false));
    }
  }
  return line;
}

}  // namespace chorus
