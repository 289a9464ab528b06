#include "client/mask_json.h"

#include <utility>

#include "absl/types/span.h"

namespace chorus {
namespace {

using Json = nlohmann::ordered_json;

Json RangesJson(absl::Span<const TokenRange> ranges) {
  Json list = Json::array();
  for (const TokenRange& range : ranges) list.push_back({range.begin, range.end});
  return list;
}

Json RowIntervalsJson(const RowIntervals& intervals) {
  Json list = Json::array();
  for (const RowIntervals::Run& run : intervals.runs()) {
    Json keys = Json::array();
    for (const KeyInterval& interval : run.keys) keys.push_back({interval.begin, interval.end});
    list.push_back({{"begin", run.rows.begin}, {"end", run.rows.end}, {"keys", std::move(keys)}});
  }
  return list;
}

Json TilesJson(const MaskStatistics& statistics) {
  return {{"size", statistics.tile_size.queries},
          {"total", statistics.tiles},
          {"skipped", statistics.tiles_skipped},
          {"full", statistics.tiles_full}};
}

Json QueriesJson(const MaskView& view) {
  Json list = Json::array();
  for (const RepresentativeQuery& query : view.queries) {
    const int64_t allowed = view.rows.CountAllowed(query.query);
    list.push_back({{"name", query.name},
                    {"query", query.query},
                    {"allowed", allowed},
                    {"ratio", static_cast<double>(allowed) / view.subject.length},
                    {"keys", RangesJson(view.rows.KeysOf(query.query))}});
  }
  return list;
}

Json ShownJson(const MaskView& view) {
  Json matrix = Json::array();
  for (const int32_t query : view.positions) {
    Json row = Json::array();
    for (const int32_t key : view.positions) row.push_back(view.rows.Allows(query, key) ? 1 : 0);
    matrix.push_back(std::move(row));
  }
  return {{"mode", view.is_full ? "full" : "sampled"},
          {"positions", view.positions},
          {"labels", view.labels},
          {"matrix", std::move(matrix)},
          {"allowed", view.shown_allowed},
          {"total", view.shown_total()},
          {"ratio", static_cast<double>(view.shown_allowed) / view.shown_total()},
          {"sampling_rate", view.sampling_rate()}};
}

}  // namespace

nlohmann::ordered_json MaskJson(const MaskView& view) {
  const MaskSubject& subject = view.subject;
  Json allowed_per_row = Json::array();
  for (int32_t q = 0; q < subject.length; ++q) allowed_per_row.push_back(view.rows.CountAllowed(q));
  return {{"layout", subject.name},
          {"length", subject.length},
          {"original_length", subject.layout.original_length()},
          {"prefix_length", subject.layout.prefix_length()},
          {"segments", RangesJson(subject.layout.segments())},
          {"allowed", view.statistics.allowed},
          {"total", view.statistics.total},
          {"ratio", view.statistics.ratio()},
          {"allowed_per_row", std::move(allowed_per_row)},
          {"fully_masked_rows", RangesJson(view.statistics.fully_masked_rows)},
          {"row_intervals", RowIntervalsJson(view.row_intervals)},
          {"tiles", TilesJson(view.statistics)},
          {"queries", QueriesJson(view)},
          {"shown", ShownJson(view)},
          {"token_ids", subject.token_ids},
          {"tokens", subject.token_texts}};
}

}  // namespace chorus
