#include "client/flag_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "chorus/v1/inference.pb.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Values {
  std::string server;
  std::optional<std::string> prefix;
  std::vector<std::string> paraphrases;
  std::optional<float> top_p;
  std::optional<int32_t> count;
  std::optional<uint64_t> seed;
  absl::Duration timeout;
  std::vector<float> weights;
  std::optional<v1::PositionMode> positions;
  std::vector<std::pair<int32_t, float>> logit_bias;
  bool json = false;
};

FlagParser MakeParser(Values& values) {
  FlagParser parser("chorus test", "WORD [flags]", "Tests flags.");
  parser.AddSection("Some:");
  parser.AddFlag("server", "HOST:PORT", "where", Into(&values.server));
  parser.AddFlag("prefix", "TEXT", "before", IntoUnescaped(&values.prefix));
  parser.AddFlag("paraphrase", "TEXT", "another", Append(&values.paraphrases));
  parser.AddFlag("top_p", "P", "share", Into(&values.top_p));
  parser.AddFlag("count", "N", "number", Into(&values.count));
  parser.AddFlag("seed", "N", "seed", Into(&values.seed));
  parser.AddFlag("timeout", "TIME", "time", Into(&values.timeout));
  parser.AddFlag("weights", "W,W", "weights", IntoList(&values.weights));
  parser.AddFlag("positions", EnumSyntax<v1::PositionMode>(), "mode", IntoEnum(&values.positions));
  parser.AddFlag("logit_bias", "ID:B", "bias", AppendLogitBias(&values.logit_bias));
  parser.AddSwitch("json", "as JSON", &values.json);
  return parser;
}

std::string ErrorOf(const std::vector<std::string>& arguments) {
  Values values;
  const auto result = MakeParser(values).Parse(arguments);
  return result.ok() ? "" : std::string(result.status().message());
}

TEST(FlagParserTest, ReadsEveryKindOfValue) {
  Values values;
  const auto result = MakeParser(values).Parse(
      {"--server=h:1", "--prefix=a\\n\\t\\\\b", "--top_p=0.5", "--count=-3",
       "--seed=18446744073709551615", "--timeout=1m30s", "--weights=1,0.5,2",
       "--positions=overlapping", "--logit_bias=7:-2.5", "--logit_bias=8:1", "--json", "word"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->words, ElementsAre("word"));
  EXPECT_EQ(values.server, "h:1");
  EXPECT_EQ(values.prefix, "a\n\t\\b");
  EXPECT_EQ(values.top_p, 0.5f);
  EXPECT_EQ(values.count, -3);
  EXPECT_EQ(values.seed, 18446744073709551615u);
  EXPECT_EQ(values.timeout, absl::Seconds(90));
  EXPECT_THAT(values.weights, ElementsAre(1, 0.5, 2));
  EXPECT_EQ(values.positions, v1::POSITION_MODE_OVERLAPPING);
  EXPECT_THAT(values.logit_bias, ElementsAre(std::pair(7, -2.5f), std::pair(8, 1.0f)));
  EXPECT_TRUE(values.json);
}

TEST(FlagParserTest, FlagsRepeatAndTakeTheNextWordAsTheirValue) {
  Values values;
  const auto result = MakeParser(values).Parse(
      {"--paraphrase", "one", "question", "--paraphrase=[two,three]", "--paraphrase", "--json"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(values.paraphrases, ElementsAre("one", "[two,three]", "--json"));
  EXPECT_THAT(result->words, ElementsAre("question"));
  EXPECT_FALSE(values.json);
}

TEST(FlagParserTest, AnEmptyValueIsGivenAndTakesNoWord) {
  Values values;
  const auto result = MakeParser(values).Parse({"--prefix=", "question"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(values.prefix, "");
  EXPECT_THAT(result->words, ElementsAre("question"));
}

TEST(FlagParserTest, AValueMayHoldEqualSigns) {
  Values values;
  ASSERT_TRUE(MakeParser(values).Parse({"--paraphrase=a=b==c"}).ok());
  EXPECT_THAT(values.paraphrases, ElementsAre("a=b==c"));
}

TEST(FlagParserTest, TwoDashesEndTheFlags) {
  Values values;
  const auto result = MakeParser(values).Parse({"--json", "--", "--count=1", "-x", "--help"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->words, ElementsAre("--count=1", "-x", "--help"));
}

TEST(FlagParserTest, ADashAloneAndNegativeNumbersAreWords) {
  Values values;
  const auto result = MakeParser(values).Parse({"-", "-5"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->words, ElementsAre("-", "-5"));
}

TEST(FlagParserTest, SwitchesCanBeTurnedOffAgain) {
  Values values;
  ASSERT_TRUE(MakeParser(values).Parse({"--json", "--json=false"}).ok());
  EXPECT_FALSE(values.json);
}

TEST(FlagParserTest, HelpIsNoticedBeforeLaterErrors) {
  Values values;
  const auto result = MakeParser(values).Parse({"--help", "--bogus"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->wants_help);
}

TEST(FlagParserTest, ErrorsNameTheFlagTheValueAndWhatIsAllowed) {
  EXPECT_EQ(
      ErrorOf({"--paraphase=x"}),
      "unknown flag --paraphase; did you mean --paraphrase? ('chorus test --help' lists all)");
  EXPECT_EQ(ErrorOf({"--entirely_else"}),
            "unknown flag --entirely_else ('chorus test --help' lists all)");
  EXPECT_EQ(ErrorOf({"-j"}), "unknown flag -j ('chorus test --help' lists all)");
  EXPECT_EQ(ErrorOf({"--positions=middle"}),
            "--positions=middle is not one of sequential, overlapping");
  EXPECT_EQ(ErrorOf({"--positions=unspecified"}),
            "--positions=unspecified is not one of sequential, overlapping");
  EXPECT_EQ(ErrorOf({"--top_p=much"}), "--top_p=much is not a number");
  EXPECT_EQ(ErrorOf({"--top_p="}), "--top_p= is not a number");
  EXPECT_EQ(ErrorOf({"--count=1.5"}), "--count=1.5 is not a whole number of 32 bits");
  EXPECT_EQ(ErrorOf({"--count=2147483648"}), "--count=2147483648 is not a whole number of 32 bits");
  EXPECT_EQ(ErrorOf({"--seed=-1"}), "--seed=-1 is not a whole number of 0 to 2^64 - 1");
  EXPECT_EQ(ErrorOf({"--weights=1,,2"}),
            "--weights=1,,2 is not a list of numbers separated by commas");
  EXPECT_THAT(ErrorOf({"--timeout=soon"}), HasSubstr("is not a time such as 90s"));
  EXPECT_EQ(ErrorOf({"--timeout=0"}), "--timeout=0 is not above 0");
  EXPECT_THAT(ErrorOf({"--logit_bias=5"}), HasSubstr("is not TOKEN_ID:NUMBER"));
  EXPECT_THAT(ErrorOf({"--prefix=C:\\dir"}), HasSubstr("holds a backslash that is none of"));
  EXPECT_THAT(ErrorOf({"--prefix=end\\"}), HasSubstr("holds a backslash that is none of"));
  EXPECT_EQ(ErrorOf({"--server"}), "--server needs a value: --server=HOST:PORT");
  EXPECT_EQ(ErrorOf({"--json=yes"}), "--json=yes is not one of true, false");
}

TEST(FlagParserTest, HelpShowsEveryFlagUnderItsHeadingWithinTheWidth) {
  Values values;
  const std::string help = MakeParser(values).Help();
  EXPECT_THAT(help, HasSubstr("Usage: chorus test WORD [flags]"));
  EXPECT_THAT(help, HasSubstr("\nSome:\n  --server=HOST:PORT"));
  EXPECT_THAT(help, HasSubstr("--positions=sequential|overlapping"));
  EXPECT_THAT(help, HasSubstr("  --json  "));
}

}  // namespace
}  // namespace chorus
