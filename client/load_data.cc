#include "client/load_data.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"

namespace chorus {
namespace {

using Json = nlohmann::json;

absl::StatusOr<std::string> ReadText(const Json& value, const std::string& field) {
  if (!value.is_string()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", field, "' is not a text but of type ", value.type_name()));
  }
  if (value.get_ref<const std::string&>().empty()) {
    return absl::InvalidArgumentError(absl::StrCat("'", field, "' is empty"));
  }
  return value.get<std::string>();
}

absl::StatusOr<std::vector<std::string>> ReadTexts(const Json& object, const std::string& field) {
  std::vector<std::string> texts;
  const auto found = object.find(field);
  if (found == object.end()) return texts;
  if (!found->is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", field, "' is not a list of texts but of type ", found->type_name()));
  }
  for (const Json& element : *found) {
    CHORUS_ASSIGN_OR_RETURN(texts.emplace_back(),
                            ReadText(element, absl::StrCat(field, "[", texts.size(), "]")));
  }
  return texts;
}

absl::StatusOr<DataItem> ReadItem(const std::string& line) {
  const Json object = Json::parse(line, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (object.is_discarded()) return absl::InvalidArgumentError("is not valid JSON");
  if (!object.is_object()) {
    return absl::InvalidArgumentError("is not a JSON object such as {\"question\": \"...\"}");
  }
  if (!object.contains("question")) return absl::InvalidArgumentError("'question' is missing");
  DataItem item;
  CHORUS_ASSIGN_OR_RETURN(item.question, ReadText(object["question"], "question"));
  CHORUS_ASSIGN_OR_RETURN(item.paraphrases, ReadTexts(object, "paraphrases"));
  CHORUS_ASSIGN_OR_RETURN(item.answers, ReadTexts(object, "answers"));
  return item;
}

}  // namespace

absl::StatusOr<std::vector<DataItem>> ReadDataItems(std::istream& in, const std::string& name) {
  std::vector<DataItem> items;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    absl::StatusOr<DataItem> item = ReadItem(line);
    if (!item.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ":", number, ": ", item.status().message()));
    }
    items.push_back(*std::move(item));
  }
  if (items.empty()) return absl::InvalidArgumentError(absl::StrCat(name, " holds no question"));
  return items;
}

absl::StatusOr<std::vector<DataItem>> ReadDataFile(const std::string& path) {
  std::ifstream file(path);
  if (!file)
    return absl::NotFoundError(absl::StrCat("cannot read ", path, ": ", std::strerror(errno)));
  return ReadDataItems(file, path);
}

}  // namespace chorus
