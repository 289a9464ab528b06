#pragma once

#include <string>
#include <vector>

#include "client/console.h"

namespace chorus {

// The whole `chorus` command. `arguments` are the words after the program's name; --server may
// stand before the command too. Returns the exit code.
int RunCommandLine(const std::vector<std::string>& arguments, Console& console);

}  // namespace chorus
