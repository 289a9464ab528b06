#include "core/segment/padding_form.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

#include "core/base/field_error.h"
#include "core/base/status_macros.h"
#include "core/segment/token_ranges.h"

namespace chorus {
namespace {

// The first key of which two sets differ, which are known to differ.
int32_t FirstDifference(absl::Span<const TokenRange> a, absl::Span<const TokenRange> b) {
  size_t i = 0;
  while (i < a.size() && i < b.size() && a[i] == b[i]) ++i;
  if (i == a.size()) return b[i].begin;
  if (i == b.size()) return a[i].begin;
  if (a[i].begin != b[i].begin) return std::min(a[i].begin, b[i].begin);
  return std::min(a[i].end, b[i].end);
}

absl::Status Check(const MaskRows& rows, size_t entry, absl::Span<const TokenRange> valid,
                   bool is_causal) {
  const int32_t num_cached = rows.num_keys() - rows.num_queries();
  for (int32_t q = 0; q < rows.num_queries(); ++q) {
    const int32_t end = is_causal ? std::max(0, num_cached + q + 1) : rows.num_keys();
    std::vector<TokenRange> expected;
    AppendClipped(valid, {0, end}, &expected);
    const absl::Span<const TokenRange> keys = rows.KeysOf(q);
    if (keys == absl::MakeConstSpan(expected)) continue;
    const int32_t key = FirstDifference(keys, expected);
    return FieldError("padding", absl::StrCat("batch entry ", entry, ", row ", q, ", key ", key),
                      absl::StrCat("a row that ", Contains(keys, key) ? "sees" : "does not see",
                                   " this key is not what padding ",
                                   is_causal ? "and causality" : "alone", " would make"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PaddingForm> ToPadding(absl::Span<const MaskRows> batch) {
  std::vector<std::vector<TokenRange>> valid;
  for (const MaskRows& rows : batch) valid.push_back(rows.SeenKeys());
  const auto check_all = [&](bool is_causal) -> absl::Status {
    for (size_t entry = 0; entry < batch.size(); ++entry) {
      CHORUS_RETURN_IF_ERROR(Check(batch[entry], entry, valid[entry], is_causal));
    }
    return absl::OkStatus();
  };
  PaddingForm form;
  if (absl::Status causal = check_all(/*is_causal=*/true); !causal.ok()) {
    if (!check_all(/*is_causal=*/false).ok()) return causal;
    form.is_causal = false;
  }
  for (size_t entry = 0; entry < batch.size(); ++entry) {
    const size_t begin = form.valid.size();
    form.valid.resize(begin + batch[entry].num_keys(), 0);
    for (const TokenRange& keys : valid[entry]) {
      std::fill_n(form.valid.begin() + begin + keys.begin, keys.length(), 1);
    }
  }
  return form;
}

}  // namespace chorus
