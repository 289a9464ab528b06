#pragma once

#include <string>

#include "absl/status/status.h"

namespace chorus {

// Writes {"grpc": PORT, "metrics": PORT} to `path`, whole or not at all (a reader never sees half a
// file). `metrics_port` 0: no metrics page. UNAVAILABLE if the file cannot be written.
absl::Status WritePortFile(const std::string& path, int grpc_port, int metrics_port);

}  // namespace chorus
