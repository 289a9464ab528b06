#include "client/command_line.h"

#include <array>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

#include "client/commands.h"
#include "client/flag_parser.h"

namespace chorus {
namespace {

struct Command {
  const char* name;
  const char* summary;
  int (*run)(const std::vector<std::string>& arguments, Console& console);
};

constexpr std::array kCommands = {
    Command{"ask", "asks a question in several wordings, prints the fused answer", RunAsk},
    Command{"score", "says how likely given answers are to a question in several wordings",
            RunScore},
    Command{"explain", "shows layout, mask and attention of a fused question", RunExplain},
    Command{"health", "says whether a server serves, by its exit code", RunHealth},
    Command{"info", "says which model is served, and its limits", RunInfo},
    Command{"tokenize", "prints the token ids of a text", RunTokenize},
    Command{"load", "asks many questions at a time, measures latency and throughput", RunLoad},
    Command{"mask", "draws an attention mask, counts what it allows; needs no server", RunMask},
    Command{"detokenize", "prints the text of token ids", RunDetokenize},
};

std::string Help() {
  std::string help =
      "Usage: chorus COMMAND [--server=HOST:PORT] ...\n\n"
      "Asks a Chorus server: one question in several wordings, one fused answer.\n\nCommands:\n";
  for (const Command& command : kCommands) {
    absl::StrAppendFormat(&help, "  %-11s %s\n", command.name, command.summary);
  }
  absl::StrAppend(
      &help,
      "\n'chorus COMMAND --help' explains the command's flags, with examples.\n"
      "--server is 127.0.0.1:50051 if it is not given.\n\nExamples:\n"
      "  chorus ask \"What is the capital of France?\" --paraphrase=\"Name France's capital.\"\n"
      "  chorus --server=gpu-host:50051 info --tls --ca=ca.pem --token_file=token\n\n"
      "Exit code: 0 done, 1 failure, 2 wrong usage.\n");
  return help;
}

int UnknownCommand(const std::string& word, Console& console) {
  std::vector<std::string> names;
  for (const Command& command : kCommands) names.push_back(command.name);
  const std::string nearest = NearestName(word, names);
  console.err << "chorus: unknown " << (absl::StartsWith(word, "-") ? "flag " : "command ") << word
              << (nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?"))
              << " (commands: " << absl::StrJoin(names, ", ") << "; 'chorus --help' explains)\n";
  return kExitUsage;
}

}  // namespace

int RunCommandLine(const std::vector<std::string>& arguments, Console& console) {
  size_t index = 0;
  std::vector<std::string> rest;
  if (index < arguments.size() && absl::StartsWith(arguments[index], "--server=")) {
    rest.push_back(arguments[index++]);
  } else if (index + 1 < arguments.size() && arguments[index] == "--server") {
    rest.push_back(absl::StrCat("--server=", arguments[index + 1]));
    index += 2;
  }
  if (index == arguments.size()) {
    console.err << Help();
    return kExitUsage;
  }
  const std::string word = arguments[index++];
  rest.insert(rest.end(), arguments.begin() + index, arguments.end());
  if (word == "--help" || word == "-h" || word == "help") {
    console.out << Help();
    return kExitDone;
  }
  for (const Command& command : kCommands) {
    if (word == command.name) return command.run(rest, console);
  }
  return UnknownCommand(word, console);
}

}  // namespace chorus
