#include "client/load_result.h"

#include <unicode/locid.h>
#include <unicode/unistr.h>

#include "absl/strings/string_view.h"

namespace chorus {
namespace {

icu::UnicodeString LowerCase(absl::string_view text) {
  icu::UnicodeString lower =
      icu::UnicodeString::fromUTF8({text.data(), static_cast<int32_t>(text.size())});
  return lower.toLower(icu::Locale::getRoot());
}

int64_t NumArrived(const CallRecord& record) {
  int64_t num_tokens = 0;
  for (const TokenArrival& arrival : record.arrivals) num_tokens += arrival.num_tokens;
  return num_tokens;
}

}  // namespace

bool IsRightAnswer(const std::string& text, const std::vector<std::string>& answers) {
  if (answers.empty()) return false;
  const icu::UnicodeString first_line =
      LowerCase(absl::string_view(text).substr(0, text.find('\n')));
  for (const std::string& answer : answers) {
    if (first_line.indexOf(LowerCase(answer)) >= 0) return true;
  }
  return false;
}

void LoadResult::Add(const CallRecord& record, const std::vector<std::string>& answers) {
  prompt_tokens += record.prompt_tokens;
  cached_tokens += record.cached_tokens;
  if (!record.arrivals.empty()) ttft.Add(record.arrivals.front().seconds);
  for (const TokenGap& gap : TokenGaps(record)) {
    inter_token.Add(absl::ToDoubleSeconds(gap.end - gap.begin));
  }
  for (const TokenArrival& arrival : record.arrivals) {
    for (int i = 1; i < arrival.num_tokens; ++i) inter_token.Add(0);
  }
  if (record.status.ok()) {
    ++num_ok;
    generated_tokens += record.finish.usage().generated_tokens();
    end_to_end.Add(record.seconds);
    queue.Add(record.finish.timing().queue_seconds());
    if (IsRightAnswer(record.finish.text(), answers)) ++num_right;
    return;
  }
  generated_tokens += NumArrived(record);
  if (record.is_cancelled()) {
    ++num_cancelled;
    return;
  }
  Error& error = errors[record.status.code()];
  if (++error.count == 1) error.first_message = std::string(record.status.message());
}

int64_t LoadResult::num_failed() const {
  int64_t count = 0;
  for (const auto& [code, error] : errors) count += error.count;
  return count;
}

}  // namespace chorus
