#include "client/token_table.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

#include "client/safe_text.h"
#include "client/text_table.h"

namespace chorus {
namespace {

// With more prompts than this, a line names only those that got most.
constexpr int kMaxPromptColumns = 10;
constexpr int kNumLargest = 5;
constexpr size_t kMaxTokenWidth = 24;

std::string Percent(float share) { return absl::StrFormat("%.1f%%", share * 100); }

// "[17] 12.0%  [3] 9.1%  ..."
std::string Largest(const v1::Attribution& attribution) {
  std::vector<int> order(attribution.segments_size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return attribution.segments(a) > attribution.segments(b); });
  order.resize(std::min<size_t>(order.size(), kNumLargest));
  return absl::StrJoin(order, "  ", [&](std::string* out, int prompt) {
    absl::StrAppend(out, "[", prompt, "] ", Percent(attribution.segments(prompt)));
  });
}

}  // namespace

void TokenTable::Add(const v1::TokenChunk& chunk) {
  for (int i = 0; i < chunk.token_ids_size(); ++i) {
    Row& row = rows_.emplace_back();
    row.token_id = chunk.token_ids(i);
    if (i < chunk.attribution_size()) {
      row.attribution = chunk.attribution(i);
      has_attribution_ = true;
      has_prefix_ = has_prefix_ || row.attribution.prefix() > 0;
      has_separators_ = has_separators_ || row.attribution.separators() > 0;
      has_suffix_ = has_suffix_ || row.attribution.suffix() > 0;
      num_prompts_ = std::max(num_prompts_, row.attribution.segments_size());
    }
    if (i < chunk.disagreement_size()) {
      row.disagreement = absl::StrFormat("%.4f", chunk.disagreement(i));
      has_disagreement_ = true;
    }
  }
}

std::vector<std::string> TokenTable::Heading() const {
  std::vector<std::string> heading = {"token"};
  if (has_attribution_ && has_prefix_) heading.push_back("prefix");
  if (num_prompts_ > kMaxPromptColumns) heading.push_back("prompts that got most");
  for (int i = 0; num_prompts_ <= kMaxPromptColumns && i < num_prompts_; ++i) {
    heading.push_back(absl::StrCat("[", i, "]"));
  }
  if (has_separators_) heading.push_back("separators");
  if (has_suffix_) heading.push_back("suffix");
  if (has_attribution_) heading.push_back("answer");
  if (has_disagreement_) heading.push_back("disagreement, bits");
  return heading;
}

std::vector<std::string> TokenTable::Cells(const Row& row, const std::string& spelling) const {
  const v1::Attribution& attribution = row.attribution;
  std::vector<std::string> cells = {absl::StrCat("\"", Shortened(spelling, kMaxTokenWidth), "\"")};
  if (has_attribution_ && has_prefix_) cells.push_back(Percent(attribution.prefix()));
  if (num_prompts_ > kMaxPromptColumns) {
    cells.push_back(Largest(attribution));
  } else {
    for (const float share : attribution.segments()) cells.push_back(Percent(share));
  }
  if (has_separators_) cells.push_back(Percent(attribution.separators()));
  if (has_suffix_) cells.push_back(Percent(attribution.suffix()));
  if (has_attribution_) cells.push_back(Percent(attribution.generated()));
  if (has_disagreement_) cells.push_back(row.disagreement);
  return cells;
}

void TokenTable::Print(const std::function<std::string(int32_t)>& spell, Console& console) const {
  if (!has_attribution_ && !has_disagreement_) return;
  TextTable table(Heading());
  for (const Row& row : rows_) table.AddRow(Cells(row, spell(row.token_id)));
  const std::string text = table.ToString("  ");
  console.out << "\n" << (console.is_terminal ? WithoutControls(text) : text);
  console.out.flush();
}

}  // namespace chorus
