#include "server/free_memory.h"

#include <algorithm>
#include <fstream>
#include <optional>

namespace chorus {
namespace {

// The number that stands after `key` in a file of words; the first word for an empty key.
std::optional<int64_t> ReadNumber(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string word;
  while (file >> word) {
    if (key.empty()) {
      // "max" is no limit.
      return word.find_first_not_of("0123456789") == std::string::npos && word.size() < 19
                 ? std::optional<int64_t>(std::stoll(word))
                 : std::nullopt;
    }
    int64_t value = 0;
    if (word == key && file >> value) return value;
  }
  return std::nullopt;
}

std::optional<int64_t> GroupBytes(const std::string& limit_path, const std::string& usage_path) {
  const auto limit = ReadNumber(limit_path, "");
  const auto usage = ReadNumber(usage_path, "");
  if (!limit.has_value() || !usage.has_value()) return std::nullopt;
  return std::max<int64_t>(*limit - *usage, 0);
}

}  // namespace

int64_t FreeMemoryBytes(const std::string& root) {
  int64_t bytes = ReadNumber(root + "/proc/meminfo", "MemAvailable:").value_or(0) * 1024;
  const std::string group = root + "/sys/fs/cgroup";
  for (const auto& left :
       {GroupBytes(group + "/memory.max", group + "/memory.current"),
        GroupBytes(group + "/memory/memory.limit_in_bytes",
                   group + "/memory/memory.usage_in_bytes")}) {
    if (left.has_value()) bytes = std::min(bytes, *left);
  }
  return bytes;
}

int64_t DefaultKvCacheBytes(int64_t free_bytes, int32_t num_workers) {
  return std::max<int64_t>(free_bytes / 2 / std::max(num_workers, 1), int64_t{64} << 20);
}

int64_t DefaultDeviceKvCacheBytes(int64_t free_bytes, int32_t num_workers) {
  return std::max<int64_t>(free_bytes / 10 * 9 / std::max(num_workers, 1), 0);
}

}  // namespace chorus
