#pragma once

// CHECK(condition): ends the process with file, line and text when one of our own invariants is
// broken. Never for bad input, which is a Status. absl 20220623 has no CHECK of its own.

namespace chorus::internal {
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);
}  // namespace chorus::internal

#define CHECK(condition)                                                 \
  do {                                                                   \
    if (!(condition)) [[unlikely]]                                       \
      ::chorus::internal::CheckFailed(#condition, __FILE__, __LINE__);   \
  } while (false)
