#include "core/segment/attention_window.h"

#include "gtest/gtest.h"

namespace chorus {
namespace {

using Kind = AttentionWindow::Kind;

TEST(AttentionWindowTest, AFullLayerSeesEveryPosition) {
  const AttentionWindow window;
  EXPECT_TRUE(window.is_full());
  EXPECT_EQ(window.FirstPosition(1 << 30), 0);
}

TEST(AttentionWindowTest, ASlidingWindowHoldsTheQueryAndThoseBeforeIt) {
  const AttentionWindow window = {Kind::kSliding, 3};
  EXPECT_EQ(window.FirstPosition(1), 0);
  EXPECT_EQ(window.FirstPosition(2), 0);
  EXPECT_EQ(window.FirstPosition(3), 1);
  EXPECT_TRUE(window.Allows(10, 8));
  EXPECT_FALSE(window.Allows(10, 7));
}

TEST(AttentionWindowTest, AChunkBeginsAtAMultipleOfItsSize) {
  const AttentionWindow window = {Kind::kChunked, 4};
  EXPECT_EQ(window.FirstPosition(3), 0);
  EXPECT_EQ(window.FirstPosition(4), 4);
  EXPECT_EQ(window.FirstPosition(7), 4);
  EXPECT_TRUE(window.Allows(7, 4));
  EXPECT_FALSE(window.Allows(7, 3));
}

TEST(AttentionWindowTest, AWindowOfOneSeesOnlyItsOwnPosition) {
  for (const Kind kind : {Kind::kSliding, Kind::kChunked}) {
    EXPECT_TRUE((AttentionWindow{kind, 1}.Allows(5, 5)));
    EXPECT_FALSE((AttentionWindow{kind, 1}.Allows(5, 4)));
  }
}

}  // namespace
}  // namespace chorus
