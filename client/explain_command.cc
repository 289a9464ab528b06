#include <fstream>

#include "absl/strings/str_cat.h"

#include "client/answer_json.h"
#include "client/commands.h"
#include "client/explain_json.h"
#include "client/explain_options.h"
#include "client/explain_report.h"
#include "client/layer_statistics.h"
#include "client/safe_text.h"
#include "core/base/status_macros.h"

namespace chorus {
namespace {

absl::Status Save(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (file) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot write --output=", path));
}

absl::Status Explain(ChorusClient& client, const ExplainOptions& options, Console& console) {
  CHORUS_ASSIGN_OR_RETURN(const v1::ExplainResponse response,
                          client.Explain(MakeExplainRequest(options)));
  if (!IsWellFormed(response)) {
    return absl::InternalError("the answer's layers have not the sizes that it says");
  }
  const bool json = options.ask.common.json;
  std::string line;
  if (json || options.output) line = JsonLine(ExplainJson(response));
  if (options.output) CHORUS_RETURN_IF_ERROR(Save(*options.output, line));
  if (json) {
    console.out << line;
  } else {
    const std::string report = ExplainReport(response);
    console.out << (console.is_terminal ? WithoutControls(report) : report);
  }
  console.out.flush();
  return absl::OkStatus();
}

}  // namespace

int RunExplain(const std::vector<std::string>& arguments, Console& console) {
  ExplainOptions options;
  const FlagParser parser = MakeExplainParser(options);
  const WordCount count = {
      .min = 1,
      .max = 1,
      .missing =
          "no question; for example: chorus explain \"What is the capital of France?\" "
          "--paraphrase=\"Name the capital city of France.\""};
  std::vector<std::string> words;
  if (const auto code = ParseOrExit(parser, arguments, count, "chorus explain", console, &words)) {
    return *code;
  }
  options.ask.question = words.front();
  ApplyPreset(options.ask);
  return WithClient(options.ask.common, console,
                    [&](ChorusClient& client) { return Explain(client, options, console); });
}

}  // namespace chorus
