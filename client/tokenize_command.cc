#include <algorithm>
#include <iterator>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "client/answer_json.h"
#include "client/commands.h"
#include "client/common_flags.h"
#include "core/base/status_macros.h"

namespace chorus {
namespace {

// One line a token: id, tab, spelling in the vocabulary.
std::string TokenLines(const v1::TokenizeResponse& response) {
  std::string lines;
  const int count = std::min(response.token_ids_size(), response.tokens_size());
  for (int i = 0; i < count; ++i) {
    absl::StrAppend(&lines, response.token_ids(i), "\t",
                    absl::Utf8SafeCHexEscape(response.tokens(i)), "\n");
  }
  return lines;
}

std::string ToText(const v1::TokenizeResponse& response, bool json, bool spellings) {
  if (json) {
    nlohmann::ordered_json object;
    object["token_ids"] =
        std::vector<int32_t>(response.token_ids().begin(), response.token_ids().end());
    object["tokens"] = std::vector<std::string>(response.tokens().begin(), response.tokens().end());
    return JsonLine(object);
  }
  if (spellings) return TokenLines(response);
  return absl::StrCat(absl::StrJoin(response.token_ids(), " "), "\n");
}

}  // namespace

int RunTokenize(const std::vector<std::string>& arguments, Console& console) {
  CommonFlags flags;
  bool special = false;
  bool spellings = false;
  FlagParser parser("chorus tokenize", "TEXT|- [flags]",
                    "Prints the token ids of a text, or of standard input for -, on one line.");
  parser.AddSection("Tokens:");
  parser.AddSwitch("special", "spellings of special tokens become those tokens", &special);
  parser.AddSwitch("spellings", "one line a token: id, tab, spelling", &spellings);
  flags.AddTo(parser);
  parser.AddEpilogue(
      "--json prints token_ids and tokens (their spellings).\n\nExamples:\n"
      "  chorus tokenize \"Hello world\"\n  chorus tokenize --special --spellings "
      "\"<|im_start|>user\"\n"
      "  chorus tokenize - < prompt.txt");
  const WordCount count = {.min = 1, .max = 1, .missing = "no text; - reads standard input"};
  std::vector<std::string> words;
  if (const auto code = ParseOrExit(parser, arguments, count, "chorus tokenize", console, &words)) {
    return *code;
  }
  std::string text = words.front();
  if (text == "-") text.assign(std::istreambuf_iterator<char>(console.in), {});
  return WithClient(flags, console, [&](ChorusClient& client) -> absl::Status {
    CHORUS_ASSIGN_OR_RETURN(const v1::TokenizeResponse response, client.Tokenize(text, special));
    console.out << ToText(response, flags.json, spellings);
    return absl::OkStatus();
  });
}

}  // namespace chorus
