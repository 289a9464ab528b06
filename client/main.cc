#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include <grpc/support/log.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client/command_line.h"

namespace {

// NO_COLOR (no-color.org): set and not empty means no colours. A dumb terminal knows none.
bool WantsColours() {
  const char* no_color = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  const bool is_forbidden = no_color != nullptr && *no_color != '\0';
  return !is_forbidden && terminal != nullptr && std::string_view(terminal) != "dumb";
}

// Columns of the terminal on standard output; 0 if it is none, or does not say.
int TerminalWidth() {
  winsize size = {};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

}  // namespace

int main(int argc, char** argv) {
  // gRPC would write lines of its own to stderr. What matters of them comes back as an error.
  gpr_set_log_function([](gpr_log_func_args*) {});
  const bool is_terminal = isatty(STDOUT_FILENO) != 0;
  chorus::Console console = {.in = std::cin,
                             .out = std::cout,
                             .err = std::cerr,
                             .is_terminal = is_terminal,
                             .has_colours = is_terminal && WantsColours(),
                             .err_is_terminal = isatty(STDERR_FILENO) != 0,
                             .width = TerminalWidth()};
  const int code = chorus::RunCommandLine(std::vector<std::string>(argv + 1, argv + argc), console);
  std::cout.flush();
  if (std::cout) return code;
  std::cerr << "chorus: cannot write to standard output\n";
  return chorus::kExitFailure;
}
