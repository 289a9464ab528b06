#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "core/model/mapped_file.h"

namespace chorus {

// One tensor of a safetensors file: where its bytes lie.
struct TensorEntry {
  std::string type;            // as the file spells it: "BF16"
  std::vector<int64_t> shape;  // each >= 0
  size_t begin = 0;            // bytes [begin, end) of the file, little endian, row major
  size_t end = 0;
};

// Reads the header of a safetensors file (8 bytes of length N, little endian; N bytes of JSON;
// data) held in `data`; `file` is named in errors. INVALID_ARGUMENT unless the header is whole, no
// name is twice there, every size is shape x type, and the tensors cover the data exactly once,
// without hole or overlap: what the format's own library asks for.
absl::StatusOr<std::map<std::string, TensorEntry>> ParseSafetensorsHeader(const uint8_t* data,
                                                                          size_t size,
                                                                          const std::string& file);

// A tensor as rows of float32, whatever its stored type: [rows, columns]. Borrows from its
// SafetensorsReader. Thread-safe.
class TensorRows {
 public:
  int64_t num_rows() const { return num_rows_; }
  int64_t num_columns() const { return num_columns_; }

  // Writes row `row`, num_columns floats. F64 is rounded to the nearest float32; F32, F16 and BF16
  // are exact. REQUIRES: 0 <= row < num_rows.
  void ReadRow(int64_t row, float* out) const;

  // Takes the tensor's pages out of the resident set; it can still be read.
  void Release() const {
    file_->Release(begin_, begin_ + num_rows_ * num_columns_ * element_bytes_);
  }

 private:
  friend class SafetensorsReader;
  enum class Type { kF64, kF32, kF16, kBF16 };
  const MappedFile* file_ = nullptr;
  size_t begin_ = 0;
  Type type_ = Type::kF32;
  int64_t element_bytes_ = 4;
  int64_t num_rows_ = 0;
  int64_t num_columns_ = 0;
};

// The weights of a model directory: model.safetensors, or the files that
// model.safetensors.index.json lists. Memory-mapped. Const and thread-safe after Open.
class SafetensorsReader {
 public:
  // NOT_FOUND: a file is missing. INVALID_ARGUMENT: a file is not as the format says, or the index
  // names a file outside the directory or a tensor that its file lacks.
  static absl::StatusOr<std::unique_ptr<const SafetensorsReader>> Open(
      const std::string& directory);

  // The tensor of that name, a matrix [num_rows, num_columns], or a vector [num_columns] if
  // `num_rows` is 0 (read as one row). NOT_FOUND: no such tensor. INVALID_ARGUMENT: another shape,
  // or a type that is not F64, F32, F16 or BF16. The message names file, tensor, expected and
  // found.
  absl::StatusOr<TensorRows> Find(const std::string& name, int64_t num_rows,
                                  int64_t num_columns) const;

 private:
  struct Shard {
    std::string path;
    std::unique_ptr<const MappedFile> file;
    std::map<std::string, TensorEntry> tensors;
  };
  static absl::StatusOr<Shard> OpenShard(const std::string& path);
  absl::Status OpenIndex(const std::string& directory, const std::string& index_path);

  std::vector<Shard> shards_;
  std::map<std::string, size_t> shard_of_;  // tensor name -> index into shards_
};

}  // namespace chorus
