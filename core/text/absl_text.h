#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

// Debian builds absl for C++14, where absl::string_view is a class of its own that std::string_view
// does not convert to. These few lines join the two; with an absl for C++17 they still compile.

namespace chorus {

inline absl::string_view ToAbsl(std::string_view text) { return {text.data(), text.size()}; }
inline std::string_view FromAbsl(absl::string_view text) { return {text.data(), text.size()}; }

// absl::StrCat for std::string_view too.
template <typename... Parts>
std::string Concat(const Parts&... parts) {
  const auto convert = []<typename Part>(const Part& part) {
    if constexpr (std::is_convertible_v<const Part&, std::string_view>) {
      return ToAbsl(part);
    } else {
      return part;
    }
  };
  return absl::StrCat(convert(parts)...);
}

// Hashes the keys of a map of std::string, so that a std::string_view finds them.
struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const {
    return absl::Hash<absl::string_view>()(ToAbsl(text));
  }
};
struct TextEqual {
  using is_transparent = void;
  bool operator()(std::string_view a, std::string_view b) const { return a == b; }
};

}  // namespace chorus
