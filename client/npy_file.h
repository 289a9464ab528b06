#pragma once

#include <string>

#include "absl/status/status.h"

#include "core/segment/mask_rows.h"

namespace chorus {

// Writes a mask as a NumPy file (format 1.0, NEP 1): bool, [queries, keys], C order, row by row, so
// that memory holds one row. INVALID_ARGUMENT above 2^32 cells, INTERNAL with the system's reason
// if the file cannot be written.
//
// Why not a library: the header is one line. cnpy needs zlib and has had no change since 2018,
// libnpy is in no Debian release, xtensor brings an array library along.
absl::Status WriteNpy(const std::string& path, const MaskRows& rows);

}  // namespace chorus
