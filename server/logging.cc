#include "server/logging.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>

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
  const double number = std::get<double>(value);
  // JSON has no infinity and no NaN.
  if (always_quote && !std::isfinite(number)) return "null";
  return absl::StrCat(number);
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

void Logger::SayMore() { ChangeLevel(-1); }

void Logger::SayLess() { ChangeLevel(+1); }

void Logger::ChangeLevel(int steps) {
  // spdlog has trace below debug, and critical between error and off: neither is used here.
  static constexpr spdlog::level::level_enum kLevels[] = {
      spdlog::level::debug, spdlog::level::info, spdlog::level::warn, spdlog::level::err,
      spdlog::level::off};
  const auto* const old_level = std::find(std::begin(kLevels), std::end(kLevels), logger_->level());
  const auto index = std::clamp<std::ptrdiff_t>(old_level - kLevels + steps, 0,
                                                std::ssize(kLevels) - 1);
  const auto new_level = kLevels[index];
  if (new_level == *old_level) return;
  logger_->set_level(std::min(new_level, *old_level));
  const spdlog::string_view_t name = spdlog::level::to_string_view(new_level);
  Log(Level::kWarning, "log_level", {{"level", std::string(name.data(), name.size())}});
  logger_->set_level(new_level);
}

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
