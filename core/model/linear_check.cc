#include "core/model/linear_check.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "core/base/status_macros.h"

namespace chorus {
namespace {

// One row, rows that fill no tile, whole tiles, and several of them with a rest.
constexpr int32_t kRowCounts[] = {300, 100, 64, 17, 2, 1};
// All together: as many as a step has of the kind.
constexpr int32_t kMostOwnRows = 2048;
constexpr int32_t kMostFusedRows = 600;
constexpr int64_t kMaxOutputBytes = 64 << 20;
constexpr uint32_t kSeed = 20;
constexpr int64_t kInputBytes = 2;

// Numbers of magnitudes 1/128 to 2 with random mantissas: sums of their products are rounded, so
// another order gives other bits.
std::vector<uint16_t> RandomRows(DeviceType type, int64_t num_values) {
  const uint16_t smallest = type == DeviceType::kBFloat16 ? 0x3c00 : 0x2000;
  // Sign, the last three bits of the exponent, mantissa.
  const uint16_t random_bits = type == DeviceType::kBFloat16 ? 0x83ff : 0x9fff;
  std::mt19937 random(kSeed);
  std::vector<uint16_t> values(static_cast<size_t>(num_values));
  for (uint16_t& value : values) {
    value = static_cast<uint16_t>(smallest | (random() & random_bits));
  }
  return values;
}

int64_t RowBytes(const DeviceLinearArgs& product) {
  return int64_t{product.out_size} * (product.is_output_float32 ? 4 : 2);
}

// y of the first `num_rows` rows. What it held before cannot pass for a result.
absl::StatusOr<std::vector<std::byte>> Compute(DeviceStream& stream, DeviceLinearArgs args,
                                               int32_t num_rows) {
  std::vector<std::byte> y(static_cast<size_t>(num_rows * RowBytes(args)), std::byte{0xff});
  const auto num_bytes = static_cast<int64_t>(y.size());
  args.num_rows = num_rows;
  CHORUS_RETURN_IF_ERROR(stream.Upload(args.y, y.data(), num_bytes));
  CHORUS_RETURN_IF_ERROR(stream.Linear(args));
  CHORUS_RETURN_IF_ERROR(stream.Download(y.data(), args.y, num_bytes));
  return y;
}

// `rows` are args.num_rows rows, which go to `x` on the device; args.y has room for their results.
absl::StatusOr<bool> HaveSameBits(DeviceStream& stream, DeviceLinearArgs args,
                                  const std::vector<uint16_t>& rows, void* x) {
  CHORUS_RETURN_IF_ERROR(
      stream.Upload(x, rows.data(), static_cast<int64_t>(rows.size()) * kInputBytes));
  args.x = x;
  CHORUS_ASSIGN_OR_RETURN(const auto expected, Compute(stream, args, args.num_rows));
  for (const int32_t num_rows : kRowCounts) {
    if (num_rows >= args.num_rows) continue;
    CHORUS_ASSIGN_OR_RETURN(const auto found, Compute(stream, args, num_rows));
    if (std::memcmp(found.data(), expected.data(), found.size()) != 0) return false;
  }
  // A row that stands elsewhere in its batch.
  const int32_t last = args.num_rows - 1;
  args.x = static_cast<std::byte*>(x) + int64_t{last} * args.in_size * kInputBytes;
  CHORUS_ASSIGN_OR_RETURN(const auto found, Compute(stream, args, 1));
  return std::memcmp(found.data(), expected.data() + last * RowBytes(args), found.size()) == 0;
}

}  // namespace

absl::StatusOr<bool> HasRowInvariantBits(Device& device, DeviceStream& stream,
                                         const DeviceLinearArgs& product) {
  DeviceLinearArgs args = product;
  args.num_rows = static_cast<int32_t>(
      std::clamp<int64_t>(kMaxOutputBytes / RowBytes(product), 2,
                          product.kind == RowKind::kOwn ? kMostOwnRows : kMostFusedRows));
  const std::vector<uint16_t> rows =
      RandomRows(product.type, int64_t{args.num_rows} * product.in_size);
  CHORUS_ASSIGN_OR_RETURN(const auto x,
                          device.Allocate(static_cast<int64_t>(rows.size()) * kInputBytes));
  CHORUS_ASSIGN_OR_RETURN(const auto y, device.Allocate(args.num_rows * RowBytes(product)));
  args.y = y->data();
  const absl::StatusOr<bool> same = HaveSameBits(stream, args, rows, x->data());
  CHORUS_RETURN_IF_ERROR(stream.Wait());  // what an error left under way, before its memory goes
  return same;
}

}  // namespace chorus
