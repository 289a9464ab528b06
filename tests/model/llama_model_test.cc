#include "core/model/llama_model.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/segment/segment_mask.h"
#include "tests/model/naive_llama.h"
#include "tests/model/plan_builder.h"

namespace chorus {
namespace {

constexpr int32_t kNumSlots = 128;

ModelConfig TinyConfig() {
  ModelConfig config;
  config.hidden_size = 40;
  config.intermediate_size = 72;
  config.num_layers = 3;
  config.num_heads = 6;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.vocab_size = 131;
  config.max_positions = 256;
  config.rms_norm_epsilon = 1e-5;
  return config;
}

struct Shape {
  const char* name;
  ModelConfig config;
};

std::vector<Shape> Shapes() {
  ModelConfig tied = TinyConfig();
  tied.tie_word_embeddings = true;
  ModelConfig biased = TinyConfig();
  biased.attention_bias = biased.output_bias = biased.mlp_bias = true;
  biased.num_kv_heads = 6;
  ModelConfig scaled = TinyConfig();
  scaled.rope_theta = 500000.0;
  scaled.rope_scaling = {RopeType::kLlama3, 8.0, 1.0, 4.0, 32};
  scaled.num_kv_heads = 1;
  scaled.head_dim = 64;
  // Of every kind one layer, with windows that end within a segment, a prefix and the suffix.
  ModelConfig hybrid = TinyConfig();
  hybrid.layer_windows = {{AttentionWindow::Kind::kSliding, 4},
                          {AttentionWindow::Kind::kChunked, 3},
                          {AttentionWindow::Kind::kFull, 0}};
  hybrid.attention_bias = true;
  return {{"Tied", tied},
          {"UntiedWithBiases", biased},
          {"Llama3Rope", scaled},
          {"WindowsAndQkvBias", hybrid}};
}

// A model with its own KV memory, all of it NaN at first: what is read without having been written
// shows.
class Machine {
 public:
  Machine(const ModelConfig& config, WeightType type, uint64_t seed = 1, int num_threads = 2)
      : pool_(num_threads),
        kv_(config, type == WeightType::kFloat32 ? KvType::kFloat32 : KvType::kBFloat16,
            kNumSlots) {
    model_ = *LlamaModel::Load(config, type, SeededWeights(seed), pool_, nullptr);
    const size_t slot_bytes = type == WeightType::kFloat32 ? 4 : 2;
    for (int32_t layer = 0; layer < config.num_layers; ++layer) {
      const KvView view = kv_.Layer(layer);
      std::memset(view.k, 0xff, slot_bytes * kNumSlots * config.kv_size());
      std::memset(view.v, 0xff, slot_bytes * kNumSlots * config.kv_size());
    }
  }

  // Logits of `rows` (ascending) of a step.
  std::vector<std::vector<float>> Run(const StepPlan& plan, const std::vector<int32_t>& rows) {
    model_->Forward(plan, rows, kv_, workspace_, pool_);
    if (rows.empty()) return {};
    std::vector<int32_t> hidden_rows(rows.size());
    std::iota(hidden_rows.begin(), hidden_rows.end(), 0);
    workspace_.ReserveLogits(model_->config(), static_cast<int64_t>(rows.size()), 0);
    model_->Logits(hidden_rows, workspace_, pool_);
    const float* logits = workspace_.logits.const_data_ptr<float>();
    const int64_t width = model_->config().vocab_size;
    std::vector<std::vector<float>> result;
    for (size_t i = 0; i < rows.size(); ++i) {
      result.emplace_back(logits + i * width, logits + (i + 1) * width);
    }
    return result;
  }

  const LlamaModel& model() const { return *model_; }

 private:
  ThreadPool pool_;
  KvStorage kv_;
  Workspace workspace_;
  std::unique_ptr<const LlamaModel> model_;
};

std::vector<int32_t> Tokens(int32_t count, int32_t start) {
  std::vector<int32_t> tokens(count);
  for (int32_t i = 0; i < count; ++i) tokens[i] = (start + 37 * i + i * i) % 131;
  return tokens;
}

// Prefix of 3, segments of 5, 4 and 7, isolated separators of 2, suffix of 3, one generated token;
// slots scattered.
TestSequence FusedSequence(PositionMode mode) {
  TestSequence sequence{*SegmentLayout::FromPieces({.prefix_length = 3,
                                                    .segment_lengths = {5, 4, 7},
                                                    .separator_length = 2,
                                                    .separator_policy = SeparatorPolicy::kIsolated,
                                                    .position_mode = mode,
                                                    .suffix_length = 3}),
                        {},
                        {}};
  const int32_t length = sequence.layout.length() + 1;
  sequence.token_ids = Tokens(length, 11);
  for (int32_t i = 0; i < length; ++i) sequence.slots.push_back((5 + 29 * i) % kNumSlots);
  return sequence;
}

std::vector<int32_t> AllRows(const StepPlan& plan) {
  std::vector<int32_t> rows(plan.num_rows());
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

std::vector<std::vector<double>> NaiveLogits(const ModelConfig& config, WeightType type,
                                             const TestSequence& sequence) {
  const SegmentMask mask(&sequence.layout);
  std::vector<int32_t> positions;
  for (size_t i = 0; i < sequence.token_ids.size(); ++i) {
    positions.push_back(sequence.layout.PositionOf(static_cast<int32_t>(i)));
  }
  return NaiveLlamaLogits(config, type, SeededWeights(1), sequence.token_ids, positions,
                          [&](int32_t q, int32_t k) { return mask.Allows(q, k); });
}

double LargestDifference(const std::vector<float>& a, const std::vector<double>& b) {
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(double{a[i]} - b[i]);
    largest = difference <= largest ? largest : difference;  // NaN wins
  }
  return largest;
}

double Magnitude(const std::vector<std::vector<double>>& rows) {
  double largest = 0.0;
  for (const auto& row : rows) {
    for (const double value : row) largest = std::max(largest, std::abs(value));
  }
  return largest;
}

class LlamaModelTest : public testing::TestWithParam<Shape> {};
INSTANTIATE_TEST_SUITE_P(All, LlamaModelTest, testing::ValuesIn(Shapes()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(LlamaModelTest, AgreesWithADoublePrecisionForwardUnderTheSegmentMask) {
  for (const PositionMode mode : {PositionMode::kOverlapping, PositionMode::kSequential}) {
    const TestSequence sequence = FusedSequence(mode);
    Machine machine(GetParam().config, WeightType::kFloat32);
    StepPlan plan;
    AppendRows(sequence, 0, static_cast<int32_t>(sequence.token_ids.size()), plan);
    const auto logits = machine.Run(plan, AllRows(plan));
    const auto expected = NaiveLogits(GetParam().config, WeightType::kFloat32, sequence);
    // Three layers of five sums of up to 100 terms, each term rounded to half an ulp; errors add up
    // like a random walk, with a gain of up to ten from one layer to the next.
    const double tolerance =
        10 * std::sqrt(1500.0) * std::numeric_limits<float>::epsilon() * Magnitude(expected);
    for (size_t row = 0; row < logits.size(); ++row) {
      EXPECT_LT(LargestDifference(logits[row], expected[row]), tolerance) << "row " << row;
    }
  }
}

TEST_P(LlamaModelTest, BFloat16RoundsWhatItSaysAndNothingElse) {
  const TestSequence sequence = FusedSequence(PositionMode::kOverlapping);
  Machine machine(GetParam().config, WeightType::kBFloat16);
  StepPlan plan;
  AppendRows(sequence, 0, static_cast<int32_t>(sequence.token_ids.size()), plan);
  const auto logits = machine.Run(plan, AllRows(plan));
  const auto expected = NaiveLogits(GetParam().config, WeightType::kBFloat16, sequence);
  const auto exact = NaiveLogits(GetParam().config, WeightType::kFloat32, sequence);
  double error = 0.0, rounding = 0.0;
  for (size_t row = 0; row < logits.size(); ++row) {
    error = std::max(error, LargestDifference(logits[row], expected[row]));
    rounding = std::max(rounding, LargestDifference(logits[row], exact[row]));
  }
  // A key, a value or a product's input near the middle of two bfloat16 numbers may fall either
  // way: one ulp of 2^-8 in one of many terms. Three layers of five products each, whose errors add
  // up like a random walk.
  EXPECT_LT(error, std::sqrt(15.0) * 0x1p-8 * Magnitude(exact));
  EXPECT_GT(rounding, error);                   // the rounding is there
  EXPECT_LT(rounding, 0.1 * Magnitude(exact));  // and does not change the answer much
}

TEST_P(LlamaModelTest, RowsDoNotDependOnTheirNeighbours) {
  for (const WeightType type : {WeightType::kFloat32, WeightType::kBFloat16}) {
    const TestSequence sequence = FusedSequence(PositionMode::kOverlapping);
    const int32_t length = static_cast<int32_t>(sequence.token_ids.size());
    Machine alone(GetParam().config, type);
    StepPlan lonely;
    AppendRows(sequence, 0, length, lonely);
    const auto expected = alone.Run(lonely, AllRows(lonely));

    TestSequence other = CausalSequence(Tokens(23, 90), 0);
    std::vector<int32_t> unused;
    for (int32_t slot = 0; slot < kNumSlots; ++slot) {
      if (std::count(sequence.slots.begin(), sequence.slots.end(), slot) == 0)
        unused.push_back(slot);
    }
    std::copy_n(unused.rbegin(), other.slots.size(), other.slots.begin());
    Machine crowded(GetParam().config, type, /*seed=*/1, /*num_threads=*/3);
    StepPlan plan;
    AppendRows(other, 0, 23, plan);
    const int32_t first = AppendRows(sequence, 0, length, plan);
    std::vector<int32_t> rows = AllRows(plan);
    const auto all = crowded.Run(plan, rows);
    for (int32_t i = 0; i < length; ++i) ASSERT_EQ(all[first + i], expected[i]) << "row " << i;
  }
}

TEST_P(LlamaModelTest, ChunksAndSingleRowsGiveTheSameBitsAsOneStep) {
  const TestSequence sequence = FusedSequence(PositionMode::kOverlapping);
  const int32_t length = static_cast<int32_t>(sequence.token_ids.size());
  Machine whole(GetParam().config, WeightType::kBFloat16);
  StepPlan plan;
  AppendRows(sequence, 0, length, plan);
  const auto expected = whole.Run(plan, AllRows(plan));
  for (const int32_t chunk : {1, 4, 11}) {
    Machine machine(GetParam().config, WeightType::kBFloat16);
    for (int32_t begin = 0; begin < length; begin += chunk) {
      StepPlan part;
      const int32_t end = std::min(begin + chunk, length);
      AppendRows(sequence, begin, end, part);
      // Every other chunk asks for no logits: its keys and values must be written all the same.
      const bool wants_none = (begin / chunk) % 2 == 1 && end < length;
      const auto logits = machine.Run(part, wants_none ? std::vector<int32_t>() : AllRows(part));
      for (size_t i = 0; i < logits.size(); ++i) ASSERT_EQ(logits[i], expected[begin + i]);
    }
  }
}

// Lets a plan's rows from `first_row` on and their windowed keys stand `distance` positions later.
void ShiftPositions(int32_t first_row, int32_t distance, StepPlan& plan) {
  for (int32_t row = first_row; row < plan.num_rows(); ++row) plan.positions[row] += distance;
  for (AttentionRun& run : plan.attention.runs) {
    if (run.row_begin < first_row) continue;
    run.position_begin += distance;
    for (int32_t i = run.windowed_begin; i < run.windowed_end; ++i) {
      plan.attention.intervals[i].position_shift += distance;
    }
  }
}

// Segments computed at position 0, or at their place's remainder by the size of chunks, as the
// segment cache has them, and moved to where the sequence has them: appends their rows to `plan`
// from slots of their own, and the moves to `moving`.
void AppendMovedSegments(const TestSequence& sequence, int32_t chunk_size, StepPlan& plan,
                         StepPlan& moving) {
  int32_t next_slot = 0;
  for (const TokenRange& segment : sequence.layout.segments()) {
    TestSequence alone = CausalSequence({sequence.token_ids.begin() + segment.begin,
                                         sequence.token_ids.begin() + segment.end},
                                        0);
    for (int32_t i = 0; i < segment.length(); ++i, ++next_slot) {
      while (std::count(sequence.slots.begin(), sequence.slots.end(), next_slot) > 0) ++next_slot;
      alone.slots[i] = next_slot;
      const int32_t place = sequence.layout.PositionOf(segment.begin);
      moving.attention.moves.push_back(
          {next_slot, sequence.slots[segment.begin + i], place - place % chunk_size});
    }
    const int32_t first_row = AppendRows(alone, 0, segment.length(), plan);
    ShiftPositions(first_row, sequence.layout.PositionOf(segment.begin) % chunk_size, plan);
  }
}

TEST_P(LlamaModelTest, MovedSegmentsAreAsIfComputedWhereTheyStand) {
  TestSequence sequence{
      *SegmentLayout::FromPieces({.segment_lengths = {5, 4, 7},
                                  .position_mode = PositionMode::kSequential,
                                  .suffix_length = 3}),
      Tokens(19, 11),
      {}};
  for (int32_t i = 0; i < 19; ++i) sequence.slots.push_back((5 + 29 * i) % kNumSlots);
  Machine plain(GetParam().config, WeightType::kFloat32);
  StepPlan whole;
  AppendRows(sequence, 0, 19, whole);
  const auto expected = plain.Run(whole, {16, 17, 18});
  for (const bool in_one_step : {true, false}) {
    Machine machine(GetParam().config, WeightType::kFloat32);
    StepPlan segments, suffix;
    int32_t chunk_size = 1;
    for (const AttentionWindow& window : GetParam().config.layer_windows) {
      if (window.kind == AttentionWindow::Kind::kChunked) chunk_size = window.size;
    }
    AppendMovedSegments(sequence, chunk_size, segments, in_one_step ? segments : suffix);
    if (!in_one_step) machine.Run(segments, {});
    StepPlan& last = in_one_step ? segments : suffix;
    const int32_t row = AppendRows(sequence, 16, 19, last);
    const auto logits = machine.Run(last, {row, row + 1, row + 2});
    for (size_t i = 0; i < logits.size(); ++i) {
      const std::vector<double> want(expected[i].begin(), expected[i].end());
      // Keys that are turned twice differ by a few roundings.
      EXPECT_LT(LargestDifference(logits[i], want), 1e-4) << "row " << i;
    }
  }
}

TEST(LlamaModelLogitRowsTest, AnySubsetOfRowsGivesTheSameBits) {
  const ModelConfig config = TinyConfig();
  const TestSequence sequence = FusedSequence(PositionMode::kSequential);
  Machine machine(config, WeightType::kFloat32);
  StepPlan plan;
  AppendRows(sequence, 0, static_cast<int32_t>(sequence.token_ids.size()), plan);
  const auto expected = machine.Run(plan, AllRows(plan));
  for (const std::vector<int32_t>& rows :
       {std::vector<int32_t>{0}, {plan.num_rows() - 1}, {1, 2, 9}, {0, 3, 4, 20}}) {
    const auto logits = machine.Run(plan, rows);
    for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(logits[i], expected[rows[i]]);
  }
}

TEST(LlamaModelLoadTest, CountsParametersAndBytes) {
  ModelConfig config = *ShapeByName("smollm2-135m");
  config.num_layers = 1;
  ThreadPool pool(2);
  std::atomic<int> sum_of_done{0}, last_total{0};
  const auto model = LlamaModel::Load(config, WeightType::kBFloat16, RandomWeights(3), pool,
                                      [&](int done, int total) {
                                        sum_of_done += done;
                                        last_total = total;
                                      });
  ASSERT_TRUE(model.ok()) << model.status();
  const int64_t layer = 576 * (576 + 2 * 192) + 576 * 576 + 3 * 576 * 1536 + 2 * 576;
  EXPECT_EQ((*model)->num_parameters(), 49152 * 576 + layer + 576);
  // Two bytes a weight, four for the norms; the tied table is there once. Panels may be padded.
  EXPECT_GE((*model)->weight_bytes(), 2 * (49152 * 576 + layer));
  EXPECT_LT((*model)->weight_bytes(), 2.05 * static_cast<double>(49152 * 576 + layer));
  EXPECT_EQ(last_total, 2);
  EXPECT_EQ(sum_of_done, 1 + 2);  // every part is told of once
}

// A source that lacks one weight.
class LackingWeights : public SeededWeights {
 public:
  explicit LackingWeights(std::string name) : SeededWeights(1), name_(std::move(name)) {}
  absl::Status Check(const WeightName& weight) const override {
    return weight.name == name_ ? absl::NotFoundError("no " + name_) : absl::OkStatus();
  }

 private:
  std::string name_;
};

TEST(LlamaModelLoadTest, EveryWeightIsLookedFor) {
  ModelConfig config = TinyConfig();
  config.attention_bias = config.output_bias = config.mlp_bias = true;
  ThreadPool pool(1);
  const auto all = WeightNames(config).All();
  EXPECT_EQ(all.size(), 3u + 3u * (2 + 3 + 1 + 2 + 1 + 7));
  for (const WeightName& weight : all) {
    const auto model =
        LlamaModel::Load(config, WeightType::kFloat32, LackingWeights(weight.name), pool, nullptr);
    EXPECT_EQ(model.status().code(), absl::StatusCode::kNotFound) << weight.name;
  }
}

TEST(RandomWeightsTest, IsAFunctionOfSeedNameAndRow) {
  const WeightName weight{"some.weight", 4, 1001};
  const auto read = [&](uint64_t seed, const char* name, int64_t row) {
    std::vector<float> out(1001);
    RandomWeights(seed).Read({name, 4, 1001})(row, out.data());
    return out;
  };
  EXPECT_EQ(read(1, "a.weight", 2), read(1, "a.weight", 2));
  EXPECT_NE(read(1, "a.weight", 2), read(2, "a.weight", 2));
  EXPECT_NE(read(1, "a.weight", 2), read(1, "b.weight", 2));
  EXPECT_NE(read(1, "a.weight", 2), read(1, "a.weight", 3));
  double square = 0.0;
  for (const float value : read(1, "a.weight", 2)) square += double{value} * value;
  EXPECT_NEAR(square, 1.0, 0.1);  // 1001 terms of variance 1/1001; one deviation is 0.028
}

}  // namespace
}  // namespace chorus
