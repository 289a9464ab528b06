#include "core/segment/varlen_form.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "absl/strings/str_cat.h"

#include "core/base/field_error.h"
#include "core/base/status_macros.h"

namespace chorus {
namespace {

absl::Status Refuse(size_t entry, int32_t row, absl::string_view why) {
  return FieldError("varlen", absl::StrCat("batch entry ", entry, ", row ", row), std::string(why));
}

// Appends the sequences of one batch entry; `num_kept[k]` kept tokens stand before token k.
absl::Status AppendSequences(const MaskRows& rows, size_t entry, VarlenForm* form) {
  std::vector<int32_t> num_kept(rows.num_keys() + 1, 0);
  for (const TokenRange& keys : rows.SeenKeys()) {
    for (int32_t k = keys.begin; k < keys.end; ++k) num_kept[k + 1] = 1;
  }
  std::partial_sum(num_kept.begin(), num_kept.end(), num_kept.begin());
  const auto kept_before = static_cast<int32_t>(form->token_indices.size());
  int32_t sequence_begin = 0;  // among the kept tokens of this entry
  for (int32_t q = 0; q < rows.num_queries(); ++q) {
    if (num_kept[q + 1] == num_kept[q]) continue;
    const absl::Span<const TokenRange> keys = rows.KeysOf(q);
    if (keys.empty()) return Refuse(entry, q, "other rows see this one, which sees no key");
    if (keys.back().end != q + 1) {
      return Refuse(entry, q,
                    absl::StrCat("sees key ", keys.back().end - 1, " last; it must be itself"));
    }
    for (size_t i = 1; i < keys.size(); ++i) {
      if (num_kept[keys[i - 1].end] == num_kept[keys[i].begin]) continue;
      return Refuse(entry, q,
                    absl::StrCat("does not see key ", keys[i].begin - 1, " or one before ",
                                 "it: a sequence must be one run of keys"));
    }
    const int32_t begin = num_kept[keys.front().begin];
    if (begin == num_kept[q]) {
      sequence_begin = begin;
      form->cumulative_lengths.push_back(kept_before + begin);
    } else if (begin != sequence_begin) {
      return Refuse(
          entry, q,
          absl::StrCat("begins at key ", keys.front().begin, ", unlike the row before it"));
    }
    form->token_indices.push_back(static_cast<int64_t>(entry) * rows.num_keys() + q);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<VarlenForm> ToVarlen(absl::Span<const MaskRows> batch) {
  VarlenForm form;
  for (size_t entry = 0; entry < batch.size(); ++entry) {
    const MaskRows& rows = batch[entry];
    if (rows.num_queries() != rows.num_keys()) {
      return FieldError("varlen",
                        absl::StrCat(rows.num_queries(), " queries and ", rows.num_keys(), " keys"),
                        "queries and keys must be the same tokens");
    }
    CHORUS_RETURN_IF_ERROR(AppendSequences(rows, entry, &form));
  }
  // The first entry of each sequence is its begin; the end of the last is the number of tokens.
  form.cumulative_lengths.push_back(static_cast<int32_t>(form.token_indices.size()));
  for (size_t i = 1; i < form.cumulative_lengths.size(); ++i) {
    form.max_length =
        std::max(form.max_length, form.cumulative_lengths[i] - form.cumulative_lengths[i - 1]);
  }
  return form;
}

}  // namespace chorus
