#pragma once

#include <string>

#include "absl/status/status.h"

namespace chorus {

// Where a server listens; 0: it has no such port.
struct Ports {
  int grpc = 0;
  int metrics = 0;
  int health = 0;
};

// Writes {"grpc": PORT, "metrics": PORT, "health": PORT} to `path`, whole or not at all (a reader
// never sees half a file). UNAVAILABLE if the file cannot be written.
absl::Status WritePortFile(const std::string& path, const Ports& ports);

}  // namespace chorus
