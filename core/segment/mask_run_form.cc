#include "core/segment/mask_run_form.h"

#include "absl/strings/str_cat.h"

#include "core/base/field_error.h"
#include "core/segment/token_ranges.h"

namespace chorus {
namespace {

// Is `keys` the part of `later_keys`, those of the next row, that a row sees at `query`? Then both
// rows can share the later one's keys, and by induction so can all rows of a run.
bool IsClipOf(absl::Span<const TokenRange> keys, absl::Span<const TokenRange> later_keys,
              int32_t query) {
  // A later row's ranges up to the query: all but what begins after it; only its last is cut.
  size_t count = later_keys.size();
  while (count > 0 && later_keys[count - 1].begin > query) --count;
  if (keys.size() != count) return false;
  for (size_t i = 0; i < count; ++i) {
    if (keys[i] != Clip(later_keys[i], {0, query + 1})) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<RowIntervals> ToRowIntervals(const MaskRows& rows) {
  if (rows.num_queries() != rows.num_keys()) {
    return FieldError("row_intervals",
                      absl::StrCat(rows.num_queries(), " queries and ", rows.num_keys(), " keys"),
                      "queries and keys must be the same tokens");
  }
  std::vector<RowIntervals::Run> runs;
  for (int32_t begin = 0, q = 0; q < rows.num_queries(); ++q) {
    const absl::Span<const TokenRange> keys = rows.KeysOf(q);
    if (!keys.empty() && keys.back().end > q + 1) {
      const int32_t key = keys.back().begin > q ? keys.back().begin : q + 1;
      return FieldError("row_intervals", absl::StrCat("row ", q, ", key ", key),
                        "a row may see no key after itself");
    }
    const bool is_shared = q + 1 < rows.num_queries() &&
                           keys.empty() == rows.KeysOf(q + 1).empty() &&
                           IsClipOf(keys, rows.KeysOf(q + 1), q);
    if (is_shared) continue;
    RowIntervals::Run run = {.rows = {begin, q + 1}};
    for (const TokenRange& range : keys) run.keys.push_back({range.begin, range.end, false});
    runs.push_back(std::move(run));
    begin = q + 1;
  }
  return RowIntervals::FromRuns(std::move(runs));
}

}  // namespace chorus
