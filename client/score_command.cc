#include <string>
#include <vector>

#include "client/answer_json.h"
#include "client/commands.h"
#include "client/enum_names.h"
#include "client/safe_text.h"
#include "client/score_json.h"
#include "client/score_options.h"
#include "client/score_report.h"
#include "client/speller.h"
#include "core/base/status_macros.h"

namespace chorus {
namespace {

// As the caller wrote them, or what the server says of their ids.
absl::StatusOr<std::vector<std::string>> TextsOf(const ScoreOptions& options,
                                                 ChorusClient& client) {
  std::vector<std::string> texts;
  for (const v1::Continuation& continuation : options.continuations) {
    if (continuation.has_text()) {
      texts.push_back(continuation.text());
      continue;
    }
    const auto& ids = continuation.tokens().token_ids();
    CHORUS_ASSIGN_OR_RETURN(texts.emplace_back(), client.Detokenize({ids.begin(), ids.end()}));
  }
  return texts;
}

absl::Status Score(ChorusClient& client, const ScoreOptions& options, v1::FusionMethod method,
                   Console& console) {
  CHORUS_ASSIGN_OR_RETURN(const v1::ScoreResponse response,
                          client.Score(MakeScoreRequest(options, method)));
  if (response.scores_size() != static_cast<int>(options.continuations.size())) {
    return absl::InternalError("the answer has not one score for each continuation");
  }
  CHORUS_ASSIGN_OR_RETURN(const std::vector<std::string> texts, TextsOf(options, client));
  Speller speller(client);
  const auto spell = [&](int32_t token_id) { return speller(token_id); };
  if (options.ask.common.json) {
    console.out << JsonLine(options.per_token ? ScoreJson(method, response, texts, spell)
                                              : ScoreJson(method, response, texts, nullptr));
  } else {
    std::string report;
    if (options.ask.methods.size() > 1) report = EnumName(method) + "\n";
    report += ScoreReport(response, texts);
    if (options.per_token) report += TokenScoreReport(response, texts, spell);
    console.out << (console.is_terminal ? WithoutControls(report) : report);
    if (options.ask.methods.size() > 1 && method != options.ask.methods.back()) {
      console.out << "\n";
    }
  }
  console.out.flush();
  return absl::OkStatus();
}

}  // namespace

int RunScore(const std::vector<std::string>& arguments, Console& console) {
  ScoreOptions options;
  const FlagParser parser = MakeScoreParser(options);
  constexpr const char* kExample =
      "chorus score \"What is the capital of France?\" --continuation=\"Paris\" "
      "--continuation=\"Lyon\"";
  const WordCount count = {
      .min = 1, .max = 1, .missing = std::string("no question; for example: ") + kExample};
  std::vector<std::string> words;
  if (const auto code = ParseOrExit(parser, arguments, count, "chorus score", console, &words)) {
    return *code;
  }
  if (options.continuations.empty()) {
    return UsageError("chorus score",
                      absl::InvalidArgumentError(
                          std::string("no --continuation to score; for example: ") + kExample),
                      console);
  }
  options.ask.question = words.front();
  ApplyPreset(options.ask);
  return WithClient(options.ask.common, console, [&](ChorusClient& client) -> absl::Status {
    for (const v1::FusionMethod method : options.ask.methods) {
      CHORUS_RETURN_IF_ERROR(Score(client, options, method, console));
    }
    return absl::OkStatus();
  });
}

}  // namespace chorus
