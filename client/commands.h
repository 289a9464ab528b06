#pragma once

#include <string>
#include <vector>

#include "client/console.h"

namespace chorus {

// The commands. `arguments` are the words after the command's name. Each prints its result on
// console.out, one line for an error on console.err, and returns the exit code.
int RunAsk(const std::vector<std::string>& arguments, Console& console);
int RunExplain(const std::vector<std::string>& arguments, Console& console);
int RunScore(const std::vector<std::string>& arguments, Console& console);
int RunHealth(const std::vector<std::string>& arguments, Console& console);
int RunInfo(const std::vector<std::string>& arguments, Console& console);
int RunTokenize(const std::vector<std::string>& arguments, Console& console);
int RunLoad(const std::vector<std::string>& arguments, Console& console);
int RunMask(const std::vector<std::string>& arguments, Console& console);
int RunDetokenize(const std::vector<std::string>& arguments, Console& console);

}  // namespace chorus
