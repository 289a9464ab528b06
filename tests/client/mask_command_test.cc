#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "tests/client/run_command.h"
#include "tests/support/segment_rule.h"

namespace chorus {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

Outcome RunMask(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "mask");
  return RunChorus(arguments);
}

nlohmann::json MaskJson(std::vector<std::string> arguments) {
  arguments.push_back("--json");
  const Outcome outcome = RunMask(std::move(arguments));
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  return nlohmann::json::parse(outcome.out, nullptr, /*allow_exceptions=*/false);
}

// What the JSON says, against a count over every pair with the rule of the founding documents.
void ExpectCountsOfTheRule(const nlohmann::json& mask) {
  const SegmentRule rule = {.segments = mask["segments"],
                            .original_length = mask["original_length"],
                            .prefix_length = mask["prefix_length"]};
  const int length = mask["length"];
  int64_t allowed = 0;
  std::vector<int> per_row(length, 0);
  std::vector<std::vector<int>> masked;
  for (int q = 0; q < length; ++q) {
    for (int k = 0; k < length; ++k) per_row[q] += rule.Allows(q, k);
    allowed += per_row[q];
    if (per_row[q] > 0) continue;
    if (!masked.empty() && masked.back()[1] == q) {
      masked.back()[1] = q + 1;
    } else {
      masked.push_back({q, q + 1});
    }
  }
  EXPECT_EQ(mask["allowed"], allowed);
  EXPECT_EQ(mask["total"], int64_t{length} * length);
  EXPECT_DOUBLE_EQ(mask["ratio"], static_cast<double>(allowed) / (int64_t{length} * length));
  EXPECT_EQ(mask["allowed_per_row"], nlohmann::json(per_row));
  EXPECT_EQ(mask["fully_masked_rows"], nlohmann::json(masked));

  const std::vector<int> positions = mask["shown"]["positions"];
  int64_t shown = 0;
  for (size_t i = 0; i < positions.size(); ++i) {
    for (size_t j = 0; j < positions.size(); ++j) {
      const bool allows = rule.Allows(positions[i], positions[j]);
      EXPECT_EQ(mask["shown"]["matrix"][i][j], allows ? 1 : 0);
      shown += allows;
    }
  }
  EXPECT_EQ(mask["shown"]["allowed"], shown);
  EXPECT_EQ(mask["shown"]["total"], positions.size() * positions.size());
  for (const auto& query : mask["queries"]) EXPECT_EQ(query["allowed"], per_row[query["query"]]);
}

// Founding document 000's layouts, and what it and an independent count say of them.
struct NamedLayout {
  const char* name;
  const char* mode;
  int length, original_length;
  int64_t allowed, shown_allowed;
  size_t shown;
  std::vector<int> queries;
};

class NamedLayoutTest : public ::testing::TestWithParam<NamedLayout> {};

TEST_P(NamedLayoutTest, HasTheDocumentsStatisticsAndTheRules) {
  const NamedLayout& named = GetParam();
  const nlohmann::json mask = MaskJson({absl::StrCat("--scenario=", named.name)});
  EXPECT_EQ(mask["layout"], named.name);
  EXPECT_EQ(mask["length"], named.length);
  EXPECT_EQ(mask["original_length"], named.original_length);
  EXPECT_EQ(mask["allowed"], named.allowed);
  EXPECT_EQ(mask["shown"]["mode"], named.mode);
  EXPECT_THAT(mask["shown"]["positions"], SizeIs(named.shown));
  EXPECT_EQ(mask["shown"]["allowed"], named.shown_allowed);
  std::vector<int> queries;
  for (const auto& query : mask["queries"]) queries.push_back(query["query"]);
  EXPECT_EQ(queries, named.queries);
  ExpectCountsOfTheRule(mask);
}

INSTANTIATE_TEST_SUITE_P(
    Scenarios, NamedLayoutTest,
    ::testing::Values(NamedLayout{"small", "full", 54, 49, 620, 620, 54, {5, 39, 49, 53}},
                      NamedLayout{"medium", "sampled", 145, 137, 2757, 238, 30, {5, 117, 137, 144}},
                      NamedLayout{"large", "sampled", 281, 266, 10485, 296, 35, {5, 221, 266, 280}},
                      NamedLayout{
                          "custom", "sampled", 139, 129, 3205, 249, 30, {5, 104, 129, 138}}),
    [](const auto& info) { return std::string(info.param.name); });

// Founding document 003's example: 248 tokens, five segments without separators.
const std::vector<std::string> kDocumentExample = {"--segments=0:48,48:95,95:143,143:192,192:238",
                                                   "--original_length=238", "--length=248",
                                                   "--max_positions=25"};

TEST(MaskCommandTest, TheDocumentsExampleIsDrawnAsThere) {
  const Outcome outcome = RunMask(kDocumentExample);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr(R"(
  Q\KV   0  16  32  47  48  63  79  94  95 111 127 142 143 159 175 191 192 207 222 237 238 239 240 241 242
S1   0   ■   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·
    16   ■   ■   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·
    32   ■   ■   ■   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·
E1  47   ■   ■   ■   ■   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·
S2  48   ·   ·   ·   ·   ■   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·
    63   ·   ·   ·   ·   ■   ■   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·
    79   ·   ·   ·   ·   ■   ■   ■   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·
E2  94   ·   ·   ·   ·   ■   ■   ■   ■   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·
S3  95   ·   ·   ·   ·   ·   ·   ·   ·   ■   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·
   111   ·   ·   ·   ·   ·   ·   ·   ·   ■   ■   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·
   127   ·   ·   ·   ·   ·   ·   ·   ·   ■   ■   ■   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·
E3 142   ·   ·   ·   ·   ·   ·   ·   ·   ■   ■   ■   ■   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·
S4 143   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ■   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·   ·
)"));
  EXPECT_THAT(outcome.out, HasSubstr(R"(
G0 238   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ·   ·   ·   ·
   239   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ■   ·   ·   ·
)"));
}

TEST(MaskCommandTest, TheDocumentsExampleHasItsPositionsLabelsAndCells) {
  const nlohmann::json mask = MaskJson(kDocumentExample);
  EXPECT_EQ(mask["shown"]["positions"],
            nlohmann::json({0,   16,  32,  47,  48,  63,  79,  94,  95,  111, 127, 142, 143,
                            159, 175, 191, 192, 207, 222, 237, 238, 239, 240, 241, 242}));
  EXPECT_EQ(mask["shown"]["labels"],
            nlohmann::json({"S1", "", "",   "E1", "S2", "", "",   "E2", "S3", "", "", "E3", "S4",
                            "",   "", "E4", "S5", "",   "", "E5", "G0", "",   "", "", ""}));
  ExpectCountsOfTheRule(mask);
}

TEST(MaskCommandTest, AnyLayoutWithPrefixAndGapsCountsByTheRule) {
  const nlohmann::json mask = MaskJson({"--segments=4:9,11:16,16:17", "--prefix_length=3",
                                        "--original_length=19", "--length=23", "--tile_size=4"});
  ExpectCountsOfTheRule(mask);
  EXPECT_EQ(mask["fully_masked_rows"], nlohmann::json::parse("[[3,4],[9,11],[17,19]]"));
  EXPECT_EQ(mask["row_intervals"][2],
            nlohmann::json::parse(R"({"begin":4,"end":9,"keys":[[0,3],[4,9]]})"));
  EXPECT_EQ(mask["tiles"]["total"], 36);
}

TEST(MaskCommandTest, LengthsDefaultToTheEndOfTheLastSegment) {
  const nlohmann::json mask = MaskJson({"--segments=0:15,17:32"});
  EXPECT_EQ(mask["original_length"], 32);
  EXPECT_EQ(mask["length"], 32);
  ExpectCountsOfTheRule(mask);
}

TEST(MaskCommandTest, EveryNumberOfTheCustomLayoutIsAFlag) {
  const nlohmann::json mask =
      MaskJson({"--prompts=3", "--tokens=7", "--separator_tokens=1", "--generated=2", "--full"});
  EXPECT_EQ(mask["layout"], "custom");
  EXPECT_EQ(mask["segments"], nlohmann::json::parse("[[0,7],[8,15],[16,23]]"));
  EXPECT_EQ(mask["length"], 25);
  EXPECT_THAT(mask["shown"]["positions"], SizeIs(25));
  ExpectCountsOfTheRule(mask);
}

TEST(MaskCommandTest, FlagsOverruleTheScenariosDisplay) {
  EXPECT_EQ(MaskJson({"--scenario=small", "--sampled"})["shown"]["mode"], "sampled");
  EXPECT_THAT(MaskJson({"--scenario=small", "--max_positions=12"})["shown"]["positions"],
              SizeIs(12));
  EXPECT_THAT(MaskJson({"--scenario=medium", "--full"})["shown"]["positions"], SizeIs(145));
  EXPECT_THAT(MaskJson({"--segments=0:20,20:40", "--length=54"})["shown"]["positions"], SizeIs(54));
  EXPECT_THAT(MaskJson({"--segments=0:20,20:40", "--length=55"})["shown"]["positions"], SizeIs(30));
}

TEST(MaskCommandTest, TheTextSaysWhatTheDocumentAsksFor) {
  const Outcome outcome = RunMask({"--scenario=medium"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("segment        begin     end  tokens\n"
                                     "1                  0      25      25\n"
                                     "separator         25      28       3\n"));
  EXPECT_THAT(outcome.out, HasSubstr("length           145\noriginal_length  137\n"
                                     "allowed          2757 of 21025 pairs (13.1 %)\n"
                                     "shown            30 of 145 positions (20.7 %): 238 of 900 "
                                     "pairs (26.4 %)\n"
                                     "fully masked     12 rows: 25-27, 53-55, 81-83, 109-111\n"));
  EXPECT_THAT(outcome.out,
              HasSubstr("first segment           5  6 of 145 keys (4.1 %): 0-5\n"
                        "last segment          117  6 of 145 keys (4.1 %): 112-117\n"
                        "first generated       137  138 of 145 keys (95.2 %): 0-137\n"
                        "last                  144  145 of 145 keys (100.0 %): 0-144\n"));
  EXPECT_THAT(outcome.out, Not(HasSubstr("\x1b")));
}

class BadMaskTest
    : public ::testing::TestWithParam<std::pair<std::vector<std::string>, const char*>> {};

TEST_P(BadMaskTest, IsRefusedWithOneLineThatNamesIt) {
  const Outcome outcome = RunMask(GetParam().first);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr(GetParam().second));
}

INSTANTIATE_TEST_SUITE_P(
    Usage, BadMaskTest,
    ::testing::Values(
        std::pair{std::vector<std::string>{"--segments=0:15,12:20"},
                  "--segments: segment 1 [12, 20) overlaps or precedes segment 0 [0, 15)"},
        std::pair{std::vector<std::string>{"--segments=10:15,0:5", "--length=20"},
                  "--segments: segment 1 [0, 5) overlaps or precedes segment 0 [10, 15)"},
        std::pair{std::vector<std::string>{"--segments=0:15,17:32", "--original_length=30",
                                           "--length=40"},
                  "--segments: segment 1 [17, 32) ends after original_length 30"},
        std::pair{std::vector<std::string>{"--segments=0:15", "--length=10"},
                  "--length 10 is below original_length 15"},
        std::pair{std::vector<std::string>{"--segments=0:0"},
                  "--segments: segment 0 [0, 0) is empty"},
        std::pair{std::vector<std::string>{"--segments=0:5,7:7"},
                  "--segments: segment 1 [7, 7) is empty"},
        std::pair{std::vector<std::string>{"--segments=5:3"},
                  "--segments: segment 0 [5, 3) is empty"},
        std::pair{std::vector<std::string>{"--segments=-4:3"},
                  "--segments: segment 0 [-4, 3) begins before prefix_length 0"},
        std::pair{std::vector<std::string>{"--segments=2:9", "--prefix_length=4"},
                  "--segments: segment 0 [2, 9) begins before prefix_length 4"},
        std::pair{std::vector<std::string>{"--segments=0:5", "--length=0"},
                  "--length: 0 is not valid: must be 1 to 1048576"},
        std::pair{std::vector<std::string>{"--original_length=0"}, "--length: 0 is not valid"},
        std::pair{std::vector<std::string>{"--segments=0:5", "--original_length=9999999"},
                  "--original_length: 9999999 is not valid: must be 0 to 1048576"},
        std::pair{std::vector<std::string>{"--segments=0:2000000"},
                  "--segments: 2000000 tokens is not valid: must be at most 1048576"},
        std::pair{std::vector<std::string>{"--segments=0:5;7:9"}, "is not BEGIN:END,BEGIN:END"},
        std::pair{std::vector<std::string>{"--segments=0:99999999999"}, "is not BEGIN:END"},
        std::pair{std::vector<std::string>{"--segments="}, "is not BEGIN:END"},
        std::pair{std::vector<std::string>{"--scenario=tiny"},
                  "--scenario: tiny is not valid: must be one of small, medium, large, custom"},
        std::pair{std::vector<std::string>{"--scenario=small", "--tokens=9"},
                  "--scenario: small is not valid: --prompts, --tokens"},
        std::pair{std::vector<std::string>{"--scenario=small", "--generated=9"}, "--generated: 9"},
        std::pair{std::vector<std::string>{"--scenario=small", "--segments=0:4"}, "two layouts"},
        std::pair{std::vector<std::string>{"--prompts=0"}, "--prompts: 0 is not valid: must be 1"},
        std::pair{std::vector<std::string>{"--prompts=100000", "--tokens=100000"},
                  "is not valid: must be at most 1048576 in all"},
        std::pair{std::vector<std::string>{"--full", "--sampled"}, "--full shows every token"},
        std::pair{std::vector<std::string>{"--max_positions=4"},
                  "--max_positions: 4 is not valid: must be 5 to 2048"},
        std::pair{std::vector<std::string>{"--segments=0:3000", "--full"},
                  "--full: 3000 tokens is not valid: a picture shows at most 2048"},
        std::pair{std::vector<std::string>{"--segments=0:1000000", "--tile_size=1"},
                  "--tile_size: 1 is not valid"},
        std::pair{std::vector<std::string>{"--segments=0:100000", "--npy=unused.npy"},
                  "--npy: 100000 x 100000 cells is not valid"},
        std::pair{std::vector<std::string>{"Why?"}, "need --model=DIR"},
        std::pair{std::vector<std::string>{"--paraphrase=Why?"}, "need --model=DIR"},
        std::pair{std::vector<std::string>{"--model=no/such/dir"}, "--model needs a question"},
        std::pair{std::vector<std::string>{"--model=no/such/dir", "Why?"},
                  "no/such/dir/tokenizer.json"}));

TEST(MaskCommandTest, HelpExplainsTheKeysWithoutAServer) {
  const Outcome outcome = RunMask({"--help"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.out, HasSubstr("Usage: chorus mask"));
  EXPECT_THAT(outcome.out, HasSubstr("Examples:"));
  const nlohmann::json mask = MaskJson({});
  for (const auto& [key, value] : mask.items()) EXPECT_THAT(outcome.out, HasSubstr(key));
}

// What numpy.load reads: magic, version, a header of the said length, then a byte for each pair.
TEST(MaskCommandTest, TheNumpyFileHoldsTheWholeMatrix) {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / absl::StrCat("chorus_mask_", getpid(), ".npy");
  const Outcome outcome = RunMask({"--scenario=medium", absl::StrCat("--npy=", path.string())});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  std::filesystem::remove(path);
  ASSERT_GT(bytes.size(), 10u);
  EXPECT_EQ(bytes.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
  const size_t header_size = static_cast<uint8_t>(bytes[8]) + 256 * static_cast<uint8_t>(bytes[9]);
  EXPECT_EQ((10 + header_size) % 64, 0u);
  EXPECT_THAT(bytes.substr(10, header_size),
              HasSubstr("{'descr': '|b1', 'fortran_order': False, 'shape': (145, 145), }"));
  EXPECT_EQ(bytes[10 + header_size - 1], '\n');
  ASSERT_EQ(bytes.size(), 10 + header_size + 145 * 145);
  const SegmentRule rule = {.segments = {{0, 25}, {28, 53}, {56, 81}, {84, 109}, {112, 137}},
                            .original_length = 137};
  for (int q = 0; q < 145; ++q) {
    for (int k = 0; k < 145; ++k) {
      ASSERT_EQ(bytes[10 + header_size + q * 145 + k], rule.Allows(q, k) ? 1 : 0);
    }
  }
}

TEST(MaskCommandTest, AFileThatCannotBeWrittenIsAFailure) {
  const Outcome outcome = RunMask({"--npy=no/such/folder/mask.npy"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("cannot write no/such/folder/mask.npy: No such file"));
}

TEST(MaskCommandTest, AHundredThousandTokensInTwoHundredSegmentsAreSampled) {
  std::vector<std::string> segments;
  for (int i = 0; i < 200; ++i) segments.push_back(absl::StrCat(500 * i, ":", 500 * i + 495));
  const Outcome outcome = RunMask({absl::StrCat("--segments=", absl::StrJoin(segments, ",")),
                                   "--original_length=99995", "--length=100000"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const int64_t allowed = 200 * (495 * 496 / 2) + 5 * 99995 + (1 + 2 + 3 + 4 + 5);
  EXPECT_THAT(outcome.out, HasSubstr(absl::StrCat(allowed, " of 10000000000 pairs")));
  EXPECT_THAT(outcome.out, HasSubstr("shown            30 of 100000 positions"));
  EXPECT_THAT(outcome.out, HasSubstr("\nS200 "));
  EXPECT_THAT(outcome.out, HasSubstr("fully masked     995 rows: 495-499, 995-999, "));
  EXPECT_THAT(outcome.out, HasSubstr(" and 191 ranges more (--json lists all)\n"));
}

}  // namespace
}  // namespace chorus
