#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace chorus {

// A file mapped for reading. Thread-safe. The file must not shrink while it is mapped: reading past
// its new end would end the process (SIGBUS), as with every memory map.
class MappedFile {
 public:
  // NOT_FOUND: cannot be opened. INVALID_ARGUMENT: not a regular file, or empty.
  static absl::StatusOr<std::unique_ptr<const MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

  // Takes whole pages of [begin, end) out of the resident set; they are read again when touched.
  void Release(size_t begin, size_t end) const;

 private:
  MappedFile(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  const uint8_t* data_;
  size_t size_;
};

// The whole of a small text file. NOT_FOUND: cannot be read. INVALID_ARGUMENT: above `max_bytes`.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, int64_t max_bytes);

}  // namespace chorus
