#include "client/load_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::Status Read(const std::vector<std::string>& arguments, LoadOptions& options) {
  const absl::StatusOr<FlagParser::Result> result = MakeLoadParser(options).Parse(arguments);
  return result.ok() ? FinishLoadOptions(options) : result.status();
}

std::string ErrorOf(const std::vector<std::string>& arguments) {
  LoadOptions options;
  return std::string(Read(arguments, options).message());
}

TEST(LoadOptionsTest, DefaultsAreAClosedLoopOfEightForHalfAMinute) {
  LoadOptions options;
  ASSERT_EQ(ErrorOf({"--data=x"}), "");
  ASSERT_TRUE(Read({"--data=x"}, options).ok());
  EXPECT_FALSE(options.is_open_loop());
  EXPECT_EQ(options.num_clients(), 8);
  EXPECT_EQ(options.num_channels(), 1);
  EXPECT_EQ(options.duration, absl::Seconds(30));
  EXPECT_EQ(options.warmup.num_requests, 0);
  EXPECT_THAT(options.ask.methods, ElementsAre(v1::FUSION_METHOD_ATTENTION));
}

TEST(LoadOptionsTest, ANumberOfRequestsAloneHasNoDuration) {
  LoadOptions options;
  ASSERT_TRUE(Read({"--data=x", "--requests=5"}, options).ok());
  EXPECT_EQ(options.duration, std::nullopt);
}

TEST(LoadOptionsTest, ReadsShapesWarmUpsAndRates) {
  LoadOptions options;
  ASSERT_TRUE(
      Read({"--synthetic=6x40", "--rate=2.5", "--warmup=7", "--prefix_tokens=3"}, options).ok());
  EXPECT_EQ(options.synthetic->num_prompts, 6);
  EXPECT_EQ(options.synthetic->prompt_tokens, 40);
  EXPECT_TRUE(options.is_open_loop());
  EXPECT_EQ(options.rate, 2.5);
  EXPECT_EQ(options.warmup.num_requests, 7);
  ASSERT_TRUE(MakeLoadParser(options).Parse({"--warmup=1500ms"}).ok());
  EXPECT_EQ(options.warmup.num_requests, 0);
  EXPECT_EQ(options.warmup.duration, absl::Milliseconds(1500));
}

TEST(LoadOptionsTest, TakesTheFlagsOfAskAndItsPreset) {
  LoadOptions options;
  ASSERT_TRUE(Read({"--data=x", "--method=vote,prob_mean", "--max_new_tokens=9", "--temperature=1",
                    "--priority=3", "--preset=prototype"},
                   options)
                  .ok());
  EXPECT_THAT(options.ask.methods,
              ElementsAre(v1::FUSION_METHOD_VOTE, v1::FUSION_METHOD_PROB_MEAN));
  EXPECT_EQ(options.ask.max_new_tokens, 9);
  EXPECT_EQ(options.ask.priority, 3);
  EXPECT_EQ(options.ask.separator, "\n\n[SEP]\n\n");
}

TEST(LoadOptionsTest, TheSeedIsTheOneGivenOrADrawnOne) {
  LoadOptions given, drawn, other;
  ASSERT_TRUE(Read({"--data=x", "--seed=18446744073709551615"}, given).ok());
  EXPECT_EQ(given.random_seed, 18446744073709551615u);
  ASSERT_TRUE(Read({"--data=x"}, drawn).ok());
  ASSERT_TRUE(Read({"--data=x"}, other).ok());
  EXPECT_FALSE(drawn.ask.seed.has_value());
  EXPECT_NE(drawn.random_seed, other.random_seed);  // fails once in 2^32 runs
}

struct Refusal {
  std::vector<std::string> arguments;
  const char* error;
};

TEST(LoadOptionsTest, RefusalsNameTheFlagAndWhatIsWrong) {
  const std::vector<Refusal> cases = {
      {{}, "nothing to ask"},
      {{"--data=x", "--synthetic=1x1"}, "--data and --synthetic exclude each other"},
      {{"--data=x", "--clients=1", "--rate=1"}, "exclude each other"},
      {{"--synthetic=6"}, "--synthetic=6 is not PROMPTSxTOKENS"},
      {{"--synthetic=0x4"}, "--synthetic=0x4 is not PROMPTSxTOKENS"},
      {{"--synthetic=6x40x2"}, "is not PROMPTSxTOKENS"},
      {{"--synthetic=9999x9999"}, "--synthetic=9999x9999 is more than 16777216 tokens"},
      {{"--data=x", "--warmup=-1"}, "--warmup=-1 is neither a number of requests nor a time"},
      {{"--data=x", "--warmup=soon"}, "--warmup=soon is neither"},
      {{"--data=x", "--clients=0"}, "--clients=0 is not in 1 to 100000"},
      {{"--data=x", "--requests=0"}, "--requests=0 is not in 1 to"},
      {{"--data=x", "--rate=0"}, "--rate=0 is not in"},
      {{"--data=x", "--rate=nan"}, "--rate=nan is not in"},
      {{"--data=x", "--duration=0s"}, "--duration=0s is not above 0"},
      {{"--data=x", "--channels=1001"}, "--channels=1001 is not in 1 to 1000"},
      {{"--data=x", "--cancel=1.5"}, "--cancel=1.5 is not in 0 to 1"},
      {{"--data=x", "--slow_readers=-1"}, "--slow_readers=-1 is not in 0 to 1"},
      {{"--synthetic=1x1", "--shuffle"}, "--shuffle belongs to --data"},
      {{"--synthetic=1x1", "--unique"}, "--unique belongs to --data"},
      {{"--synthetic=1x1", "--suffix=A:"}, "--suffix belongs to --data; see --suffix_tokens"},
      {{"--synthetic=1x1", "--template=none"}, "--template belongs to --data"},
      {{"--data=x", "--prefix_tokens=5"}, "--prefix_tokens belongs to --synthetic; see --prefix"},
      {{"--data=x", "--repeat=5"}, "--repeat belongs to --synthetic"},
      {{"--data=x", "--max_in_flight=5"}, "--max_in_flight belongs to --rate"},
      {{"--data=x", "--rate=1", "--error_pause=1s"}, "--error_pause belongs to --clients"},
      {{"--data=x", "--cancel_within=1s"}, "--cancel_within belongs to --cancel=P"},
      {{"--data=x", "--slow_read=1s"}, "--slow_read belongs to --slow_readers=P"},
      {{"--data=x", "--stall_probe_after=1s"}, "belongs to --stall_probe=TOKENS"},
      {{"--data=x", "--stall_probe=0"}, "--stall_probe=0 is not in 1 to"},
      {{"--data=x", "--paraphrase=y"}, "unknown flag --paraphrase"}};
  for (const Refusal& refusal : cases) {
    EXPECT_THAT(ErrorOf(refusal.arguments), HasSubstr(refusal.error));
  }
}

TEST(LoadOptionsTest, ThePresetsEmptyPrefixIsNoTextForTokens) {
  EXPECT_EQ(ErrorOf({"--synthetic=2x3", "--preset=prototype"}), "");
}

}  // namespace
}  // namespace chorus
