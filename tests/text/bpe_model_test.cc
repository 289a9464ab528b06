#include "core/text/bpe_model.h"

#include <map>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

absl::StatusOr<BpeModel> Parse(const std::string& json) {
  const auto document = JsonNode::ParseDocument(json, "x");
  if (!document.ok()) return document.status();
  return BpeModel::Parse(JsonNode(&*document, "model"));
}

std::vector<int32_t> Encode(const BpeModel& model, std::string_view word,
                            std::vector<bool> special = {}) {
  special.resize(model.max_id() + 1);
  BpeScratch scratch;
  std::vector<int32_t> ids;
  model.Encode(word, special, &scratch, &ids);
  return ids;
}

TEST(BpeModelTest, MergesByRankAndLeftmostFirst) {
  const auto model = Parse(R"({"type": "BPE",
      "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "aa": 5, "abc": 6},
      "merges": ["b c", ["a", "b"], "a a"]})");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(Encode(*model, "abc"), ElementsAre(0, 4));  // "b c" has the lower rank
  EXPECT_THAT(Encode(*model, "ab"), ElementsAre(3));
  EXPECT_THAT(Encode(*model, "aaa"), ElementsAre(5, 0));
  EXPECT_THAT(Encode(*model, "aaab"), ElementsAre(5, 3));
}

// Ranks decide; pairs of equal rank merge from left to right: the definition, quadratic.
std::vector<std::string> MergeNaively(
    const std::map<std::pair<std::string, std::string>, int>& ranks,
    std::vector<std::string> symbols) {
  for (;;) {
    int best_rank = -1;
    size_t best = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = ranks.find({symbols[i], symbols[i + 1]});
      if (found != ranks.end() && (best_rank < 0 || found->second < best_rank)) {
        best_rank = found->second;
        best = i;
      }
    }
    if (best_rank < 0) return symbols;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + best + 1);
  }
}

TEST(BpeModelTest, TheHeapMergesAsTheDefinitionDoes) {
  const unsigned seed = 20261123;
  std::mt19937 random(seed);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::string> tokens = {"a", "b", "c"};
    std::map<std::pair<std::string, std::string>, int> ranks;
    nlohmann::json merges = nlohmann::json::array();
    for (int i = 0; i < 25; ++i) {
      const std::string left = tokens[random() % tokens.size()];
      const std::string right = tokens[random() % tokens.size()];
      if (left.size() + right.size() > 8 || !ranks.emplace(std::pair(left, right), i).second)
        continue;
      merges.push_back({left, right});
      ranks[{left, right}] = static_cast<int>(merges.size()) - 1;
      if (std::find(tokens.begin(), tokens.end(), left + right) == tokens.end()) {
        tokens.push_back(left + right);
      }
    }
    nlohmann::json json = {{"type", "BPE"}, {"merges", merges}};
    for (size_t i = 0; i < tokens.size(); ++i) json["vocab"][tokens[i]] = i;
    const auto model = Parse(json.dump());
    ASSERT_TRUE(model.ok()) << model.status();
    for (int i = 0; i < 100; ++i) {
      std::string word;
      std::vector<std::string> symbols;
      for (int k = 1 + random() % 20; k > 0; --k) symbols.emplace_back(1, "abc"[random() % 3]);
      for (const std::string& symbol : symbols) word += symbol;
      std::vector<std::string> spelled;
      for (const int32_t id : Encode(*model, word)) spelled.push_back(*model->IdToToken(id));
      ASSERT_EQ(spelled, MergeNaively(ranks, symbols)) << word << " seed " << seed;
    }
  }
}

TEST(BpeModelTest, UnknownCharactersVanishBecomeUnknownOrBytes) {
  const std::string vocab =
      R"("vocab": {"a": 0, "<unk>": 1, "<0xC3>": 2, "<0xA9>": 3}, "merges": [])";
  const auto plain = Parse("{" + vocab + "}");
  const auto unknown = Parse(R"({"unk_token": "<unk>", )" + vocab + "}");
  const auto fused = Parse(R"({"unk_token": "<unk>", "fuse_unk": true, )" + vocab + "}");
  const auto bytes = Parse(R"({"unk_token": "<unk>", "byte_fallback": true, )" + vocab + "}");
  EXPECT_THAT(Encode(*plain,
                     "x\u00E9"
                     "a"),
              ElementsAre(0));
  EXPECT_THAT(Encode(*plain, "xyz"), IsEmpty());
  EXPECT_THAT(Encode(*unknown, "xyax"), ElementsAre(1, 1, 0, 1));
  EXPECT_THAT(Encode(*fused, "xyax"), ElementsAre(1, 0, 1));
  EXPECT_THAT(Encode(*bytes, "a\u00E9\u00E8"), ElementsAre(0, 2, 3, 1));  // no token <0xA8>
}

TEST(BpeModelTest, IgnoreMergesTakesWholeWordsButNeverSpecialOnes) {
  const auto model = Parse(
      R"({"ignore_merges": true, "vocab": {"a": 0, "b": 1, "ab": 2, "ba": 3}, "merges": []})");
  EXPECT_THAT(Encode(*model, "ab"), ElementsAre(2));
  EXPECT_THAT(Encode(*model, "abb"), ElementsAre(0, 1, 1));
  EXPECT_THAT(Encode(*model, "ab", {false, false, true, false}), ElementsAre(0, 1));
}

TEST(BpeModelTest, PrefixAndSuffixOfSubwordsAreHonoured) {
  const auto suffix = Parse(R"({"end_of_word_suffix": "#", "vocab": {"a": 0, "b#": 1, "ab#": 2},
                                "merges": ["a b#"]})");
  EXPECT_THAT(Encode(*suffix, "ab"), ElementsAre(2));
  const auto prefix = Parse(R"({"continuing_subword_prefix": "##",
                                "vocab": {"a": 0, "##b": 1, "ab": 2}, "merges": ["a ##b"]})");
  EXPECT_THAT(Encode(*prefix, "ab"), ElementsAre(2));
}

TEST(BpeModelTest, MalformedModelsAreRefusedWithTheirPath) {
  for (const auto& [json, message] : std::vector<std::pair<std::string, std::string>>{
           {R"({"type": "WordPiece"})", "model: unknown type 'WordPiece'"},
           {R"([])", "model: must be an object"},
           {R"({"merges": []})", "model.vocab: must be an object"},
           {R"({"vocab": {"a": 0}})", "model.merges: must be a list"},
           {R"({"vocab": {"a": -1}, "merges": []})",
            "model.vocab['a']: is -1, must be in [0, 4194303]"},
           {R"({"vocab": {"a": 4294967296}, "merges": []})", "model.vocab['a']: is 4294967296"},
           {R"({"vocab": {"a": "0"}, "merges": []})", "model.vocab['a']: must be an integer"},
           {R"({"vocab": {"a": 3, "b": 3}, "merges": []})", "have the same id 3"},
           {R"({"vocab": {"a": 0}, "merges": ["a"]})", "model.merges[0]: must be"},
           {R"({"vocab": {"a": 0}, "merges": ["a a a"]})", "model.merges[0]: must be"},
           {R"({"vocab": {"a": 0}, "merges": [["a"]]})", "model.merges[0]: must be"},
           {R"({"vocab": {"a": 0}, "merges": ["a b"]})",
            "model.merges[0]: 'b' is not in the vocab"},
           {R"({"vocab": {"a": 0}, "merges": ["a a"]})",
            "model.merges[0]: 'aa' is not in the vocab"},
           {R"({"vocab": {}, "merges": [], "unk_token": "u"})", "model.unk_token: 'u' is not in"},
           {R"({"vocab": {}, "merges": [], "dropout": 0.1})", "model.dropout: must be absent or 0"},
           {R"({"vocab": {"a": 0}, "merges": ["a a"], "continuing_subword_prefix": "##"})",
            "shorter than continuing_subword_prefix"}}) {
    const auto status = Parse(json).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << json;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

}  // namespace
}  // namespace chorus
