#include "client/score_report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "client/text_table.h"

namespace chorus {
namespace {

constexpr size_t kTextWidth = 40;
// A terminal's line; --json has all of them.
constexpr int kMaxPromptColumns = 10;

std::string Quoted(const std::string& text) {
  return absl::StrCat("\"", Shortened(text, kTextWidth), "\"");
}

std::string Number(double value) { return absl::StrFormat("%.4f", value); }

}  // namespace

std::string ScoreReport(const v1::ScoreResponse& response, const std::vector<std::string>& texts) {
  int num_prompts = 0;
  for (const v1::ContinuationScore& score : response.scores()) {
    num_prompts = std::max(num_prompts, score.prompt_logprobs_size());
  }
  const int num_columns = std::min(num_prompts, kMaxPromptColumns);
  std::vector<std::string> heading = {"continuation", "tokens", "log-likelihood", "per token",
                                      "greedy"};
  for (int i = 0; i < num_columns; ++i) heading.push_back(absl::StrCat("[", i, "]"));
  TextTable table(heading);
  for (int i = 0; i < response.scores_size(); ++i) {
    const v1::ContinuationScore& score = response.scores(i);
    const int num_tokens = score.token_ids_size();
    std::vector<std::string> cells = {Quoted(texts[i]), absl::StrCat(num_tokens),
                                      Number(score.logprob()),
                                      Number(score.logprob() / std::max(num_tokens, 1)),
                                      score.is_greedy() ? "yes" : "no"};
    for (int p = 0; p < std::min(num_columns, score.prompt_logprobs_size()); ++p) {
      cells.push_back(Number(score.prompt_logprobs(p)));
    }
    table.AddRow(std::move(cells));
  }
  std::string report = table.ToString("");
  if (num_prompts > num_columns) {
    absl::StrAppend(&report, "(", num_prompts - num_columns, " more prompts: see --json)\n");
  }
  return report;
}

std::string TokenScoreReport(const v1::ScoreResponse& response,
                             const std::vector<std::string>& texts,
                             const std::function<std::string(int32_t)>& spell) {
  std::string report;
  for (int i = 0; i < response.scores_size(); ++i) {
    const v1::ContinuationScore& score = response.scores(i);
    TextTable table({"token", "id", "logprob", "likeliest"});
    for (int k = 0; k < std::min(score.token_ids_size(), score.token_logprobs_size()); ++k) {
      const bool has_greedy = k < score.greedy_token_ids_size();
      table.AddRow({Quoted(spell(score.token_ids(k))), absl::StrCat(score.token_ids(k)),
                    Number(score.token_logprobs(k)),
                    has_greedy ? Quoted(spell(score.greedy_token_ids(k))) : ""});
    }
    absl::StrAppend(&report, "\n", Quoted(texts[i]), "\n", table.ToString("  "));
  }
  return report;
}

}  // namespace chorus
