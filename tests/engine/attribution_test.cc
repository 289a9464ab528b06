// What a request's tokens say of its prompts: attribution and disagreement, in the caller's order,
// without touching a token. The fake model looks at all keys alike, so that a unit's mass is its
// share of the keys.

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/base/field_error.h"
#include "core/engine/attention_units.h"
#include "core/engine/fusion_strategy.h"
#include "core/engine/vote.h"
#include "tests/engine/engine_test_support.h"
#include "tests/support/fake_probes.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::IsEmpty;
using ::testing::Pointwise;
using ::testing::SizeIs;

// A share of so few keys, and sums of so few floats, are exact to a few units in the last place.
constexpr float kTolerance = 1e-6f;

std::vector<Attribution> AttributionOf(const RecordingSink& sink) {
  std::vector<Attribution> all;
  for (const TokenEvent& event : sink.events()) {
    EXPECT_EQ(event.attribution.size(), event.token_ids.size());
    all.insert(all.end(), event.attribution.begin(), event.attribution.end());
  }
  return all;
}

std::vector<float> DisagreementOf(const RecordingSink& sink) {
  std::vector<float> all;
  for (const TokenEvent& event : sink.events()) {
    EXPECT_EQ(event.disagreement.size(), event.token_ids.size());
    all.insert(all.end(), event.disagreement.begin(), event.disagreement.end());
  }
  return all;
}

float SumOf(const Attribution& attribution) {
  float sum =
      attribution.prefix + attribution.separators + attribution.suffix + attribution.generated;
  for (float share : attribution.segments) sum += share;
  return sum;
}

Request AttributionRequest(int32_t max_new_tokens) {
  Request request = SimpleRequest(FusionMethod::kAttention, max_new_tokens);
  request.response.attribution = true;
  return request;
}

TEST(KeyUnitsTest, CoverTheSequenceInOrderWithTheCallersPrompts) {
  SegmentLayout::Pieces pieces = {
      .prefix_length = 3, .segment_lengths = {2, 4}, .separator_length = 1, .suffix_length = 2};
  const auto layout = SegmentLayout::FromPieces(pieces);
  ASSERT_TRUE(layout.ok());
  const std::vector<int32_t> prompts = {1, 0};
  const KeyUnits units = KeyUnitsOf(*layout, prompts, 20);
  EXPECT_EQ(units.num_units, 6);
  const std::vector<std::vector<int32_t>> want = {{0, 3, 0},  {3, 5, 2},   {5, 6, 3},
                                                  {6, 10, 1}, {10, 12, 4}, {12, 20, 5}};
  ASSERT_THAT(units.ranges, SizeIs(want.size()));
  for (size_t i = 0; i < want.size(); ++i) {
    const KeyUnits::Range& range = units.ranges[i];
    EXPECT_THAT((std::vector<int32_t>{range.begin, range.end, range.unit}), want[i]) << i;
  }
}

TEST(AttributionTest, SaysWhatEachTokensRowSaw) {
  TestEngine test;
  Request request = AttributionRequest(3);
  request.separator = {60};
  const auto sink = test.Run(request);
  const std::vector<Attribution> all = AttributionOf(*sink);
  ASSERT_THAT(all, SizeIs(3));
  for (size_t i = 0; i < all.size(); ++i) {
    // 3 prefix, 4 + 2 + 3 prompt, 2 separator and 2 suffix tokens, and the answer so far.
    const auto total = static_cast<float>(16 + i);
    EXPECT_FLOAT_EQ(all[i].prefix, 3 / total);
    EXPECT_THAT(all[i].segments,
                Pointwise(FloatEq(), std::vector<float>{4 / total, 2 / total, 3 / total}));
    EXPECT_FLOAT_EQ(all[i].separators, 2 / total);
    EXPECT_FLOAT_EQ(all[i].suffix, 2 / total);
    EXPECT_FLOAT_EQ(all[i].generated, static_cast<float>(i) / total);
  }
}

TEST(AttributionTest, AttachedSeparatorCountsToItsSegment) {
  TestEngine test;
  Request request = AttributionRequest(1);
  request.separator = {60, 61};
  request.fusion.separators = SeparatorPolicy::kAttached;
  const std::vector<Attribution> all = AttributionOf(*test.Run(request));
  ASSERT_THAT(all, SizeIs(1));
  EXPECT_EQ(all[0].separators, 0.0f);
  EXPECT_THAT(all[0].segments,
              Pointwise(FloatEq(), std::vector<float>{6 / 18.0f, 4 / 18.0f, 3 / 18.0f}));
}

// Each row sees the prefix and its own segment.
TEST(AttributionTest, FuseFirstIsTheMeanOverItsRows) {
  TestEngine test;
  Request request = AttributionRequest(2);
  request.suffix.clear();
  const std::vector<Attribution> all = AttributionOf(*test.Run(request));
  ASSERT_THAT(all, SizeIs(2));
  EXPECT_NEAR(all[0].prefix, (3 / 7.0 + 3 / 5.0 + 3 / 6.0) / 3, kTolerance);
  EXPECT_NEAR(all[0].segments[0], 4 / 7.0 / 3, kTolerance);
  EXPECT_NEAR(all[0].segments[1], 2 / 5.0 / 3, kTolerance);
  EXPECT_NEAR(all[0].segments[2], 3 / 6.0 / 3, kTolerance);
  EXPECT_FLOAT_EQ(all[1].segments[0], 4 / 13.0f);

  request.fusion.first_token = FirstToken::kLastSegment;
  const std::vector<Attribution> last = AttributionOf(*test.Run(request));
  EXPECT_THAT(last.front().segments, ElementsAre(0.0f, 0.0f, 0.5f));
}

// The same values, bit for bit, at the caller's places, whatever his order.
TEST(AttributionTest, FollowsThePromptsIntoEveryOrder) {
  TestEngine test;
  for (const bool has_suffix : {true, false}) {
    Request request = AttributionRequest(4);
    request.response.prompt_disagreement = true;
    if (!has_suffix) request.suffix.clear();
    const auto want = test.Run(request);
    const std::vector<Attribution> attribution = AttributionOf(*want);
    std::vector<int32_t> order = {0, 1, 2};
    while (std::next_permutation(order.begin(), order.end())) {
      Request permuted = request;
      for (size_t i = 0; i < order.size(); ++i) permuted.prompts[i] = request.prompts[order[i]];
      const auto sink = test.Run(permuted);
      EXPECT_EQ(sink->StreamedIds(), want->StreamedIds());
      EXPECT_EQ(DisagreementOf(*sink), DisagreementOf(*want));
      const std::vector<Attribution> got = AttributionOf(*sink);
      ASSERT_EQ(got.size(), attribution.size());
      for (size_t i = 0; i < got.size(); ++i) {
        EXPECT_EQ(got[i].prefix, attribution[i].prefix);
        EXPECT_EQ(got[i].suffix, attribution[i].suffix);
        EXPECT_EQ(got[i].generated, attribution[i].generated);
        for (size_t k = 0; k < order.size(); ++k) {
          EXPECT_EQ(got[i].segments[k], attribution[i].segments[order[k]]);
        }
      }
    }
  }
}

// What the fake model says after each prompt alone, straight from its arithmetic.
float DisagreementAfter(const Request& request, const std::vector<int32_t>& generated) {
  std::vector<std::vector<float>> rows;
  for (const std::vector<int32_t>& prompt : request.prompts) {
    std::vector<int32_t> tokens = request.prefix;
    for (const auto* part : {&prompt, &request.suffix, &generated}) {
      tokens.insert(tokens.end(), part->begin(), part->end());
    }
    std::vector<uint64_t> states;
    for (size_t q = 0; q < tokens.size(); ++q) {
      std::vector<fake_model::VisibleKey> keys;
      for (size_t k = 0; k < q; ++k) {
        keys.push_back({states[k], static_cast<int32_t>(q - k), /*is_segment=*/false});
      }
      states.push_back(fake_model::RowState(tokens[q], /*sees_itself=*/true, keys, nullptr));
    }
    rows.push_back(fake_model::LogitsOf(states.back(), FakeModelOptions().vocab_size));
  }
  return fake_model::DisagreementOf(rows);
}

constexpr FusionMethod kComparingMethods[] = {FusionMethod::kAttention, FusionMethod::kLogitMean,
                                              FusionMethod::kProbMean, FusionMethod::kProbMax,
                                              FusionMethod::kLogitMax};

class DisagreementTest : public ::testing::TestWithParam<FusionMethod> {};

TEST_P(DisagreementTest, IsThatOfThePromptsOnTheirOwn) {
  TestEngine test;
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 30; ++round) {
    Request request = RandomRequest(random);
    request.fusion.method = GetParam();
    if (!TakesWeights(request)) request.fusion.weights.clear();
    request.response.prompt_disagreement = true;
    const auto sink = test.Run(request);
    ASSERT_TRUE(sink->status().ok()) << sink->status();
    const std::vector<float> got = DisagreementOf(*sink);
    const std::vector<int32_t> ids = sink->StreamedIds();
    ASSERT_EQ(got.size(), ids.size());
    for (size_t i = 0; i < got.size(); ++i) {
      const std::vector<int32_t> before(ids.begin(), ids.begin() + i);
      // In float64, but for the order of the prompts; equal prompts cancel to rounding.
      EXPECT_NEAR(got[i], DisagreementAfter(request, before), kTolerance) << i;
    }
  }
}

TEST_P(DisagreementTest, OfOnePromptIsZeroAndCostsNothing) {
  Request request = SimpleRequest(GetParam(), 4);
  request.prompts.resize(1);
  TestEngine plain, comparing;
  const auto want = plain.Run(request);
  request.response.prompt_disagreement = true;
  const auto got = comparing.Run(request);
  EXPECT_EQ(got->StreamedIds(), want->StreamedIds());
  EXPECT_THAT(DisagreementOf(*got), ElementsAre(0.0f, 0.0f, 0.0f, 0.0f));
  EXPECT_EQ(comparing.observer.counts().rows, plain.observer.counts().rows);
}

TEST_P(DisagreementTest, CostsAttentionARowAPromptAStepAndOthersNothing) {
  Request request = SimpleRequest(GetParam(), 4);
  TestEngine plain, comparing;
  plain.Run(request);
  request.response.prompt_disagreement = true;
  const auto sink = comparing.Run(request);
  const int64_t more = comparing.observer.counts().rows - plain.observer.counts().rows;
  // The suffix after each prompt, then a row a prompt for each of the three tokens that are read.
  EXPECT_EQ(more, GetParam() == FusionMethod::kAttention ? 3 * 2 + 3 * 3 : 0);
  EXPECT_EQ(comparing.observer.counts().prefill_rows, sink->summary().prompt_tokens);
}

INSTANTIATE_TEST_SUITE_P(Methods, DisagreementTest, ::testing::ValuesIn(kComparingMethods));

// All that they may be asked for, in little space and small steps, beside each other.
TEST(TokenStatisticsTest, ChangeNoTokenWhateverTheRequest) {
  // Two workers will count votes at a time: ICU makes its tables under a lock that ThreadSanitizer
  // does not see.
  NormaliseAnswer("");
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  FakeModelOptions model;
  model.num_kv_slots = 700;
  EngineOptions options;
  options.max_step_rows = 24;
  TestEngine plain(model, options), asked(model, options);
  int64_t num_attributed = 0, num_compared = 0;
  for (int round = 0; round < 60; ++round) {
    std::vector<std::shared_ptr<RecordingSink>> want, got;
    std::vector<Request> requests;
    for (int i = 0; i < 4; ++i) {
      Request request = RandomRequest(random);
      want.push_back(plain.Submit(request));
      const FusionMethod method = request.fusion.method;
      request.response.attribution = method == FusionMethod::kAttention;
      request.response.prompt_disagreement =
          method != FusionMethod::kPerPrompt && method != FusionMethod::kVote;
      got.push_back(asked.Submit(request));
      requests.push_back(request);
    }
    for (size_t i = 0; i < want.size(); ++i) {
      want[i]->Await();
      got[i]->Await();
      ASSERT_TRUE(got[i]->status().ok()) << got[i]->status();
      for (int32_t index = -1; index < 6; ++index) {
        EXPECT_EQ(got[i]->StreamedIds(index), want[i]->StreamedIds(index));
        EXPECT_EQ(got[i]->StreamedText(index), want[i]->StreamedText(index));
      }
      EXPECT_EQ(got[i]->summary().answer.mean_logprob, want[i]->summary().answer.mean_logprob);
      if (requests[i].response.attribution) {
        for (const Attribution& attribution : AttributionOf(*got[i])) {
          ++num_attributed;
          EXPECT_NEAR(SumOf(attribution), 1.0f, kTolerance);
          EXPECT_EQ(attribution.segments.size(), requests[i].prompts.size());
        }
      }
      if (!requests[i].response.prompt_disagreement) continue;
      for (float bits : DisagreementOf(*got[i])) {
        ++num_compared;
        EXPECT_GE(bits, 0.0f);
        EXPECT_LE(bits, std::log2(static_cast<float>(requests[i].prompts.size())) + kTolerance);
      }
    }
  }
  EXPECT_GT(num_attributed, 0);
  EXPECT_GT(num_compared, 0);
}

TEST(TokenStatisticsTest, WhatIsNotAskedForIsNotThere) {
  TestEngine test;
  for (const TokenEvent& event : test.Run(SimpleRequest(FusionMethod::kAttention, 3))->events()) {
    EXPECT_THAT(event.attribution, IsEmpty());
    EXPECT_THAT(event.disagreement, IsEmpty());
    EXPECT_THAT(event.attention_steps, IsEmpty());
  }
}

TEST(TokenStatisticsTest, MethodsThatHaveNoneRefuseThemByName) {
  TestEngine test;
  for (int method = 1; method <= 7; ++method) {
    const bool is_attention = method == static_cast<int>(FusionMethod::kAttention);
    const bool is_one_answer = method < static_cast<int>(FusionMethod::kPerPrompt);
    Request request = SimpleRequest(static_cast<FusionMethod>(method), 2);
    request.response.attribution = true;
    auto sink = std::make_shared<RecordingSink>();
    auto submitted = test.engine->Submit(request, sink);
    EXPECT_EQ(submitted.ok(), is_attention) << method;
    if (!is_attention) {
      EXPECT_EQ(submitted.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_EQ(FieldOf(submitted.status()), "response.attribution");
    }
    request.response.attribution = false;
    request.response.prompt_disagreement = true;
    submitted = test.engine->Submit(request, std::make_shared<RecordingSink>());
    EXPECT_EQ(submitted.ok(), is_one_answer) << method;
    if (!is_one_answer) {
      EXPECT_EQ(FieldOf(submitted.status()), "response.prompt_disagreement");
    }
  }
  EXPECT_TRUE(test.engine->Drain(absl::InfiniteDuration()));
}

// With just the slots that SizeOf says, and not with one less.
TEST(TokenStatisticsTest, CompanionsFitInTheSlotsThatAreCountedForThem) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 200; ++round) {
    Request request = RandomRequest(random);
    request.fusion.method = FusionMethod::kAttention;
    if (!TakesWeights(request)) request.fusion.weights.clear();
    request.response.prompt_disagreement = true;
    request.response.attribution = true;
    const RequestSize size = SizeOf(request);
    FakeModelOptions model;
    model.num_kv_slots = static_cast<int32_t>(size.num_slots);
    EngineOptions options;
    options.max_step_rows = 7;
    TestEngine test(model, options);
    const auto sink = test.Run(request);
    EXPECT_TRUE(sink->status().ok()) << sink->status();
    EXPECT_LE(test.observer.counts().prefill_rows, sink->summary().prompt_tokens);
    EXPECT_EQ(test.observer.counts().preemptions, 0);

    model.num_kv_slots -= 1;
    TestEngine small(model, options);
    const auto refused = small.engine->Submit(request, std::make_shared<RecordingSink>());
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace chorus
