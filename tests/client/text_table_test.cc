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

TEST(TextTableTest, LastColumnOfTextIsLeft) {
  TextTable table({"name", "n", "text"}, /*last_is_text=*/true);
  table.AddRow({"a", "10", "b"});
  EXPECT_EQ(table.ToString(""), "name   n  text\na     10  b\n");
}

TEST(ShortenedTest, KeepsBothEndsOnOneLine) {
  EXPECT_EQ(Shortened("short\n", 10), "short\\n");
  EXPECT_EQ(Shortened("it's \"so\"", 10), "it's \"so\"");
  EXPECT_EQ(Shortened("0123456789abcdef", 11), "012 ... def");
  EXPECT_EQ(Shortened("éééééééééééé", 11), "ééé ... ééé");
}

}  // namespace
}  // namespace chorus
