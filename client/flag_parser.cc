#include "client/flag_parser.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

#include "core/base/status_macros.h"

namespace chorus {
namespace {

constexpr size_t kHelpColumn = 34;
constexpr size_t kHelpWidth = 98;
constexpr size_t kMaxSlips = 2;  // letters changed, added or lost in a name still recognised

// Levenshtein distance.
size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t changed = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({changed, diagonal + 1, row[j] + 1});
    }
  }
  return row.back();
}

// `text` broken at spaces so that it fits right of kHelpColumn; the first line starts at `column`.
std::string Wrapped(absl::string_view text, size_t column) {
  std::string out;
  if (column + 1 > kHelpColumn) {
    out = "\n";
    column = 0;
  }
  for (const absl::string_view word : absl::StrSplit(text, ' ')) {
    if (column > kHelpColumn && column + 1 + word.size() > kHelpWidth) {
      out += "\n";
      column = 0;
    }
    const std::string gap(column < kHelpColumn ? kHelpColumn - column : 1, ' ');
    absl::StrAppend(&out, gap, word);
    column += gap.size() + word.size();
  }
  return out + "\n";
}

// "-" (standard input) and "-5" are words; any other dash begins a flag.
bool IsWord(const std::string& argument) {
  return argument.size() < 2 || argument[0] != '-' || absl::ascii_isdigit(argument[1]);
}

FlagSetter IntoBool(bool* target) {
  return [target](const std::string& value) -> absl::Status {
    if (value != "true" && value != "false") {
      return absl::InvalidArgumentError("is not one of true, false");
    }
    *target = value == "true";
    return absl::OkStatus();
  };
}

}  // namespace

FlagParser::FlagParser(std::string command, std::string usage, std::string intro)
    : command_(std::move(command)), usage_(std::move(usage)), intro_(std::move(intro)) {}

void FlagParser::AddSection(std::string title) { section_ = std::move(title); }

void FlagParser::AddFlag(std::string name, std::string value_name, std::string help,
                         FlagSetter setter) {
  flags_.push_back(
      {section_, std::move(name), std::move(value_name), std::move(help), std::move(setter)});
}

void FlagParser::AddSwitch(std::string name, std::string help, bool* target) {
  flags_.push_back(
      {section_, std::move(name), /*value_name=*/"", std::move(help), IntoBool(target)});
}

void FlagParser::AddEpilogue(std::string text) { epilogue_ = std::move(text); }

const FlagParser::Flag* FlagParser::Find(absl::string_view name) const {
  const auto found = std::find_if(flags_.begin(), flags_.end(),
                                  [&](const Flag& flag) { return flag.name == name; });
  return found == flags_.end() ? nullptr : &*found;
}

absl::Status FlagParser::UnknownFlag(absl::string_view argument) const {
  std::vector<std::string> names;
  for (const Flag& flag : flags_) names.push_back(flag.name);
  const std::string nearest = NearestName(absl::StripPrefix(argument, "--"), names);
  const std::string hint = nearest.empty() ? "" : absl::StrCat("; did you mean --", nearest, "?");
  return absl::InvalidArgumentError(
      absl::StrCat("unknown flag ", argument, hint, " ('", command_, " --help' lists all)"));
}

absl::StatusOr<FlagParser::Result> FlagParser::Parse(
    const std::vector<std::string>& arguments) const {
  Result result;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--") {
      result.words.insert(result.words.end(), arguments.begin() + i + 1, arguments.end());
      break;
    }
    if (argument == "--help" || argument == "-h") {
      result.wants_help = true;
      break;
    }
    if (IsWord(argument)) {
      result.words.push_back(argument);
      continue;
    }
    if (!absl::StartsWith(argument, "--")) return UnknownFlag(argument);
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(argument.substr(2), absl::MaxSplits('=', 1));
    const Flag* flag = Find(parts.first);
    if (flag == nullptr) return UnknownFlag(absl::StrCat("--", parts.first));
    std::string value = parts.second;
    if (!absl::StrContains(argument, '=')) {
      if (flag->is_switch()) {
        value = "true";
      } else if (i + 1 < arguments.size()) {
        value = arguments[++i];
      } else {
        return absl::InvalidArgumentError(absl::StrCat("--", flag->name, " needs a value: --",
                                                       flag->name, "=", flag->value_name));
      }
    }
    if (const absl::Status status = flag->setter(value); !status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", flag->name, "=", value, " ", status.message()));
    }
  }
  return result;
}

std::string FlagParser::Help() const {
  std::string help = absl::StrCat("Usage: ", command_, " ", usage_, "\n\n", intro_, "\n");
  std::string section;
  for (const Flag& flag : flags_) {
    if (flag.section != section) {
      section = flag.section;
      absl::StrAppend(&help, "\n", section, "\n");
    }
    std::string line = absl::StrCat("  --", flag.name);
    if (!flag.is_switch()) absl::StrAppend(&line, "=", flag.value_name);
    absl::StrAppend(&help, line, Wrapped(flag.help, line.size()));
  }
  if (!epilogue_.empty()) absl::StrAppend(&help, "\n", epilogue_, "\n");
  return help;
}

std::string NearestName(absl::string_view word, const std::vector<std::string>& names) {
  std::string nearest;
  size_t best = kMaxSlips + 1;
  for (const std::string& name : names) {
    const size_t distance = EditDistance(word, name);
    if (distance < best && distance < name.size()) {
      best = distance;
      nearest = name;
    }
  }
  return nearest;
}

}  // namespace chorus
