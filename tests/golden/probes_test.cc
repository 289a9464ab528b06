// What Transformers' eager attention sees, and how far apart the prompts' distributions are,
// against probes and disagreement of the runner (make_probes.py; README.md here has the schema).
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/model/torch_model_runner.h"
#include "tests/model/plan_builder.h"

namespace chorus {
namespace {

using Json = nlohmann::json;

// Between implementations, over sums of a few thousand float32 terms; the data have five decimals.
constexpr double kTolerance = 1e-3;
// Distributions whose logits are off by d have divergences off by about d times as much.
constexpr double kDisagreementTolerance = 1e-4;

std::vector<int32_t> Concatenated(const std::vector<const Json*>& pieces) {
  std::vector<int32_t> tokens;
  for (const Json* piece : pieces) {
    const auto more = piece->get<std::vector<int32_t>>();
    tokens.insert(tokens.end(), more.begin(), more.end());
  }
  return tokens;
}

// Prefix, segments with attached separators, suffix, generated tokens.
TestSequence FusedOf(const Json& item) {
  const Json& prompt = item["prompt"];
  SegmentLayout::Pieces pieces;
  std::vector<const Json*> parts = {&prompt["prefix"]};
  for (const Json& segment : prompt["segments"]) {
    if (parts.size() > 1) parts.push_back(&prompt["separator"]);
    parts.push_back(&segment);
    pieces.segment_lengths.push_back(static_cast<int32_t>(segment.size()));
  }
  parts.push_back(&prompt["suffix"]);
  parts.push_back(&item["generated"]);
  pieces.prefix_length = static_cast<int32_t>(prompt["prefix"].size());
  pieces.separator_length = static_cast<int32_t>(prompt["separator"].size());
  pieces.separator_policy = SeparatorPolicy::kAttached;
  pieces.suffix_length = static_cast<int32_t>(prompt["suffix"].size());
  pieces.position_mode = item["positions"] == "POSITION_MODE_SEQUENTIAL"
                             ? PositionMode::kSequential
                             : PositionMode::kOverlapping;
  TestSequence sequence{*SegmentLayout::FromPieces(pieces), Concatenated(parts), {}};
  sequence.slots.resize(sequence.token_ids.size());
  std::iota(sequence.slots.begin(), sequence.slots.end(), 0);
  return sequence;
}

KeyUnits UnitsOf(const Json& item) {
  KeyUnits units;
  units.num_units = item["num_units"];
  for (const Json& range : item["units"]) units.ranges.push_back({range[0], range[1], range[2]});
  return units;
}

void ExpectNear(const Json& expected, const std::vector<float>& actual, double& largest) {
  ASSERT_EQ(expected.size(), actual.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    if (expected[i].is_null()) {
      ASSERT_TRUE(std::isnan(actual[i])) << "value " << i;
    } else {
      ASSERT_NEAR(expected[i].get<double>(), actual[i], kTolerance) << "value " << i;
      largest = std::max(largest, std::abs(expected[i].get<double>() - actual[i]));
    }
  }
}

class ProbesGoldenTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    std::ifstream file(std::string("tests/golden/data/") + GetParam() + ".json");
    json_ = Json::parse(file);
    const std::string directory = json_["model"];
    if (!std::filesystem::exists(directory)) GTEST_SKIP() << "no model in " << directory;
    const auto weights = LoadSharedWeights(
        {.model_directory = directory, .dtype = ModelDtype::kFloat32, .num_threads = 2});
    ASSERT_TRUE(weights.ok()) << weights.status();
    auto runner =
        CreateTorchModelRunner(*weights, {.num_threads = 2, .kv_cache_bytes = int64_t{256} << 20});
    ASSERT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
  }

  std::vector<int32_t> UpTo(int32_t count) const {
    std::vector<int32_t> values(count);
    std::iota(values.begin(), values.end(), 0);
    return values;
  }

  Json json_;
  std::unique_ptr<ModelRunner> runner_;
};

TEST_P(ProbesGoldenTest, MassAndLogitsAreThoseOfTransformers) {
  double largest_mass = 0.0, largest_logit = 0.0;
  for (const Json& item : json_["cases"]) {
    SCOPED_TRACE(item["name"]);
    const TestSequence sequence = FusedOf(item);
    const KeyUnits units = UnitsOf(item);
    StepPlan plan;
    AppendRows(sequence, 0, static_cast<int32_t>(sequence.token_ids.size()), plan);
    for (const Json& probe : item["probes"]) {
      plan.probes.push_back({probe["row"], &units, UpTo(runner_->info().num_layers),
                             UpTo(runner_->info().num_heads)});
    }
    const auto result = runner_->Run(plan);
    ASSERT_TRUE(result.ok()) << result.status();
    for (size_t i = 0; i < plan.probes.size(); ++i) {
      const Json& probe = item["probes"][i];
      ExpectNear(probe["mass"], result->probes[i].mass, largest_mass);
      ExpectNear(probe["logits"], result->probes[i].logits, largest_logit);
    }
  }
  std::printf("largest difference: mass %.2e, logits %.2e\n", largest_mass, largest_logit);
}

TEST_P(ProbesGoldenTest, DisagreementIsThatOfTransformersLogits) {
  const SamplingParams sampling;
  double largest = 0.0;
  for (const Json& item : json_["cases"]) {
    SCOPED_TRACE(item["name"]);
    const Json& prompt = item["prompt"];
    StepPlan plan;
    TokenChoice choice = GreedyChoice(0, sampling, false);
    choice.rule = CombineRule::kLogitMean;
    choice.rows.clear();
    for (const Json& segment : prompt["segments"]) {
      std::vector<int32_t> tokens = Concatenated({&prompt["prefix"], &segment, &prompt["suffix"]});
      const int32_t length = static_cast<int32_t>(tokens.size());
      const TestSequence sequence = CausalSequence(std::move(tokens), plan.num_rows());
      choice.rows.push_back(AppendRows(sequence, 0, length, plan) + length - 1);
    }
    choice.compared_rows = choice.rows;
    plan.choices = {choice};
    const auto result = runner_->Run(plan);
    ASSERT_TRUE(result.ok()) << result.status();
    const double expected = item["disagreement"];
    EXPECT_NEAR(result->tokens[0].disagreement, expected, kDisagreementTolerance);
    largest = std::max(largest, std::abs(result->tokens[0].disagreement - expected));
  }
  std::printf("largest difference: %.2e bits\n", largest);
}

INSTANTIATE_TEST_SUITE_P(Files, ProbesGoldenTest,
                         testing::Values("probes_tiny_gqa", "probes_smollm2"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace chorus
