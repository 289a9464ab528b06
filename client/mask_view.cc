#include "client/mask_view.h"

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/field_error.h"
#include "core/base/status_macros.h"
#include "core/segment/layout_mask.h"

namespace chorus {
namespace {

constexpr int32_t kDefaultTileSize = 128;

absl::StatusOr<std::vector<int32_t>> ShownPositions(const MaskSubject& subject, bool is_full,
                                                    const MaskOptions& options) {
  if (!is_full) {
    return SamplePositions(subject.layout, subject.length,
                           {.max_positions = options.max_positions.value_or(subject.max_positions),
                            .includes_prefix = subject.samples_prefix});
  }
  if (subject.length > kMaxShownPositions) {
    return FieldError("--full", absl::StrCat(subject.length, " tokens"),
                      absl::StrCat("a picture shows at most ", kMaxShownPositions,
                                   "; --sampled shows some, --npy writes all"));
  }
  std::vector<int32_t> positions(subject.length);
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

}  // namespace

double MaskView::sampling_rate() const {
  return static_cast<double>(positions.size()) / subject.length;
}

absl::StatusOr<MaskView> MakeMaskView(const MaskSubject& subject, const MaskOptions& options) {
  const bool is_sampled =
      options.is_sampled || options.max_positions || (!options.is_full && !subject.is_full);
  CHORUS_ASSIGN_OR_RETURN(std::vector<int32_t> positions,
                          ShownPositions(subject, !is_sampled, options));
  const int32_t tile_size = options.tile_size.value_or(kDefaultTileSize);
  const int64_t tiles_across = (int64_t{subject.length} + tile_size - 1) / tile_size;
  constexpr int64_t kMaxTiles = int64_t{1} << 26;
  if (tiles_across * tiles_across > kMaxTiles) {
    return FieldError("--tile_size", absl::StrCat(tile_size),
                      absl::StrCat("the matrix may have at most ", kMaxTiles, " tiles"));
  }
  MaskRows rows = MaskRows::Compile(LayoutMask(subject.layout),
                                    {.num_queries = subject.length, .num_keys = subject.length});
  MaskView view = {.subject = subject,
                   .rows = std::move(rows),
                   .row_intervals = RowIntervals::FromLayout(subject.layout, subject.length,
                                                             /*split_segment_columns=*/false),
                   .queries = RepresentativeQueries(subject.layout, subject.length),
                   .is_full = !is_sampled,
                   .positions = std::move(positions)};
  view.statistics = Summarise(view.rows, {tile_size, tile_size});
  for (const int32_t query : view.positions) {
    view.labels.push_back(PositionLabel(subject.layout, query));
    for (const int32_t key : view.positions) view.shown_allowed += view.rows.Allows(query, key);
  }
  return view;
}

}  // namespace chorus
