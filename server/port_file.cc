#include "server/port_file.h"

#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace chorus {

absl::Status WritePortFile(const std::string& path, const Ports& ports) {
  const std::string temporary = absl::StrCat(path, ".partial");
  {
    std::ofstream file(temporary);
    file << "{\"grpc\": " << ports.grpc << ", \"metrics\": " << ports.metrics
         << ", \"health\": " << ports.health << "}\n";
    file.close();
    if (!file) {
      return absl::UnavailableError(
          absl::StrCat("cannot write --port_file=", path, ": name a file in a writable folder"));
    }
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::remove(temporary.c_str());
    return absl::UnavailableError(
        absl::StrCat("cannot write --port_file=", path, ": name a file in a writable folder"));
  }
  return absl::OkStatus();
}

}  // namespace chorus
