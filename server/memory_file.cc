#include "server/memory_file.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"

namespace chorus {
namespace {

absl::Status Failed(const char* call) {
  return absl::ResourceExhaustedError(absl::StrCat(call, ": ", std::strerror(errno)));
}

// A new descriptor of a file with `content`.
absl::StatusOr<int> Write(std::string_view content) {
  const int descriptor = memfd_create("chorus", MFD_CLOEXEC);
  if (descriptor < 0) return Failed("memfd_create");
  while (!content.empty()) {
    const ssize_t written = write(descriptor, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const absl::Status status = Failed("write");
      close(descriptor);
      return status;
    }
    content.remove_prefix(written);
  }
  return descriptor;
}

}  // namespace

absl::StatusOr<MemoryFile> MemoryFile::Create(std::string_view content) {
  CHORUS_ASSIGN_OR_RETURN(const int descriptor, Write(content));
  return MemoryFile(descriptor);
}

MemoryFile::~MemoryFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::Status MemoryFile::Replace(std::string_view content) {
  CHORUS_ASSIGN_OR_RETURN(const int fresh, Write(content));
  // Puts the new file under the old number in one step.
  const bool done = dup3(fresh, descriptor_, O_CLOEXEC) >= 0;
  const absl::Status status = done ? absl::OkStatus() : Failed("dup3");
  close(fresh);
  return status;
}

std::string MemoryFile::path() const { return absl::StrCat("/proc/self/fd/", descriptor_); }

}  // namespace chorus
