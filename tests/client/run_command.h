#pragma once

#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "client/command_line.h"

namespace chorus {

// What a run of the `chorus` command gave.
struct Outcome {
  int code = 0;
  std::string out;
  std::string err;

  nlohmann::json json() const { return nlohmann::json::parse(out); }
};

// `chorus ARGUMENTS` in this process, with `input` as its standard input; no terminal.
inline Outcome RunChorus(const std::vector<std::string>& arguments, const std::string& input = "") {
  std::istringstream in(input);
  std::ostringstream out, err;
  Console console = {in, out, err};
  Outcome outcome;
  outcome.code = RunCommandLine(arguments, console);
  outcome.out = out.str();
  outcome.err = err.str();
  return outcome;
}

}  // namespace chorus
