#include "core/segment/mask_validation.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "core/base/check.h"
#include "core/base/field_error.h"
#include "core/segment/token_ranges.h"

namespace chorus {
namespace {

constexpr int32_t kLastIndex = std::numeric_limits<int32_t>::max();

absl::Status Fault(const char* property, int32_t row, int32_t key, const std::string& rule) {
  return FieldError(property, absl::StrCat("row ", row, ", key ", key), rule);
}

// Tokens [first, end) as keys of a matrix whose key 0 is token `offset`.
TokenRange ToKeys(int64_t first, int64_t end, int32_t offset) {
  const auto to_key = [&](int64_t token) {
    return static_cast<int32_t>(std::clamp<int64_t>(token - offset, 0, kLastIndex));
  };
  return {to_key(first), to_key(end)};
}

// The first key of a row that is in none of the `permitted` ranges, which ascend.
std::optional<int32_t> FirstOutside(absl::Span<const TokenRange> keys,
                                    absl::Span<const TokenRange> permitted) {
  for (const TokenRange& range : keys) {
    int32_t key = range.begin;
    for (const TokenRange& allowed : permitted) {
      if (allowed.begin <= key && key < allowed.end) key = allowed.end;
    }
    if (key < range.end) return key;
  }
  return std::nullopt;
}

}  // namespace

absl::Status ValidateCausal(const MaskRows& rows, const MaskOffsets& offsets) {
  for (int32_t q = 0; q < rows.num_queries(); ++q) {
    const TokenRange permitted = ToKeys(0, int64_t{q} + offsets.query + 1, offsets.key);
    if (const auto key = FirstOutside(rows.KeysOf(q), {permitted})) {
      return Fault("causal", q, *key, "a row may see no key after itself");
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateSlidingWindow(const MaskRows& rows, int32_t window,
                                   const MaskOffsets& offsets) {
  CHECK(window >= 1);
  for (int32_t q = 0; q < rows.num_queries(); ++q) {
    const int64_t token = int64_t{q} + offsets.query;
    const TokenRange permitted = ToKeys(token - window + 1, token + 1, offsets.key);
    if (const auto key = FirstOutside(rows.KeysOf(q), {permitted})) {
      return Fault("sliding_window", q, *key,
                   absl::StrCat("a row may see itself and the ", window - 1, " keys before it"));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateChunked(const MaskRows& rows, int32_t chunk_length,
                             const MaskOffsets& offsets) {
  CHECK(chunk_length >= 1);
  for (int32_t q = 0; q < rows.num_queries(); ++q) {
    const int64_t token = int64_t{q} + offsets.query;
    const int64_t begin = token - token % chunk_length;
    const TokenRange permitted = ToKeys(begin, begin + chunk_length, offsets.key);
    if (const auto key = FirstOutside(rows.KeysOf(q), {permitted})) {
      return Fault("chunked", q, *key,
                   absl::StrCat("a row may see its own chunk of ", chunk_length, " tokens only"));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateSegmentIsolated(const MaskRows& rows, const SegmentLayout& layout,
                                     const MaskOffsets& offsets) {
  const TokenRange prefix = ToKeys(0, layout.prefix_length(), offsets.key);
  for (int32_t q = 0; q < rows.num_queries(); ++q) {
    const int64_t token = int64_t{q} + offsets.query;
    if (token >= layout.original_length()) break;
    const int32_t segment = layout.SegmentOf(static_cast<int32_t>(token));
    std::vector<TokenRange> permitted;
    if (segment >= 0 || token < layout.prefix_length()) permitted.push_back(prefix);
    if (segment >= 0) {
      const TokenRange& own = layout.segments()[segment];
      permitted.push_back(ToKeys(own.begin, own.end, offsets.key));
    }
    if (const auto key = FirstOutside(rows.KeysOf(q), permitted)) {
      return Fault("segment_isolated", q, *key,
                   "a row before original_length may see its own segment and the prefix only");
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateNoEmptyRow(const MaskRows& rows) {
  for (int32_t q = 0; q < rows.num_queries(); ++q) {
    if (rows.KeysOf(q).empty()) {
      return FieldError("no_empty_row", absl::StrCat("row ", q), "every row must see a key");
    }
  }
  return absl::OkStatus();
}

}  // namespace chorus
