#include "core/model/logit_combiner.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/model/logit_math.h"

namespace chorus {
namespace {

using Row = std::vector<float>;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<const float*> Pointers(const std::vector<Row>& rows) {
  std::vector<const float*> pointers;
  for (const Row& row : rows) pointers.push_back(row.data());
  return pointers;
}

Row Combine(CombineRule rule, const std::vector<Row>& rows,
            const std::vector<float>& weights = {}) {
  Row out(rows[0].size());
  CombineLogits(rule, Pointers(rows), weights, static_cast<int32_t>(out.size()), out.data());
  return out;
}

double LogSumExpReference(const std::vector<double>& x) {
  const double largest = *std::max_element(x.begin(), x.end());
  double sum = 0.0;
  for (const double value : x) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

// The contract's rules in double, straight from the definitions.
std::vector<double> CombineReference(CombineRule rule, const std::vector<Row>& rows,
                                     std::vector<float> weights) {
  if (weights.empty()) weights.assign(rows.size(), 1.0f / static_cast<float>(rows.size()));
  std::vector<std::vector<double>> log_probabilities;
  for (const Row& row : rows) {
    std::vector<double> values(row.begin(), row.end());
    const double total = LogSumExpReference(values);
    for (double& value : values) value -= total;
    log_probabilities.push_back(values);
  }
  std::vector<double> out(rows[0].size());
  for (size_t i = 0; i < out.size(); ++i) {
    double mean = 0.0, largest = -kInfinity, largest_log = -kInfinity;
    std::vector<double> terms;
    for (size_t r = 0; r < rows.size(); ++r) {
      mean += double{weights[r]} * rows[r][i];
      largest = std::max(largest, double{rows[r][i]});
      largest_log = std::max(largest_log, log_probabilities[r][i]);
      if (weights[r] > 0) terms.push_back(std::log(double{weights[r]}) + log_probabilities[r][i]);
    }
    if (rule == CombineRule::kLogitMean) out[i] = mean;
    if (rule == CombineRule::kLogitMax) out[i] = largest;
    if (rule == CombineRule::kProbMean) out[i] = LogSumExpReference(terms);
    if (rule == CombineRule::kProbMax) out[i] = largest_log;
  }
  if (rule == CombineRule::kProbMean || rule == CombineRule::kProbMax) {
    const double total = LogSumExpReference(out);
    for (double& value : out) value -= total;
  }
  return out;
}

struct CombinerCase {
  CombineRule rule;
  int num_rows;
  int vocab_size;
  float spread;  // standard deviation of the logits
  std::vector<float> weights;
};

class LogitCombinerTest : public testing::TestWithParam<CombinerCase> {};

TEST_P(LogitCombinerTest, AgreesWithDoublePrecision) {
  const CombinerCase& param = GetParam();
  std::mt19937 random(static_cast<unsigned>(param.num_rows * 1000 + param.vocab_size));
  std::normal_distribution<float> normal(0.0f, param.spread);
  std::vector<Row> rows(param.num_rows, Row(param.vocab_size));
  double magnitude = 1.0;
  for (Row& row : rows) {
    for (float& value : row) {
      value = normal(random);
      magnitude = std::max(magnitude, std::abs(double{value}));
    }
  }
  const Row out = Combine(param.rule, rows, param.weights);
  const std::vector<double> expected = CombineReference(param.rule, rows, param.weights);
  // A handful of float32 roundings of values up to three times the magnitude.
  const double tolerance = 3 * 8 * std::numeric_limits<float>::epsilon() * magnitude;
  for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], expected[i], tolerance) << i;
}

std::vector<CombinerCase> Cases() {
  std::vector<CombinerCase> cases;
  for (const CombineRule rule : {CombineRule::kLogitMean, CombineRule::kProbMean,
                                 CombineRule::kProbMax, CombineRule::kLogitMax}) {
    for (const auto& [num_rows, vocab_size] :
         {std::pair{1, 1}, {1, 17}, {2, 64}, {6, 300}, {6, 49152}, {256, 1001}}) {
      cases.push_back({rule, num_rows, vocab_size, 3.0f, {}});
    }
    cases.push_back({rule, 3, 500, 60.0f, {}});  // most probabilities underflow float32
  }
  for (const CombineRule rule : {CombineRule::kLogitMean, CombineRule::kProbMean}) {
    cases.push_back({rule, 3, 257, 3.0f, {0.5f, 0.25f, 0.25f}});
    cases.push_back({rule, 3, 257, 3.0f, {0.0f, 1.0f, 0.0f}});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, LogitCombinerTest, testing::ValuesIn(Cases()));

TEST(LogitCombinerRuleTest, NoneCopiesTheRow) {
  const Row row = {3.0f, -kInfinity, 0.25f};
  EXPECT_EQ(Combine(CombineRule::kNone, {row}), row);
}

TEST(LogitCombinerRuleTest, ResultIsADistribution) {
  const std::vector<Row> rows = {{5, 1, 0, -80}, {-3, 2, 9, -80}};
  for (const CombineRule rule : {CombineRule::kProbMean, CombineRule::kProbMax}) {
    const Row out = Combine(rule, rows);
    EXPECT_NEAR(LogSumExp(out.data(), 4), 0.0, 1e-6);
    // e^-80-ish probabilities keep their digits: nothing left the logarithm.
    EXPECT_LT(out[3], -80.0f);
    EXPECT_TRUE(std::isfinite(out[3]));
  }
}

TEST(LogitCombinerRuleTest, ARowOfWeightZeroDoesNotCount) {
  const std::vector<Row> rows = {{kInfinity, 1, 2}, {4, 5, 6}};
  EXPECT_EQ(Combine(CombineRule::kLogitMean, rows, {0.0f, 1.0f}), rows[1]);
}

TEST(LogitCombinerRuleTest, OrderOfRowsDoesNotMatterHere) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0f, 4.0f);
  std::vector<Row> rows(5, Row(1000));
  for (Row& row : rows) {
    for (float& value : row) value = normal(random);
  }
  std::vector<Row> reversed(rows.rbegin(), rows.rend());
  for (const CombineRule rule :
       {CombineRule::kLogitMean, CombineRule::kProbMax, CombineRule::kLogitMax}) {
    EXPECT_EQ(Combine(rule, rows), Combine(rule, reversed));
  }
}

TEST(LogitCombinerRuleTest, NanIsNotHidden) {
  const float nan = std::nanf("");
  for (const auto& rows :
       {std::vector<Row>{{nan, 1}, {1, 2}}, std::vector<Row>{{1, 2}, {nan, 1}}}) {
    for (const CombineRule rule : {CombineRule::kLogitMean, CombineRule::kProbMean,
                                   CombineRule::kProbMax, CombineRule::kLogitMax}) {
      EXPECT_TRUE(std::isnan(Combine(rule, rows)[0]));
    }
  }
}

TEST(LogitMathTest, LogSumExpAgreesWithDoublePrecision) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(2.0f, 5.0f);
  for (const int size : {1, 2, 15, 16, 17, 511, 512, 513, 49152, 128256}) {
    Row row(size);
    for (float& value : row) value = normal(random);
    const double expected = LogSumExpReference({row.begin(), row.end()});
    // Blocks of 32 additions and one exp, each within an ulp or two; the terms are positive.
    EXPECT_NEAR(LogSumExp(row.data(), size), expected, 40 * std::numeric_limits<float>::epsilon());
    EXPECT_EQ(MaxValue(row.data(), size), *std::max_element(row.begin(), row.end()));
  }
}

TEST(LogitMathTest, ExtremesAreDefined) {
  const Row nothing = {-kInfinity, -kInfinity};
  EXPECT_EQ(LogSumExp(nothing.data(), 2), -kInfinity);
  EXPECT_EQ(LogSumExp(nothing.data(), 0), -kInfinity);
  const Row huge = {3e38f, -3e38f, -kInfinity};
  EXPECT_EQ(LogSumExp(huge.data(), 3), double{3e38f});
  for (const size_t place : {0u, 5u, 16u, 32u}) {
    Row row(33, 1.0f);
    row[place] = std::nanf("");
    EXPECT_TRUE(std::isnan(MaxValue(row.data(), 33))) << place;
    EXPECT_TRUE(std::isnan(LogSumExp(row.data(), 33))) << place;
  }
  const Row input = {1.0f, 0.0f, -kInfinity, -200.0f};
  Row output(4);
  ExpShifted(input.data(), 4, 1.0f, 2.0f, output.data());
  EXPECT_FLOAT_EQ(output[0], 1.0f);
  EXPECT_FLOAT_EQ(output[1], std::exp(-2.0f));
  EXPECT_EQ(output[2], 0.0f);
  EXPECT_EQ(output[3], 0.0f);
}

// Mean Kullback-Leibler divergence of the rows from their mean, in bits and in double.
double DivergenceReference(const std::vector<Row>& rows) {
  std::vector<std::vector<double>> log_probabilities;
  for (const Row& row : rows) {
    log_probabilities.emplace_back(row.begin(), row.end());
    const double total = LogSumExpReference(log_probabilities.back());
    for (double& value : log_probabilities.back()) value -= total;
  }
  const double num_rows = static_cast<double>(rows.size());
  double bits = 0.0;
  for (size_t i = 0; i < rows[0].size(); ++i) {
    double mean = 0.0;
    for (const auto& row : log_probabilities) mean += std::exp(row[i]) / num_rows;
    for (const auto& row : log_probabilities) {
      if (const double p = std::exp(row[i]); p > 0) bits += p * std::log2(p / mean) / num_rows;
    }
  }
  return bits;
}

// Terms p (ln p - ln m) have a few roundings each of at most |ln p| ulp; sum p |ln p| is at most
// ln size.
double DivergenceTolerance(size_t size) {
  return 16 * std::numeric_limits<float>::epsilon() * (1.0 + std::log2(static_cast<double>(size)));
}

float DisagreementOf(const std::vector<Row>& rows) {
  return Disagreement(Pointers(rows), static_cast<int32_t>(rows[0].size()));
}

TEST(DisagreementTest, IsTheJensenShannonDivergence) {
  std::mt19937 random(11);
  for (const size_t size : {1u, 2u, 15u, 16u, 17u, 511u, 513u, 49152u}) {
    for (const size_t num_rows : {1u, 2u, 6u, 40u}) {
      for (const float spread : {0.01f, 1.0f, 10.0f}) {
        std::normal_distribution<float> normal(2.0f, 3.0f), difference(0.0f, spread);
        Row common(size);
        for (float& value : common) value = normal(random);
        std::vector<Row> rows(num_rows, common);
        for (Row& row : rows) {
          for (float& value : row) value += difference(random);
        }
        const float bits = DisagreementOf(rows);
        EXPECT_NEAR(bits, DivergenceReference(rows), DivergenceTolerance(size))
            << num_rows << " rows of " << size << ", spread " << spread;
        EXPECT_GE(bits, 0.0f);
        EXPECT_LE(bits, std::log2(static_cast<float>(num_rows)));
      }
    }
  }
}

TEST(DisagreementTest, HasItsEndsWhereRowsAgreeAndWhereTheyShareNothing) {
  const Row row = {1.0f, -kInfinity, 3.0f, -300.0f};
  EXPECT_NEAR(DisagreementOf({row, row, row}), 0.0f, DivergenceTolerance(4));
  EXPECT_EQ(DisagreementOf({row}), 0.0f);
  std::vector<Row> apart(8, Row(100, -200.0f));
  for (size_t r = 0; r < apart.size(); ++r) apart[r][11 * r] = 100.0f;
  EXPECT_NEAR(DisagreementOf(apart), 3.0f, DivergenceTolerance(100));
  // A shift of a row's logits changes no distribution.
  Row shifted = row;
  for (float& value : shifted) value += 64.0f;
  EXPECT_NEAR(DisagreementOf({row, shifted}), 0.0f, 0x1p-16f);
}

TEST(DisagreementTest, IsNanWhereLogitsAreNotFinite) {
  EXPECT_TRUE(std::isnan(DisagreementOf({{1.0f, std::nanf("")}, {1.0f, 2.0f}})));
  EXPECT_TRUE(std::isnan(DisagreementOf({{1.0f, 2.0f}, {1.0f, kInfinity}})));
  EXPECT_TRUE(std::isnan(DisagreementOf({{-kInfinity, -kInfinity}})));
}

}  // namespace
}  // namespace chorus
