#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

#include "core/text/absl_text.h"
#include "core/text/json_node.h"

namespace chorus {

// Work space of one encoding thread; reused so that words do not allocate.
struct BpeScratch {
  struct Symbol {
    int32_t id = 0;
    int32_t previous = -1;  // indices into `symbols`, -1 at the ends
    int32_t next = -1;
    bool is_merged = false;  // swallowed by the symbol before it
  };
  struct Merge {
    uint64_t order = 0;  // rank << 32 | position: smallest first, leftmost among equals
    int32_t id = 0;      // what the pair becomes
  };
  std::vector<Symbol> symbols;
  std::vector<Merge> heap;
  std::string spelling;
};

// The "model" of a tokenizer.json file of type BPE: vocabulary, ranked merges, byte fallback.
// Immutable and thread-safe. Ids are those of the reference, PyPI `tokenizers`, merge for merge.
//
// A word whose own vocabulary entry is what merging yields is found by one look-up (decided for
// every entry once, at load); others run a heap over a linked list, O(n log n).
class BpeModel {
 public:
  // Ids above this are refused: the tables are indexed by id.
  static constexpr int64_t kMaxId = (1 << 22) - 1;

  // InvalidArgument with the path: a missing or mistyped member, an id out of range or given twice,
  // a merge whose parts or result are not in the vocabulary, dropout above 0, an unknown unk_token.
  static absl::StatusOr<BpeModel> Parse(const JsonNode& node);

  // `special` tells, per id, a special token: such an id is never produced by spelling alone.
  // Appends the ids of `word`, a non-empty piece of valid UTF-8.
  void Encode(std::string_view word, const std::vector<bool>& special, BpeScratch* scratch,
              std::vector<int32_t>* ids) const;

  std::optional<int32_t> TokenToId(std::string_view token) const;
  // nullptr for an id without a token.
  const std::string* IdToToken(int32_t id) const;
  int num_tokens() const { return static_cast<int>(id_of_.size()); }
  int32_t max_id() const { return static_cast<int32_t>(tokens_.size()) - 1; }

 private:
  struct MergeResult {
    uint32_t rank;
    int32_t id;
  };

  absl::Status ReadOptions(const JsonNode& node);
  absl::Status ReadVocabulary(const JsonNode& node);
  absl::Status ReadMerges(const JsonNode& node);
  absl::Status AddMerge(const JsonNode& merges, size_t rank, std::string_view left,
                        std::string_view right);
  void BuildTables();

  void SplitIntoSymbols(std::string_view word, BpeScratch* scratch) const;
  // Adds the symbols of one character. *waiting_unknown: an unknown token is due before the next
  // known character, so that a run of unknown ones can become one token.
  void AddCharacter(std::string_view character, bool is_first, bool is_last, BpeScratch* scratch,
                    bool* waiting_unknown) const;
  void MergeSymbols(BpeScratch* scratch) const;
  void PushMerge(int32_t left, BpeScratch* scratch) const;
  void EncodeByMerging(std::string_view word, BpeScratch* scratch, std::vector<int32_t>* ids) const;

  std::vector<std::optional<std::string>> tokens_;  // by id
  absl::flat_hash_map<std::string, int32_t, TextHash, TextEqual> id_of_;
  absl::flat_hash_map<uint64_t, MergeResult> merges_;  // left id << 32 | right id
  std::string continuing_subword_prefix_;
  std::string end_of_word_suffix_;
  std::optional<int32_t> unknown_id_;
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;

  std::vector<int32_t> short_character_ids_;  // by code point below U+0800; -1: none
  std::vector<int32_t> byte_ids_;             // "<0x00>" .. "<0xFF>"; -1: none
  std::vector<bool> is_direct_;               // by id: merging its spelling yields just this id
  size_t longest_token_ = 0;                  // bytes
};

}  // namespace chorus
