#include "client/answer_json.h"
#include "client/answer_printer.h"
#include "client/ask_options.h"
#include "client/commands.h"
#include "client/speller.h"
#include "client/token_table.h"
#include "core/base/status_macros.h"

namespace chorus {
namespace {

bool HasTokenStatistics(const v1::GenerateRequest& request) {
  return request.response().attribution() || request.response().prompt_disagreement();
}

absl::Status PrintJsonAnswer(ChorusClient& client, const v1::GenerateRequest& request,
                             Console& console) {
  AnswerJson answer(request.fusion().method());
  CHORUS_RETURN_IF_ERROR(
      client.Generate(request, [&](const v1::GenerateResponse& event) { answer.Add(event); })
          .status());
  if (HasTokenStatistics(request)) answer.SpellTokens(Speller(client));
  console.out << JsonLine(answer.object());
  console.out.flush();
  return absl::OkStatus();
}

absl::Status PrintTextAnswer(ChorusClient& client, const v1::GenerateRequest& request,
                             bool is_one_of_several, Console& console) {
  AnswerPrinter printer(console, request.fusion().method(), is_one_of_several);
  TokenTable table;
  const absl::StatusOr<v1::FinishInfo> finish =
      client.Generate(request, [&](const v1::GenerateResponse& event) {
        printer.Add(event);
        table.Add(event.chunk());
      });
  printer.Close();
  if (HasTokenStatistics(request)) table.Print(Speller(client), console);
  return finish.status();
}

}  // namespace

int RunAsk(const std::vector<std::string>& arguments, Console& console) {
  AskOptions options;
  const FlagParser parser = MakeAskParser(options);
  const WordCount count = {
      .min = 1,
      .max = 1,
      .missing =
          "no question; for example: chorus ask \"What is the capital of France?\" "
          "--paraphrase=\"Name the capital city of France.\""};
  std::vector<std::string> words;
  if (const auto code = ParseOrExit(parser, arguments, count, "chorus ask", console, &words)) {
    return *code;
  }
  options.question = words.front();
  ApplyPreset(options);
  return WithClient(options.common, console, [&](ChorusClient& client) -> absl::Status {
    for (const v1::FusionMethod method : options.methods) {
      const v1::GenerateRequest request = MakeGenerateRequest(options, method);
      CHORUS_RETURN_IF_ERROR(
          options.common.json
              ? PrintJsonAnswer(client, request, console)
              : PrintTextAnswer(client, request, options.methods.size() > 1, console));
    }
    return absl::OkStatus();
  });
}

}  // namespace chorus
