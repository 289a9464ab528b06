#include "core/engine/vote.h"

#include <algorithm>
#include <limits>
#include <map>

#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include "core/base/check.h"

namespace chorus {
namespace {

bool IsOuter(UChar32 c) { return u_isUWhiteSpace(c) || u_iscntrl(c); }

struct Group {
  std::string answer;
  std::vector<int32_t> members;  // caller's indexes, in canonical order
  int32_t first_rank = 0;
  double mean_logprob = 0.0;
};

double LogprobOf(const Answer& answer) {
  return answer.token_ids.empty() ? -std::numeric_limits<double>::infinity() : answer.mean_logprob;
}

bool IsBetter(const Group& a, const Group& b) {
  if (a.members.size() != b.members.size()) return a.members.size() > b.members.size();
  if (a.mean_logprob != b.mean_logprob) return a.mean_logprob > b.mean_logprob;
  return a.first_rank < b.first_rank;
}

}  // namespace

std::string NormaliseAnswer(std::string_view text) {
  const std::string_view line = text.substr(0, text.find_first_of("\r\n"));
  const auto source = icu::UnicodeString::fromUTF8(
      icu::StringPiece(line.data(), static_cast<int32_t>(line.size())));
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* nfkc = icu::Normalizer2::getNFKCInstance(error);
  CHECK(U_SUCCESS(error));  // ICU's own data
  icu::UnicodeString normal = nfkc->normalize(source, error);
  CHECK(U_SUCCESS(error));
  normal.toLower(icu::Locale::getRoot());

  int32_t begin = 0;
  int32_t end = normal.length();
  while (begin < end && IsOuter(normal.char32At(begin))) begin = normal.moveIndex32(begin, 1);
  while (end > begin) {
    const int32_t last = normal.moveIndex32(end, -1);
    const UChar32 c = normal.char32At(last);
    if (!IsOuter(c) && !u_ispunct(c)) break;
    end = last;
  }
  std::string answer;
  normal.tempSubStringBetween(begin, end).toUTF8String(answer);
  return answer;
}

VoteResult CountVotes(absl::Span<const Answer> answers, absl::Span<const int32_t> canonical_order) {
  CHECK(!answers.empty() && answers.size() == canonical_order.size());
  std::map<std::string, Group> by_answer;
  for (size_t rank = 0; rank < canonical_order.size(); ++rank) {
    const Answer& answer = answers[canonical_order[rank]];
    std::string normal = NormaliseAnswer(answer.text);
    Group& group = by_answer[normal];
    if (group.members.empty()) {
      group.answer = std::move(normal);
      group.first_rank = static_cast<int32_t>(rank);
    }
    group.members.push_back(canonical_order[rank]);
  }
  std::vector<Group> groups;
  for (auto& [normal, group] : by_answer) {
    double sum = 0.0;
    for (int32_t member : group.members) sum += LogprobOf(answers[member]);
    group.mean_logprob = sum / static_cast<double>(group.members.size());
    groups.push_back(std::move(group));
  }
  std::sort(groups.begin(), groups.end(), IsBetter);

  VoteResult result;
  const std::vector<int32_t>& best = groups.front().members;
  result.winner = *std::max_element(best.begin(), best.end(), [&](int32_t a, int32_t b) {
    return LogprobOf(answers[a]) < LogprobOf(answers[b]);
  });
  for (Group& group : groups) {
    std::sort(group.members.begin(), group.members.end());
    result.tally.push_back({std::move(group.answer), static_cast<int32_t>(group.members.size()),
                            std::move(group.members)});
  }
  return result;
}

}  // namespace chorus
