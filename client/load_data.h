#pragma once

#include <istream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace chorus {

// One line of a data file: a question in several wordings, and what a right answer may hold.
struct DataItem {
  std::string question;
  std::vector<std::string> paraphrases;  // may be empty
  std::vector<std::string> answers;      // may be empty
};

// Reads JSON Lines: {"question": TEXT, "paraphrases": [TEXT...], "answers": [TEXT...]}, the last
// two optional, other keys ignored, empty lines skipped. `name` stands for the file in errors.
// INVALID_ARGUMENT naming file, line and field for anything else, and for a file without items.
absl::StatusOr<std::vector<DataItem>> ReadDataItems(std::istream& in, const std::string& name);

// The same from a file. NOT_FOUND if it cannot be opened.
absl::StatusOr<std::vector<DataItem>> ReadDataFile(const std::string& path);

}  // namespace chorus
