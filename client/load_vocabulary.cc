#include "client/load_vocabulary.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"

namespace chorus {
namespace {

// Special tokens lie in a few runs: each run costs about log2(vocab_size) pairs of calls.
constexpr int kMaxCalls = 4096;

std::vector<int32_t> Range(int32_t begin, int32_t end) {
  std::vector<int32_t> ids(end - begin);
  std::iota(ids.begin(), ids.end(), begin);
  return ids;
}

// The ids in [first_id, vocab_size) that have a text with skip_special, found by halving ranges
// until a range holds special tokens only, or none.
absl::StatusOr<std::vector<int32_t>> FindWithoutSpecial(ChorusClient& client, int32_t first_id,
                                                        int32_t vocab_size) {
  std::vector<int32_t> plain;
  std::vector<std::pair<int32_t, int32_t>> pending = {{first_id, vocab_size}};
  for (int num_calls = 0; !pending.empty(); num_calls += 2) {
    if (num_calls > kMaxCalls) return absl::ResourceExhaustedError("too many special tokens");
    const auto [begin, end] = pending.back();
    pending.pop_back();
    const std::vector<int32_t> ids = Range(begin, end);
    CHORUS_ASSIGN_OR_RETURN(const std::string all, client.Detokenize(ids));
    CHORUS_ASSIGN_OR_RETURN(const std::string kept, client.Detokenize(ids, /*skip_special=*/true));
    if (all == kept) {
      plain.insert(plain.end(), ids.begin(), ids.end());
    } else if (!kept.empty() && ids.size() > 1) {
      const int32_t middle = begin + (end - begin) / 2;
      pending.emplace_back(middle, end);
      pending.emplace_back(begin, middle);
    }
  }
  return plain;
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> FindPlainTokenIds(ChorusClient& client, int32_t first_id) {
  CHORUS_ASSIGN_OR_RETURN(const v1::GetModelInfoResponse info, client.GetModelInfo());
  std::set<int32_t> excluded(info.eos_token_ids().begin(), info.eos_token_ids().end());
  if (info.has_bos_token_id()) excluded.insert(info.bos_token_id());
  std::vector<int32_t> ids;
  if (first_id < info.vocab_size()) {
    ids = FindWithoutSpecial(client, first_id, info.vocab_size())
              .value_or(Range(first_id, info.vocab_size()));
  }
  ids.erase(std::remove_if(ids.begin(), ids.end(), [&](int32_t id) { return excluded.count(id); }),
            ids.end());
  if (ids.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no plain token from --synthetic_first_id=", first_id,
                     " on; the vocabulary has ", info.vocab_size(), " tokens"));
  }
  return ids;
}

}  // namespace chorus
