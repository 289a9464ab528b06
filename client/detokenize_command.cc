#include <limits>

#include "absl/strings/str_cat.h"

#include "client/answer_json.h"
#include "client/commands.h"
#include "client/common_flags.h"
#include "core/base/status_macros.h"

namespace chorus {

int RunDetokenize(const std::vector<std::string>& arguments, Console& console) {
  constexpr const char* kCommand = "chorus detokenize";
  CommonFlags flags;
  bool skip_special = false;
  FlagParser parser(kCommand, "ID... [flags]", "Prints the text of token ids.");
  parser.AddSection("Tokens:");
  parser.AddSwitch("skip_special", "leave special tokens out", &skip_special);
  flags.AddTo(parser);
  parser.AddEpilogue(
      "--json prints text.\n\nExamples:\n  chorus detokenize 19556 905\n"
      "  chorus detokenize 19556,905 --skip_special\n"
      "  chorus detokenize $(chorus tokenize \"Hello world\")");
  const WordCount count = {.min = 1,
                           .max = std::numeric_limits<size_t>::max(),
                           .missing = "no token ids; for example: chorus detokenize 19556 905"};
  std::vector<std::string> words;
  if (const auto code = ParseOrExit(parser, arguments, count, kCommand, console, &words)) {
    return *code;
  }
  std::vector<int32_t> token_ids;
  for (const std::string& word : words) {
    const absl::StatusOr<std::vector<int32_t>> ids = ParseTokenIds(word);
    if (!ids.ok()) {
      return UsageError(kCommand,
                        absl::InvalidArgumentError(absl::StrCat("'", word, "' is not a token id")),
                        console);
    }
    token_ids.insert(token_ids.end(), ids->begin(), ids->end());
  }
  return WithClient(flags, console, [&](ChorusClient& client) -> absl::Status {
    CHORUS_ASSIGN_OR_RETURN(const std::string text, client.Detokenize(token_ids, skip_special));
    console.out << (flags.json ? JsonLine({{"text", text}}) : absl::StrCat(text, "\n"));
    return absl::OkStatus();
  });
}

}  // namespace chorus
