#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "server/config.h"

namespace spdlog {
class logger;
}

namespace chorus {

using LogValue = std::variant<std::string, int64_t, double>;
using LogFields = std::vector<std::pair<std::string_view, LogValue>>;

// Lines on stderr: a time, a level, an event's name and its fields, as text (`name=value`) or as
// one JSON object a line, whatever the fields hold. Texts of prompts and answers must never be
// given as fields, but for LogPrompt, and secrets not at all. Thread-safe.
class Logger {
 public:
  enum class Level { kDebug, kInfo, kWarning, kError };

  // REQUIRES: Validate has accepted `config`.
  explicit Logger(const LogConfig& config);
  ~Logger();
  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;

  // From the next line on says more, by one level, or less, as long as there is such a level.
  void SayMore();
  void SayLess();

  void Log(Level level, std::string_view event, const LogFields& fields) const;

  // One line without time and level, as Log writes it: for tests.
  static std::string Format(bool json, std::string_view event, const LogFields& fields);

 private:
  // By `steps` of spdlog's levels, and a line about it that is seen if any is.
  void ChangeLevel(int steps);

  const bool json_;
  std::unique_ptr<spdlog::logger> logger_;
};

}  // namespace chorus
