#include "client/mask_picture.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace chorus {
namespace {

constexpr const char* kGreen = "\x1b[32m";
constexpr const char* kRed = "\x1b[31m";
constexpr const char* kBlue = "\x1b[34m";
constexpr const char* kReset = "\x1b[0m";

constexpr absl::string_view kCorner = "Q\\KV";

struct Geometry {
  int label_width = 2;
  int number_width = 1;     // digits of the largest position
  int row_head = 0;         // columns of a row's label and number
  int gap = 0;              // columns between those and the first cell
  int cell_width = 0;       // the mark stands at its right end
  bool is_stacked = false;  // numbers are written downwards
  int heading_step = 1;     // every how many columns one is numbered
  size_t block = 0;         // columns in a block
};

// The first arrangement that fits `width`; the last always does, if a single column can.
Geometry Arrange(const MaskView& view, int width) {
  Geometry geometry;
  for (const std::string& label : view.labels) {
    geometry.label_width = std::max(geometry.label_width, static_cast<int>(label.size()));
  }
  geometry.number_width = static_cast<int>(absl::StrCat(view.positions.back()).size());
  geometry.row_head =
      std::max(geometry.label_width + 1 + geometry.number_width, static_cast<int>(kCorner.size()));
  const int64_t count = static_cast<int64_t>(view.positions.size());
  const int64_t room = width == 0 ? INT64_MAX : std::max(0, width - geometry.row_head);
  geometry.block = view.positions.size();
  geometry.cell_width = geometry.number_width + 1;
  if (count * geometry.cell_width <= room) return geometry;
  geometry.is_stacked = geometry.number_width > 1;
  geometry.cell_width = 2;
  if (count * geometry.cell_width <= room) return geometry;
  if (count + 1 <= room) {
    geometry.gap = 1;
    geometry.cell_width = 1;
    geometry.heading_step = 2;
    return geometry;
  }
  geometry.block = static_cast<size_t>(std::max<int64_t>(1, room / geometry.cell_width));
  return geometry;
}

class Painter {
 public:
  Painter(const MaskView& view, const PictureStyle& style)
      : view_(view), style_(style), geometry_(Arrange(view, style.width)) {}

  std::string Paint() {
    for (size_t begin = 0; begin < view_.positions.size(); begin += geometry_.block) {
      const size_t end = std::min(begin + geometry_.block, view_.positions.size());
      if (begin > 0) out_ += "\n";
      PaintHeadings(begin, end);
      for (size_t row = 0; row < view_.positions.size(); ++row) PaintRow(row, begin, end);
    }
    absl::StrAppend(&out_, "\n", Allowed(), " may attend   ", Masked(), " may not\n",
                    "S# E# first and last token of segment #   G0 original_length\n");
    return std::move(out_);
  }

 private:
  const char* Allowed() const { return style_.is_ascii ? "#" : "■"; }
  const char* Masked() const { return style_.is_ascii ? "." : "·"; }

  void PaintHeadings(size_t begin, size_t end) {
    const int num_lines = geometry_.is_stacked ? geometry_.number_width : 1;
    for (int line = 0; line < num_lines; ++line) {
      const bool is_last = line + 1 == num_lines;
      std::string text =
          absl::StrFormat("%*s%*s", geometry_.row_head, is_last ? kCorner : "", geometry_.gap, "");
      for (size_t column = begin; column < end; ++column) {
        const std::string number =
            absl::StrFormat("%*d", geometry_.number_width, view_.positions[column]);
        const bool has_heading = (column - begin) % geometry_.heading_step == 0;
        const std::string shown = !has_heading           ? std::string()
                                  : geometry_.is_stacked ? number.substr(line, 1)
                                                         : number;
        absl::StrAppendFormat(&text, "%*s", geometry_.cell_width, shown);
      }
      text.resize(text.find_last_not_of(' ') + 1);
      if (!text.empty()) absl::StrAppend(&out_, text, "\n");
    }
  }

  void PaintRow(size_t row, size_t begin, size_t end) {
    const std::string& label = view_.labels[row];
    const char* colour = label.empty() || !style_.has_colours ? nullptr
                         : label == "G0"                      ? kBlue
                                                              : kRed;
    const std::string padded = absl::StrFormat("%-*s", geometry_.label_width, label);
    AppendColoured(padded, colour);
    absl::StrAppendFormat(&out_, "%*d", geometry_.row_head - geometry_.label_width,
                          view_.positions[row]);
    out_.append(geometry_.gap, ' ');
    for (size_t column = begin; column < end; ++column) {
      out_.append(geometry_.cell_width - 1, ' ');
      const bool allows = view_.rows.Allows(view_.positions[row], view_.positions[column]);
      AppendColoured(allows ? Allowed() : Masked(),
                     allows && style_.has_colours ? kGreen : nullptr);
    }
    out_ += "\n";
  }

  void AppendColoured(absl::string_view text, const char* colour) {
    if (colour == nullptr) {
      absl::StrAppend(&out_, text);
    } else {
      absl::StrAppend(&out_, colour, text, kReset);
    }
  }

  const MaskView& view_;
  const PictureStyle& style_;
  const Geometry geometry_;
  std::string out_;
};

}  // namespace

std::string DrawMask(const MaskView& view, const PictureStyle& style) {
  return Painter(view, style).Paint();
}

}  // namespace chorus
