#pragma once

#include <istream>
#include <ostream>

namespace chorus {

// Where a command reads and writes. Owned by main (by a test in tests), one thread.
struct Console {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool is_terminal = false;      // `out` is a terminal: statistics and headings beside the answer
  bool has_colours = false;      // only ever true on a terminal
  bool err_is_terminal = false;  // `err` is one: progress is redrawn there
  int width = 0;                 // columns of a terminal; 0: `out` is none, lines may be long
};

// Exit codes of the command.
inline constexpr int kExitDone = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;

}  // namespace chorus
