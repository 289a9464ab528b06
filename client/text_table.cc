#include "client/text_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace chorus {
namespace {

constexpr absl::string_view kEllipsis = " ... ";

bool IsCharacterStart(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

size_t WidthOf(absl::string_view text) {
  return std::count_if(text.begin(), text.end(), IsCharacterStart);
}

// Bytes of the first `count` characters.
size_t BytesOf(absl::string_view text, size_t count) {
  size_t bytes = 0;
  while (bytes < text.size()) {
    if (IsCharacterStart(text[bytes]) && count-- == 0) break;
    ++bytes;
  }
  return bytes;
}

}  // namespace

TextTable::TextTable(std::vector<std::string> heading, bool last_is_text)
    : last_is_text_(last_is_text) {
  rows_.push_back(std::move(heading));
}

void TextTable::AddRow(std::vector<std::string> cells) {
  cells.resize(std::max(cells.size(), rows_.front().size()));
  rows_.push_back(std::move(cells));
}

std::string TextTable::ToString(absl::string_view indent) const {
  std::vector<size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], WidthOf(row[i]));
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line(indent);
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - WidthOf(row[i]), ' ');
      const bool is_left = i == 0 || (last_is_text_ && i + 1 == row.size());
      absl::StrAppend(&line, i > 0 ? "  " : "", is_left ? row[i] : padding,
                      is_left ? padding : row[i]);
    }
    absl::StrAppend(&text, absl::StripTrailingAsciiWhitespace(line), "\n");
  }
  return text;
}

std::string Shortened(absl::string_view text, size_t max_width) {
  const std::string line =
      absl::StrReplaceAll(absl::Utf8SafeCHexEscape(text), {{"\\'", "'"}, {"\\\"", "\""}});
  const size_t width = WidthOf(line);
  if (width <= max_width) return line;
  const size_t num_kept = max_width - kEllipsis.size();
  const size_t head = BytesOf(line, num_kept - num_kept / 2);
  const size_t tail = BytesOf(line, width - num_kept / 2);
  return absl::StrCat(line.substr(0, head), kEllipsis, line.substr(tail));
}

}  // namespace chorus
