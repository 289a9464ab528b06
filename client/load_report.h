#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "client/load_options.h"
#include "client/load_result.h"

namespace chorus {

// The object that `chorus load --json` prints; its keys are listed in the command's help.
// `has_answers`: the data says which answers are right.
nlohmann::ordered_json LoadJson(const LoadOptions& options, const LoadResult& result,
                                bool has_answers);

// The same as a table for people.
std::string LoadTable(const LoadOptions& options, const LoadResult& result, bool has_answers);

}  // namespace chorus
