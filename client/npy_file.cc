#include "client/npy_file.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "core/base/field_error.h"

namespace chorus {
namespace {

constexpr int64_t kMaxCells = int64_t{1} << 32;

// Magic, version 1.0, the length of the rest as 16 bits little-endian, a Python literal padded with
// spaces and ended by a newline so that the data begins at a multiple of 64 bytes.
std::string Header(const MaskRows& rows) {
  constexpr size_t kFixedBytes = 10, kAlignment = 64;
  std::string description =
      absl::StrFormat("{'descr': '|b1', 'fortran_order': False, 'shape': (%d, %d), }",
                      rows.num_queries(), rows.num_keys());
  const size_t unpadded = kFixedBytes + description.size() + 1;
  description.append((kAlignment - unpadded % kAlignment) % kAlignment, ' ');
  description += '\n';
  std::string header = "\x93NUMPY";
  header += '\x01';
  header += '\x00';
  header += static_cast<char>(description.size() & 0xFF);
  header += static_cast<char>(description.size() >> 8);
  return header + description;
}

}  // namespace

absl::Status WriteNpy(const std::string& path, const MaskRows& rows) {
  if (int64_t{rows.num_queries()} * rows.num_keys() > kMaxCells) {
    return FieldError("--npy", absl::StrCat(rows.num_queries(), " x ", rows.num_keys(), " cells"),
                      absl::StrCat("must be at most ", kMaxCells, " cells, a byte each"));
  }
  errno = 0;
  std::ofstream file(path, std::ios::binary);
  file << Header(rows);
  std::string row(rows.num_keys(), '\0');
  for (int32_t q = 0; q < rows.num_queries() && file; ++q) {
    std::fill(row.begin(), row.end(), '\0');
    for (const TokenRange& keys : rows.KeysOf(q)) {
      std::fill(row.begin() + keys.begin, row.begin() + keys.end, '\x01');
    }
    file << row;
  }
  file.close();
  if (file) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cannot write ", path, ": ", std::strerror(errno)));
}

}  // namespace chorus
