#include "client/layer_statistics.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/client/fake_service.h"

namespace chorus {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(LayerStatisticsTest, AreThoseOfTheDefinition) {
  const v1::ExplainResponse response = SmallExplanation();
  const std::vector<int> seen = SeenUnits(response);
  EXPECT_THAT(seen, ElementsAre(0, 1, 2, 3));  // no row sees the answer yet
  const LayerStatistics statistics = StatisticsOf(response, response.layers(0).logits(), seen);
  EXPECT_THAT(statistics.sink_scores, ElementsAre(6 - 1.5, 8 - 1.5));
  EXPECT_THAT(statistics.spreads, ElementsAre(5 / 3.0 * 100, 7 / 3.5 * 100));
  EXPECT_THAT(statistics.mean, ElementsAre(7, 1, 2, 3));
  EXPECT_THAT(statistics.deviation, ElementsAre(1, 0, 0, 0));
  EXPECT_EQ(statistics.first.value, 7);
  EXPECT_EQ(statistics.first.deviation, 1);
  EXPECT_EQ(statistics.middle.value, 1.5);
  EXPECT_EQ(statistics.last.value, 3);
  EXPECT_THAT(statistics.ratio(), DoubleEq(7 / 1.5));
  EXPECT_EQ(statistics.difference(), 4);
  EXPECT_TRUE(statistics.has_sink());
  EXPECT_THAT(statistics.sink_heads(), ElementsAre(0, 1));
}

TEST(LayerStatisticsTest, EvenLogitsAreNoSink) {
  const v1::ExplainResponse response = SmallExplanation();
  const LayerStatistics statistics =
      StatisticsOf(response, response.layers(1).logits(), SeenUnits(response));
  EXPECT_EQ(statistics.ratio(), 1);
  EXPECT_FALSE(statistics.has_sink());
  EXPECT_THAT(statistics.sink_heads(), IsEmpty());
}

TEST(LayerStatisticsTest, OfTwoUnitsTheMiddleIsTheMeanOfAll) {
  const v1::ExplainResponse response = SmallExplanation();
  const LayerStatistics statistics =
      StatisticsOf(response, response.layers(0).logits(), std::vector<int>{0, 1});
  EXPECT_THAT(statistics.sink_scores, ElementsAre(6 - 3.5, 8 - 4.5));
  EXPECT_EQ(statistics.middle.value, 4);
  EXPECT_EQ(statistics.middle.deviation, 0.5);
}

// A step that sees no key of a unit does not count there.
TEST(LayerStatisticsTest, StepsAreMeansOverThoseThatSeeTheUnit) {
  v1::ExplainResponse response = SmallExplanation();
  response.add_steps(1);
  response.mutable_layers()->RemoveLast();
  v1::LayerAttention& layer = *response.mutable_layers(0);
  const v1::LayerAttention first = layer;
  layer.MergeFrom(first);
  for (int i = 10; i < 20; ++i) {
    layer.set_logits(i, std::isnan(layer.logits(i)) ? 9.0f : layer.logits(i) + 2);
  }
  const std::vector<int> seen = SeenUnits(response);
  EXPECT_THAT(seen, ElementsAre(0, 1, 2, 3, 4));
  const LayerStatistics statistics = StatisticsOf(response, layer.logits(), seen);
  EXPECT_THAT(statistics.mean, ElementsAre(8, 2, 3, 4, 9));
}

TEST(LayerStatisticsTest, MeanMassIsOverLayersStepsAndHeads) {
  EXPECT_THAT(MeanMass(SmallExplanation()), ElementsAre(0.25, 0.25, 0.25, 0.25, 0));
}

TEST(LayerStatisticsTest, WrongSizesAreFound) {
  v1::ExplainResponse response = SmallExplanation();
  EXPECT_TRUE(IsWellFormed(response));
  response.mutable_layers(1)->mutable_mass()->RemoveLast();
  EXPECT_FALSE(IsWellFormed(response));
}

}  // namespace
}  // namespace chorus
