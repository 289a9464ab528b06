#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace chorus {

// A file without a place on any disk (memfd), for a library that reads files only. Its content is
// replaced as a whole: who opens path() gets the old or the new, never a mixture. One thread.
class MemoryFile {
 public:
  static absl::StatusOr<MemoryFile> Create(std::string_view content);
  MemoryFile(MemoryFile&& other) noexcept : descriptor_(other.descriptor_) {
    other.descriptor_ = -1;
  }
  MemoryFile& operator=(MemoryFile&&) = delete;
  ~MemoryFile();

  // RESOURCE_EXHAUSTED, and the old content stays, if there is no memory or descriptor for it.
  absl::Status Replace(std::string_view content);

  // Of this process: the same for its whole life.
  std::string path() const;

 private:
  explicit MemoryFile(int descriptor) : descriptor_(descriptor) {}

  int descriptor_;
};

}  // namespace chorus
