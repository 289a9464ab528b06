#include "core/text/bpe_model.h"

#include <algorithm>

#include "absl/strings/str_format.h"

#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/text/absl_text.h"
#include "core/text/unicode_text.h"

namespace chorus {
namespace {

constexpr uint32_t kNumShortCharacters = 0x800;

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

bool MergesLater(const BpeScratch::Merge& a, const BpeScratch::Merge& b) {
  return a.order > b.order;
}

void AddSymbol(int32_t id, BpeScratch* scratch) {
  const int32_t index = static_cast<int32_t>(scratch->symbols.size());
  if (index > 0) scratch->symbols.back().next = index;
  scratch->symbols.push_back({id, index - 1, -1, false});
}

}  // namespace

absl::StatusOr<BpeModel> BpeModel::Parse(const JsonNode& node) {
  if (!node.IsObject()) return node.Error("must be an object");
  // Files of early versions carry no type; BPE is then told by its merges.
  CHORUS_ASSIGN_OR_RETURN(const std::string type, node.StringMember("type", "BPE"));
  if (type != "BPE") return node.Error(Concat("unknown type '", type, "', must be 'BPE'"));
  BpeModel model;
  CHORUS_RETURN_IF_ERROR(model.ReadVocabulary(node.Member("vocab")));
  CHORUS_RETURN_IF_ERROR(model.ReadOptions(node));
  CHORUS_RETURN_IF_ERROR(model.ReadMerges(node.Member("merges")));
  model.BuildTables();
  return model;
}

absl::Status BpeModel::ReadOptions(const JsonNode& node) {
  const JsonNode dropout = node.Member("dropout");
  if (!dropout.IsNull() && !(dropout.value().is_number() && dropout.value().get<double>() == 0)) {
    return dropout.Error("must be absent or 0: encoding is deterministic here");
  }
  CHORUS_ASSIGN_OR_RETURN(continuing_subword_prefix_,
                          node.StringMember("continuing_subword_prefix", ""));
  CHORUS_ASSIGN_OR_RETURN(end_of_word_suffix_, node.StringMember("end_of_word_suffix", ""));
  CHORUS_ASSIGN_OR_RETURN(fuse_unknown_, node.BoolMember("fuse_unk", false));
  CHORUS_ASSIGN_OR_RETURN(byte_fallback_, node.BoolMember("byte_fallback", false));
  CHORUS_ASSIGN_OR_RETURN(ignore_merges_, node.BoolMember("ignore_merges", false));
  const JsonNode unknown = node.Member("unk_token");
  if (!unknown.IsNull()) {
    CHORUS_ASSIGN_OR_RETURN(const std::string token, unknown.String());
    unknown_id_ = TokenToId(token);
    if (!unknown_id_.has_value()) {
      return unknown.Error(Concat("'", token, "' is not in the vocabulary"));
    }
  }
  return absl::OkStatus();
}

absl::Status BpeModel::ReadVocabulary(const JsonNode& node) {
  if (!node.IsObject()) return node.Error("must be an object of token: id");
  id_of_.reserve(node.Size());
  for (const auto& [token, value] : node.value().items()) {
    absl::StatusOr<int64_t> id =
        JsonNode(&value, Concat(node.path(), "['", token, "']")).Integer(kMaxId);
    if (!id.ok()) return id.status();
    if (static_cast<size_t>(*id) >= tokens_.size()) tokens_.resize(*id + 1);
    if (tokens_[*id].has_value()) {
      return node.Error(Concat("'", token, "' and '", *tokens_[*id], "' have the same id ", *id));
    }
    tokens_[*id] = token;
    id_of_.emplace(token, static_cast<int32_t>(*id));
    longest_token_ = std::max(longest_token_, token.size());
  }
  return absl::OkStatus();
}

absl::Status BpeModel::ReadMerges(const JsonNode& node) {
  if (!node.IsArray()) return node.Error("must be a list");
  merges_.reserve(node.Size());
  for (size_t rank = 0; rank < node.Size(); ++rank) {
    const nlohmann::json& merge = node.value()[rank];
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      CHORUS_RETURN_IF_ERROR(AddMerge(node, rank, merge[0].get_ref<const std::string&>(),
                                      merge[1].get_ref<const std::string&>()));
      continue;
    }
    const std::string_view line =
        merge.is_string() ? std::string_view(merge.get_ref<const std::string&>()) : "";
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      return node.Element(rank).Error("must be \"left right\" or [\"left\", \"right\"]");
    }
    CHORUS_RETURN_IF_ERROR(AddMerge(node, rank, line.substr(0, space), line.substr(space + 1)));
  }
  return absl::OkStatus();
}

absl::Status BpeModel::AddMerge(const JsonNode& merges, size_t rank, std::string_view left,
                                std::string_view right) {
  const std::string& prefix = continuing_subword_prefix_;
  if (right.size() < prefix.size()) {
    return merges.Element(rank).Error("the right part is shorter than continuing_subword_prefix");
  }
  const std::optional<int32_t> left_id = TokenToId(left);
  const std::optional<int32_t> right_id = TokenToId(right);
  const std::string whole = Concat(left, right.substr(prefix.size()));
  const std::optional<int32_t> id = TokenToId(whole);
  if (!left_id.has_value() || !right_id.has_value() || !id.has_value()) {
    const std::string_view missing = !left_id ? left : !right_id ? right : std::string_view(whole);
    return merges.Element(rank).Error(Concat("'", missing, "' is not in the vocabulary"));
  }
  // A pair listed twice keeps its last rank, as in the reference.
  merges_[PairKey(*left_id, *right_id)] = {static_cast<uint32_t>(rank), *id};
  return absl::OkStatus();
}

void BpeModel::BuildTables() {
  short_character_ids_.assign(kNumShortCharacters, -1);
  if (continuing_subword_prefix_.empty() && end_of_word_suffix_.empty()) {
    for (uint32_t code_point = 0; code_point < kNumShortCharacters; ++code_point) {
      std::string character;
      AppendUtf8(code_point, &character);
      short_character_ids_[code_point] = TokenToId(character).value_or(-1);
    }
  }
  byte_ids_.assign(256, -1);
  for (int byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = TokenToId(absl::StrFormat("<0x%02X>", byte)).value_or(-1);
  }
  is_direct_.assign(tokens_.size(), false);
  BpeScratch scratch;
  std::vector<int32_t> ids;
  for (size_t id = 0; id < tokens_.size(); ++id) {
    if (!tokens_[id].has_value() || tokens_[id]->empty()) continue;
    ids.clear();
    EncodeByMerging(*tokens_[id], &scratch, &ids);
    is_direct_[id] = ids.size() == 1 && ids[0] == static_cast<int32_t>(id);
  }
}

std::optional<int32_t> BpeModel::TokenToId(std::string_view token) const {
  const auto found = id_of_.find(token);
  if (found == id_of_.end()) return std::nullopt;
  return found->second;
}

const std::string* BpeModel::IdToToken(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= tokens_.size() || !tokens_[id].has_value()) {
    return nullptr;
  }
  return &*tokens_[id];
}

void BpeModel::Encode(std::string_view word, const std::vector<bool>& special, BpeScratch* scratch,
                      std::vector<int32_t>* ids) const {
  if (word.size() <= longest_token_) {
    const auto found = id_of_.find(word);
    if (found != id_of_.end()) {
      const int32_t id = found->second;
      if (is_direct_[id] || (ignore_merges_ && !special[id])) {
        ids->push_back(id);
        return;
      }
    }
  }
  EncodeByMerging(word, scratch, ids);
}

void BpeModel::EncodeByMerging(std::string_view word, BpeScratch* scratch,
                               std::vector<int32_t>* ids) const {
  SplitIntoSymbols(word, scratch);
  MergeSymbols(scratch);
  for (const BpeScratch::Symbol& symbol : scratch->symbols) {
    if (!symbol.is_merged) ids->push_back(symbol.id);
  }
}

void BpeModel::SplitIntoSymbols(std::string_view word, BpeScratch* scratch) const {
  scratch->symbols.clear();
  bool waiting_unknown = false;
  for (size_t at = 0; at < word.size();) {
    const Utf8Step step = ReadUtf8(word.substr(at));
    const size_t end = at + step.num_bytes;
    const int32_t short_id =
        step.code_point < kNumShortCharacters ? short_character_ids_[step.code_point] : -1;
    if (short_id >= 0 && !waiting_unknown) {
      AddSymbol(short_id, scratch);
    } else {
      AddCharacter(word.substr(at, end - at), at == 0, end == word.size(), scratch,
                   &waiting_unknown);
    }
    at = end;
  }
  if (waiting_unknown) AddSymbol(*unknown_id_, scratch);
}

void BpeModel::AddCharacter(std::string_view character, bool is_first, bool is_last,
                            BpeScratch* scratch, bool* waiting_unknown) const {
  std::string& spelling = scratch->spelling;
  spelling.clear();
  if (!is_first) spelling += continuing_subword_prefix_;
  spelling += character;
  if (is_last) spelling += end_of_word_suffix_;
  if (const std::optional<int32_t> id = TokenToId(spelling)) {
    if (*waiting_unknown) AddSymbol(*unknown_id_, scratch);
    *waiting_unknown = false;
    AddSymbol(*id, scratch);
    return;
  }
  if (byte_fallback_) {
    const auto has_id = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)] >= 0; };
    if (std::all_of(spelling.begin(), spelling.end(), has_id)) {
      // An unknown token that still waits stays waiting and so comes out behind these bytes: an
      // oddity of the reference that only a file with some byte tokens missing can show.
      for (const char byte : spelling) {
        AddSymbol(byte_ids_[static_cast<unsigned char>(byte)], scratch);
      }
      return;
    }
  }
  if (!unknown_id_.has_value()) return;  // the character vanishes
  if (*waiting_unknown && !fuse_unknown_) AddSymbol(*unknown_id_, scratch);
  *waiting_unknown = true;
}

void BpeModel::PushMerge(int32_t left, BpeScratch* scratch) const {
  const BpeScratch::Symbol& symbol = scratch->symbols[left];
  if (symbol.next < 0) return;
  const auto found = merges_.find(PairKey(symbol.id, scratch->symbols[symbol.next].id));
  if (found == merges_.end()) return;
  scratch->heap.push_back(
      {static_cast<uint64_t>(found->second.rank) << 32 | static_cast<uint32_t>(left),
       found->second.id});
}

void BpeModel::MergeSymbols(BpeScratch* scratch) const {
  std::vector<BpeScratch::Symbol>& symbols = scratch->symbols;
  std::vector<BpeScratch::Merge>& heap = scratch->heap;
  heap.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) PushMerge(static_cast<int32_t>(i), scratch);
  std::make_heap(heap.begin(), heap.end(), MergesLater);
  const auto push = [&](int32_t left) {
    const size_t size = heap.size();
    PushMerge(left, scratch);
    if (heap.size() > size) std::push_heap(heap.begin(), heap.end(), MergesLater);
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), MergesLater);
    const BpeScratch::Merge top = heap.back();
    heap.pop_back();
    const int32_t position = static_cast<int32_t>(top.order & 0xFFFFFFFF);
    BpeScratch::Symbol& left = symbols[position];
    if (left.is_merged || left.next < 0) continue;
    // The entry is out of date if either side has changed since; then the pair gives another id.
    BpeScratch::Symbol& right = symbols[left.next];
    const auto found = merges_.find(PairKey(left.id, right.id));
    if (found == merges_.end() || found->second.id != top.id) continue;
    left.id = top.id;
    right.is_merged = true;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = position;
    if (left.previous >= 0) push(left.previous);
    push(position);
  }
}

}  // namespace chorus
