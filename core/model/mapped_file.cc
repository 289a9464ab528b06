#include "core/model/mapped_file.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace chorus {
namespace {

absl::StatusOr<const uint8_t*> Map(int descriptor, const std::string& path, size_t& size) {
  struct stat information;
  if (fstat(descriptor, &information) != 0 || !S_ISREG(information.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is not a regular file"));
  }
  size = static_cast<size_t>(information.st_size);
  if (size == 0) return absl::InvalidArgumentError(absl::StrCat(path, ": is empty"));
  void* data = mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": cannot be mapped: ", std::strerror(errno)));
  }
  return static_cast<const uint8_t*>(data);
}

}  // namespace

absl::StatusOr<std::unique_ptr<const MappedFile>> MappedFile::Open(const std::string& path) {
  // Without O_NONBLOCK a named pipe would wait for its writer.
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot be opened: ", std::strerror(errno)));
  }
  size_t size = 0;
  const auto data = Map(descriptor, path, size);
  close(descriptor);  // the mapping keeps the file
  if (!data.ok()) return data.status();
  return std::unique_ptr<const MappedFile>(new MappedFile(*data, size));
}

MappedFile::~MappedFile() { munmap(const_cast<uint8_t*>(data_), size_); }

void MappedFile::Release(size_t begin, size_t end) const {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t first = (begin + page - 1) / page * page;
  const size_t last = end / page * page;
  if (first < last) madvise(const_cast<uint8_t*>(data_) + first, last - first, MADV_DONTNEED);
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path, int64_t max_bytes) {
  auto file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  if (static_cast<int64_t>((*file)->size()) > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", (*file)->size(), " bytes are more than the limit of ", max_bytes));
  }
  return std::string(reinterpret_cast<const char*>((*file)->data()), (*file)->size());
}

}  // namespace chorus
