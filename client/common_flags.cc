#include "client/common_flags.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace chorus {

void CommonFlags::AddTo(FlagParser& parser) {
  parser.AddSection("Connection and output:");
  parser.AddFlag("server", "HOST:PORT", absl::StrCat("the server; default ", kDefaultServer),
                 Into(&server));
  parser.AddFlag("timeout", "TIME", "longest time of one call: 90s, 1m30s, 500ms; default 5m",
                 Into(&timeout));
  parser.AddSwitch("json", "JSON on standard output instead of text", &json);
}

std::optional<int> ParseOrExit(const FlagParser& parser, const std::vector<std::string>& arguments,
                               const WordCount& count, const std::string& command, Console& console,
                               std::vector<std::string>* words) {
  absl::StatusOr<FlagParser::Result> result = parser.Parse(arguments);
  if (!result.ok()) return UsageError(command, result.status(), console);
  if (result->wants_help) {
    console.out << parser.Help();
    return kExitDone;
  }
  *words = std::move(result->words);
  if (words->size() < count.min) {
    return UsageError(command, absl::InvalidArgumentError(count.missing), console);
  }
  if (words->size() > count.max) {
    return UsageError(command,
                      absl::InvalidArgumentError(
                          absl::StrCat("unexpected word '", (*words)[count.max],
                                       "' (a text of several words needs quotation marks)")),
                      console);
  }
  return std::nullopt;
}

int UsageError(const std::string& command, const absl::Status& status, Console& console) {
  console.err << command << ": " << status.message() << "\n";
  return kExitUsage;
}

int WithClient(const CommonFlags& flags, Console& console,
               const std::function<absl::Status(ChorusClient& client)>& body) {
  absl::StatusOr<ChorusClient> client =
      ChorusClient::Connect(flags.server, ClientOptions{.deadline = flags.timeout});
  if (!client.ok()) {
    console.err << "chorus: " << client.status().message()
                << "; start one with 'chorus-server --model=DIR', or name another with "
                   "--server=HOST:PORT\n";
    return kExitFailure;
  }
  if (const absl::Status status = body(*client); !status.ok()) {
    console.out.flush();
    console.err << "chorus: " << status.message() << " [" << absl::StatusCodeToString(status.code())
                << "]\n";
    return kExitFailure;
  }
  return kExitDone;
}

}  // namespace chorus
