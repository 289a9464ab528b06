#include "client/text_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

TEST(TextTableTest, FirstColumnLeftOthersRightByCharacters) {
  TextTable table({"name", "n"});
  table.AddRow({"é", "1.5"});
  table.AddRow({"longer"});
  EXPECT_EQ(table.ToString("> "),
            "> name      n\n"
            "> é       1.5\n"
            "> longer\n");
}

TEST(ShortenedTest, KeepsBothEndsOnOneLine) {
  EXPECT_EQ(Shortened("short\n", 10), "short\\n");
  EXPECT_EQ(Shortened("0123456789abcdef", 11), "012 ... def");
  EXPECT_EQ(Shortened("éééééééééééé", 11), "ééé ... ééé");
}

}  // namespace
}  // namespace chorus
