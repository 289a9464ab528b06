#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "client/flag_values.h"

namespace chorus {

// The flags of one command: parsing and help.
//
// Why not a library: absl::flags are global, so they cannot belong to one command, and they cannot
// repeat. CLI11 was tried: it reads "--prefix=" (which means: an empty prefix) as "the value is
// the next word", and splits a value like "[a,b]" at the comma; a prompt must arrive as written.
//
// "--name=value" and "--name value" both set a flag; a switch has no value ("--json", or
// "--json=false"). "--" ends the flags. What is left are the words. Flags may stand anywhere.
// One thread; the setters' targets must outlive Parse.
class FlagParser {
 public:
  // command: "chorus ask". usage: the words after it, for the help. intro: what it does.
  FlagParser(std::string command, std::string usage, std::string intro);

  // A heading in the help, over the flags that are added after it.
  void AddSection(std::string title);
  // A flag with a value; value_name stands in the help ("N", "TEXT").
  void AddFlag(std::string name, std::string value_name, std::string help, FlagSetter setter);
  // A flag that is on or off.
  void AddSwitch(std::string name, std::string help, bool* target);
  // Text at the end of the help: examples, keys.
  void AddEpilogue(std::string text);

  struct Result {
    std::vector<std::string> words;
    bool wants_help = false;  // --help or -h: nothing after it was looked at
  };
  // INVALID_ARGUMENT with one line for an unknown flag, a missing or a wrong value.
  absl::StatusOr<Result> Parse(const std::vector<std::string>& arguments) const;

  std::string Help() const;

 private:
  struct Flag {
    std::string section;
    std::string name;
    std::string value_name;  // empty for a switch
    std::string help;
    FlagSetter setter;

    bool is_switch() const { return value_name.empty(); }
  };

  const Flag* Find(absl::string_view name) const;
  absl::Status UnknownFlag(absl::string_view argument) const;

  std::string command_;
  std::string usage_;
  std::string intro_;
  std::string section_;
  std::string epilogue_;
  std::vector<Flag> flags_;
};

// The entry of `names` nearest to `word`, if it is near enough to be a slip of the keyboard;
// otherwise empty.
std::string NearestName(absl::string_view word, const std::vector<std::string>& names);

}  // namespace chorus
