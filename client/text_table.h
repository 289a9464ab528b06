#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace chorus {

// Lines of columns: the first one left, the others right, two spaces between. Widths count
// characters (UTF-8), whatever a terminal makes of wide ones.
class TextTable {
 public:
  // `last_is_text`: the last column is left too.
  explicit TextTable(std::vector<std::string> heading, bool last_is_text = false);

  // Missing cells are empty.
  void AddRow(std::vector<std::string> cells);

  // The heading and the rows, each behind `indent` and without spaces at its end.
  std::string ToString(absl::string_view indent) const;

 private:
  const bool last_is_text_;
  std::vector<std::vector<std::string>> rows_;
};

// `text` on one line of at most `max_width` characters, control characters escaped; an ellipsis
// stands for what is left out of its middle. REQUIRES: max_width >= 5.
std::string Shortened(absl::string_view text, size_t max_width);

}  // namespace chorus
