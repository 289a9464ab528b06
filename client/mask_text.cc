#include "client/mask_text.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace chorus {
namespace {

constexpr int kDefaultTextBytes = 60;
constexpr int kTableColumns = 36;  // of the segment table, before texts

// The texts of tokens [begin, end), escaped and cut; empty without a real prompt.
std::string Excerpt(const MaskSubject& subject, TokenRange range, int max_bytes) {
  std::string text;
  const auto num_texts = static_cast<int32_t>(subject.token_texts.size());
  for (int32_t i = range.begin; i < std::min(range.end, num_texts); ++i) {
    text += subject.token_texts[i];
    if (static_cast<int>(text.size()) > 4 * max_bytes) break;
  }
  std::string escaped = absl::Utf8SafeCHexEscape(text);
  if (static_cast<int>(escaped.size()) > max_bytes) {
    size_t cut = std::max(0, max_bytes - 3);
    while (cut > 0 && (escaped[cut] & 0xC0) == 0x80) --cut;  // not inside a character
    escaped = escaped.substr(0, cut) + "...";
  }
  return escaped;
}

void AppendSegmentLine(const MaskSubject& subject, const std::string& name, TokenRange range,
                       int max_bytes, std::string* out) {
  if (range.length() == 0) return;
  std::string line =
      absl::StrFormat("%-12s%8d%8d%8d", name, range.begin, range.end, range.length());
  const std::string excerpt = Excerpt(subject, range, max_bytes);
  absl::StrAppend(out, line, excerpt.empty() ? "" : "  ", excerpt, "\n");
}

std::string Pairs(int64_t allowed, int64_t total) {
  return absl::StrFormat("%d of %d pairs (%.1f %%)", allowed, total,
                         100.0 * static_cast<double>(allowed) / static_cast<double>(total));
}

// "0-14, 17": the last key is shown, as a reader expects of "to". Of very many the first few.
std::string Spans(absl::Span<const TokenRange> ranges) {
  constexpr size_t kMaxSpans = 8;
  std::string text = absl::StrJoin(ranges.subspan(0, kMaxSpans), ", ",
                                   [](std::string* out, const TokenRange& range) {
                                     absl::StrAppend(out, range.begin);
                                     if (range.length() > 1)
                                       absl::StrAppend(out, "-", range.end - 1);
                                   });
  if (ranges.size() > kMaxSpans) {
    absl::StrAppend(&text, " and ", ranges.size() - kMaxSpans, " ranges more (--json lists all)");
  }
  return text;
}

}  // namespace

std::string SegmentTable(const MaskView& view, int width) {
  const MaskSubject& subject = view.subject;
  const int max_bytes =
      width == 0 ? kDefaultTextBytes : std::clamp(width - kTableColumns - 2, 8, kDefaultTextBytes);
  std::string table = absl::StrFormat("%-12s%8s%8s%8s\n", "segment", "begin", "end", "tokens");
  const auto append = [&](const std::string& name, TokenRange range) {
    AppendSegmentLine(subject, name, range, max_bytes, &table);
  };
  int32_t index = subject.layout.prefix_length();
  append("prefix", {0, index});
  for (size_t i = 0; i < subject.layout.segments().size(); ++i) {
    const TokenRange& segment = subject.layout.segments()[i];
    append("separator", {index, segment.begin});
    append(absl::StrCat(i + 1), segment);
    index = segment.end;
  }
  append("separator", {index, subject.layout.original_length()});
  append("suffix",
         {subject.layout.original_length(),
          subject.token_ids.empty() ? subject.layout.original_length() : subject.layout.length()});
  append("generated",
         {subject.token_ids.empty() ? subject.layout.original_length() : subject.layout.length(),
          subject.length});
  return table;
}

std::string StatisticsText(const MaskView& view) {
  const MaskStatistics& statistics = view.statistics;
  int64_t num_masked = 0;
  for (const TokenRange& rows : statistics.fully_masked_rows) num_masked += rows.length();
  std::string text;
  absl::StrAppendFormat(&text, "length           %d\noriginal_length  %d\n", view.subject.length,
                        view.subject.layout.original_length());
  absl::StrAppendFormat(&text, "allowed          %s\n",
                        Pairs(statistics.allowed, statistics.total));
  absl::StrAppendFormat(&text, "shown            %d of %d positions (%.1f %%): %s\n",
                        view.positions.size(), view.subject.length, 100.0 * view.sampling_rate(),
                        Pairs(view.shown_allowed, view.shown_total()));
  absl::StrAppendFormat(&text, "fully masked     %d rows%s%s\n", num_masked,
                        num_masked == 0 ? "" : ": ", Spans(statistics.fully_masked_rows));
  absl::StrAppendFormat(&text, "tiles of %-8d%d, %d empty (skipped), %d full\n",
                        statistics.tile_size.queries, statistics.tiles, statistics.tiles_skipped,
                        statistics.tiles_full);
  return text;
}

std::string QueriesText(const MaskView& view) {
  std::string text = absl::StrFormat("%-17s%8s  %s\n", "query", "row", "may see");
  for (const RepresentativeQuery& query : view.queries) {
    const int64_t allowed = view.rows.CountAllowed(query.query);
    absl::StrAppendFormat(&text, "%-17s%8d  %d of %d keys (%.1f %%)%s%s\n", query.name, query.query,
                          allowed, view.subject.length,
                          100.0 * static_cast<double>(allowed) / view.subject.length,
                          allowed == 0 ? "" : ": ", Spans(view.rows.KeysOf(query.query)));
  }
  return text;
}

}  // namespace chorus
