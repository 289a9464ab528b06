#include "core/model/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "core/base/check.h"
#include "core/base/status_macros.h"

namespace chorus {
namespace {

using Json = nlohmann::json;

constexpr size_t kLengthBytes = 8;
constexpr size_t kMaxHeaderBytes = 100'000'000;  // the limit of the format's own library
constexpr int64_t kMaxIndexBytes = 100'000'000;
constexpr size_t kMaxShards = 4096;

absl::Status FileError(const std::string& file, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", what));
}

// A name from the file, fit for one line of text: shortened, and without control characters.
std::string Printable(const std::string& name) {
  std::string text = name.substr(0, 80);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20) c = '?';
  }
  return absl::StrCat("'", text, name.size() > 80 ? "...'" : "'");
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// Bytes of one element, 0 for a type this reader does not know.
size_t ElementBytes(const std::string& type) {
  static constexpr std::pair<const char*, size_t> kTypes[] = {
      {"F64", 8}, {"F32", 4}, {"F16", 2},  {"BF16", 2},    {"I64", 8},
      {"U64", 8}, {"I32", 4}, {"U32", 4},  {"I16", 2},     {"U16", 2},
      {"I8", 1},  {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
  for (const auto& [name, bytes] : kTypes) {
    if (type == name) return bytes;
  }
  return 0;
}

// Parses an object and refuses a name that stands twice at depth 1: which of the two counts would
// be anyone's guess.
absl::StatusOr<Json> ParseObject(const char* begin, const char* end, const std::string& file) {
  std::set<std::string> names;
  std::string twice;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::key && depth == 1 &&
        !names.insert(parsed.get<std::string>()).second) {
      twice = parsed.get<std::string>();
    }
    return true;
  };
  Json root = Json::parse(begin, end, watch, /*allow_exceptions=*/false);
  if (!root.is_object()) return FileError(file, "the header is not a JSON object");
  if (!twice.empty()) return FileError(file, absl::StrCat(Printable(twice), " is there twice"));
  return root;
}

bool ReadCount(const Json& value, uint64_t maximum, uint64_t& count) {
  if (!value.is_number_unsigned()) return false;
  count = value.get<uint64_t>();
  return count <= maximum;
}

// Reads one entry of the header; offsets in it count from `data_begin`.
absl::StatusOr<TensorEntry> ReadEntry(const Json& value, size_t data_begin, size_t file_size) {
  if (!value.is_object() || !value.contains("dtype") || !value["dtype"].is_string() ||
      !value.contains("shape") || !value["shape"].is_array() || !value.contains("data_offsets") ||
      !value["data_offsets"].is_array() || value["data_offsets"].size() != 2) {
    return absl::InvalidArgumentError("needs dtype, shape and two data_offsets");
  }
  TensorEntry entry;
  entry.type = value["dtype"].get<std::string>();
  // All data is shorter than 2^63 bytes, so a product that does not fit cannot match either.
  uint64_t bytes = ElementBytes(entry.type);
  const bool known_type = bytes != 0;
  for (const Json& item : value["shape"]) {
    uint64_t length = 0;
    if (!ReadCount(item, INT64_MAX, length)) {
      return absl::InvalidArgumentError("has a shape that is not made of counts");
    }
    if (__builtin_mul_overflow(bytes, length, &bytes)) {
      return absl::InvalidArgumentError("has a shape whose size overflows");
    }
    entry.shape.push_back(static_cast<int64_t>(length));
  }
  uint64_t begin = 0;
  uint64_t end = 0;
  const uint64_t data_bytes = file_size - data_begin;
  if (!ReadCount(value["data_offsets"][0], INT64_MAX, begin) ||
      !ReadCount(value["data_offsets"][1], INT64_MAX, end) || begin > end) {
    return absl::InvalidArgumentError("has data_offsets that are not a range");
  }
  if (end > data_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("ends at byte ", end, " of the data, which has ",
                                                   data_bytes, ": the file is cut short"));
  }
  if (known_type && bytes != end - begin) {
    return absl::InvalidArgumentError(absl::StrCat("has ", end - begin, " bytes, but ", entry.type,
                                                   " ", ShapeText(entry.shape), " takes ", bytes));
  }
  entry.begin = data_begin + begin;
  entry.end = data_begin + end;
  return entry;
}

absl::Status CheckCoverage(const std::map<std::string, TensorEntry>& tensors, size_t data_begin,
                           size_t file_size, const std::string& file) {
  std::vector<const std::pair<const std::string, TensorEntry>*> in_order;
  for (const auto& item : tensors) in_order.push_back(&item);
  std::sort(in_order.begin(), in_order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  size_t expected = data_begin;
  for (const auto* item : in_order) {
    if (item->second.begin != expected) {
      return FileError(file,
                       absl::StrCat("tensor ", Printable(item->first),
                                    item->second.begin < expected ? " overlaps the tensor before it"
                                                                  : " leaves a hole before it"));
    }
    expected = item->second.end;
  }
  if (expected == file_size) return absl::OkStatus();
  return FileError(file, absl::StrCat(file_size - expected, " bytes after the last tensor"));
}

float FloatFromHalf(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in float32
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  const uint32_t bits = exponent == 0x1fu ? 0x7f800000u : (exponent + 112u) << 23;
  return std::bit_cast<float>(sign | bits | (mantissa << 13));
}

template <typename Stored, typename Convert>
void ConvertRow(const uint8_t* bytes, int64_t count, float* out, Convert convert) {
  for (int64_t i = 0; i < count; ++i) {
    Stored stored;
    std::memcpy(&stored, bytes + i * sizeof(Stored), sizeof(Stored));  // may be unaligned
    out[i] = convert(stored);
  }
}

// A plain name: no folder, so that an index cannot point outside its own directory.
bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= 255 &&
         name.find('/') == std::string::npos && name.find('\\') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

}  // namespace

absl::StatusOr<std::map<std::string, TensorEntry>> ParseSafetensorsHeader(const uint8_t* data,
                                                                          size_t size,
                                                                          const std::string& file) {
  if (size < kLengthBytes) return FileError(file, "is too short for a safetensors file");
  uint64_t header_bytes = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) header_bytes |= uint64_t{data[i]} << (8 * i);
  if (header_bytes > kMaxHeaderBytes || header_bytes > size - kLengthBytes) {
    return FileError(file, absl::StrCat("the header should have ", header_bytes, " bytes, but the ",
                                        "file has ", size, " and the limit is ", kMaxHeaderBytes));
  }
  const char* begin = reinterpret_cast<const char*>(data) + kLengthBytes;
  CHORUS_ASSIGN_OR_RETURN(const Json root, ParseObject(begin, begin + header_bytes, file));
  const size_t data_begin = kLengthBytes + header_bytes;
  std::map<std::string, TensorEntry> tensors;
  for (const auto& [name, value] : root.items()) {
    if (name == "__metadata__") continue;
    auto entry = ReadEntry(value, data_begin, size);
    if (!entry.ok()) {
      return FileError(file, absl::StrCat("tensor ", Printable(name), " ",
                                          std::string(entry.status().message())));
    }
    tensors.emplace(name, *std::move(entry));
  }
  CHORUS_RETURN_IF_ERROR(CheckCoverage(tensors, data_begin, size, file));
  return tensors;
}

void TensorRows::ReadRow(int64_t row, float* out) const {
  CHECK(row >= 0 && row < num_rows_);
  const uint8_t* bytes = file_->data() + begin_ + row * num_columns_ * element_bytes_;
  switch (type_) {
    case Type::kF32:
      std::memcpy(out, bytes, num_columns_ * sizeof(float));
      return;
    case Type::kBF16:
      return ConvertRow<uint16_t>(bytes, num_columns_, out, [](uint16_t stored) {
        return std::bit_cast<float>(uint32_t{stored} << 16);
      });
    case Type::kF16:
      return ConvertRow<uint16_t>(bytes, num_columns_, out, FloatFromHalf);
    case Type::kF64:
      return ConvertRow<double>(bytes, num_columns_, out,
                                [](double stored) { return static_cast<float>(stored); });
  }
}

absl::StatusOr<SafetensorsReader::Shard> SafetensorsReader::OpenShard(const std::string& path) {
  Shard shard;
  shard.path = path;
  CHORUS_ASSIGN_OR_RETURN(shard.file, MappedFile::Open(path));
  CHORUS_ASSIGN_OR_RETURN(shard.tensors,
                          ParseSafetensorsHeader(shard.file->data(), shard.file->size(), path));
  return shard;
}

absl::Status SafetensorsReader::OpenIndex(const std::string& directory,
                                          const std::string& index_path) {
  CHORUS_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(index_path, kMaxIndexBytes));
  const Json root = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object() || !root.contains("weight_map") || !root["weight_map"].is_object()) {
    return FileError(index_path, "is not a JSON object with a weight_map");
  }
  std::map<std::string, size_t> shard_of_file;
  for (const auto& [name, value] : root["weight_map"].items()) {
    if (!value.is_string() || !IsPlainFileName(value.get<std::string>())) {
      return FileError(index_path, absl::StrCat("tensor ", Printable(name), " is mapped to ",
                                                "something that is not a file of this directory"));
    }
    const auto [found, is_new] =
        shard_of_file.try_emplace(value.get<std::string>(), shards_.size());
    if (is_new) {
      if (shards_.size() == kMaxShards) return FileError(index_path, "lists too many files");
      CHORUS_ASSIGN_OR_RETURN(Shard shard, OpenShard(absl::StrCat(directory, "/", found->first)));
      shards_.push_back(std::move(shard));
    }
    if (!shards_[found->second].tensors.contains(name)) {
      return FileError(shards_[found->second].path,
                       absl::StrCat("tensor ", Printable(name), " is missing, although ",
                                    index_path, " says it is here"));
    }
    shard_of_.emplace(name, found->second);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<const SafetensorsReader>> SafetensorsReader::Open(
    const std::string& directory) {
  auto reader = std::make_unique<SafetensorsReader>();
  const std::string single = absl::StrCat(directory, "/model.safetensors");
  const std::string index = single + ".index.json";
  std::error_code ignored;
  if (!std::filesystem::exists(single, ignored) && std::filesystem::exists(index, ignored)) {
    CHORUS_RETURN_IF_ERROR(reader->OpenIndex(directory, index));
    return std::unique_ptr<const SafetensorsReader>(std::move(reader));
  }
  CHORUS_ASSIGN_OR_RETURN(Shard shard, OpenShard(single));
  for (const auto& item : shard.tensors) reader->shard_of_.emplace(item.first, 0);
  reader->shards_.push_back(std::move(shard));
  return std::unique_ptr<const SafetensorsReader>(std::move(reader));
}

absl::StatusOr<TensorRows> SafetensorsReader::Find(const std::string& name, int64_t num_rows,
                                                   int64_t num_columns) const {
  std::vector<int64_t> expected = {num_columns};
  if (num_rows != 0) expected.insert(expected.begin(), num_rows);
  const auto found = shard_of_.find(name);
  if (found == shard_of_.end()) {
    return absl::NotFoundError(absl::StrCat(shards_.empty() ? "the index" : shards_[0].path,
                                            shards_.size() > 1 ? " and its fellows" : "",
                                            ": tensor '", name, "' is missing, expected ",
                                            ShapeText(expected)));
  }
  const Shard& shard = shards_[found->second];
  const TensorEntry& entry = shard.tensors.at(name);
  if (entry.shape != expected) {
    return FileError(shard.path,
                     absl::StrCat("tensor '", name, "' has shape ", ShapeText(entry.shape),
                                  ", expected ", ShapeText(expected)));
  }
  static constexpr std::pair<const char*, TensorRows::Type> kTypes[] = {
      {"F64", TensorRows::Type::kF64},
      {"F32", TensorRows::Type::kF32},
      {"F16", TensorRows::Type::kF16},
      {"BF16", TensorRows::Type::kBF16}};
  for (const auto& [type_name, type] : kTypes) {
    if (entry.type != type_name) continue;
    TensorRows rows;
    rows.file_ = shard.file.get();
    rows.begin_ = entry.begin;
    rows.type_ = type;
    rows.element_bytes_ = static_cast<int64_t>(ElementBytes(entry.type));
    rows.num_rows_ = num_rows == 0 ? 1 : num_rows;
    rows.num_columns_ = num_columns;
    return rows;
  }
  return FileError(shard.path, absl::StrCat("tensor '", name, "' has type ", Printable(entry.type),
                                            ": only F64, F32, F16 and BF16 can be read"));
}

}  // namespace chorus
