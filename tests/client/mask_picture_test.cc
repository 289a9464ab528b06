#include "client/mask_picture.h"

#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace chorus {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class MaskPictureTest : public ::testing::Test {
 protected:
  // The view of what flags ask for; the subject stays here.
  MaskView View(const std::vector<std::string>& arguments) {
    MaskOptions options;
    const auto parsed = MakeMaskParser(options).Parse(arguments);
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_TRUE(FinishMaskOptions(options).ok());
    subjects_.push_back(std::make_unique<MaskSubject>(MakeMaskSubject(options).value()));
    return MakeMaskView(*subjects_.back(), options).value();
  }

  std::vector<std::unique_ptr<MaskSubject>> subjects_;
};

// Columns that text takes in a terminal: bytes that do not continue a UTF-8 character.
size_t Columns(absl::string_view line) {
  size_t columns = 0;
  for (const char c : line) columns += (c & 0xC0) != 0x80;
  return columns;
}

TEST_F(MaskPictureTest, ASmallLayoutInAscii) {
  const MaskView view = View({"--segments=1:3,4:6", "--prefix_length=1", "--length=8"});
  EXPECT_THAT(DrawMask(view, {.is_ascii = true}), StartsWith("Q\\KV 0 1 2 3 4 5 6 7\n"
                                                             "   0 # . . . . . . .\n"
                                                             "S1 1 # # . . . . . .\n"
                                                             "E1 2 # # # . . . . .\n"
                                                             "   3 . . . . . . . .\n"
                                                             "S2 4 # . . . # . . .\n"
                                                             "E2 5 # . . . # # . .\n"
                                                             "G0 6 # # # # # # # .\n"
                                                             "   7 # # # # # # # #\n"
                                                             "\n# may attend   . may not\n"));
}

TEST_F(MaskPictureTest, NumbersAreWrittenDownwardsWhereTheyDoNotFitSideBySide) {
  const MaskView view = View({"--segments=0:6,6:12", "--length=14"});
  EXPECT_THAT(DrawMask(view, {.width = 34, .is_ascii = true}),
              StartsWith("                          1 1 1 1\n"
                         " Q\\KV 0 1 2 3 4 5 6 7 8 9 0 1 2 3\n"
                         "S1  0 # . . . . . . . . . . . . .\n"));
}

TEST_F(MaskPictureTest, ThenWithoutSpaceOverEveryOtherColumn) {
  const MaskView view = View({"--segments=0:6,6:12", "--length=14"});
  EXPECT_THAT(DrawMask(view, {.width = 20, .is_ascii = true}),
              StartsWith("                1 1\n"
                         " Q\\KV 0 2 4 6 8 0 2\n"
                         "S1  0 #.............\n"));
}

TEST_F(MaskPictureTest, ThenInBlocksOfColumns) {
  const MaskView view = View({"--segments=0:6,6:12", "--length=14"});
  const std::string picture = DrawMask(view, {.width = 15, .is_ascii = true});
  EXPECT_THAT(picture, StartsWith(" Q\\KV 0 1 2 3 4\nS1  0 # . . . .\n"));
  EXPECT_THAT(picture, HasSubstr("\n   13 # # # # #\n\n Q\\KV 5 6 7 8 9\n"));
  EXPECT_THAT(picture, HasSubstr("\n\n      1 1 1 1\n Q\\KV 0 1 2 3\nS1  0 . . . .\n"));
}

// Whatever the width, lines fit, every row and column is there, and no two numbers touch.
TEST_F(MaskPictureTest, FitsEveryWidth) {
  for (const char* scenario : {"small", "medium", "large"}) {
    const MaskView view = View({absl::StrCat("--scenario=", scenario)});
    for (int width = 12; width <= 180; ++width) {
      SCOPED_TRACE(absl::StrCat(scenario, " in ", width));
      const std::string picture = DrawMask(view, {.width = width});
      const std::string drawn = picture.substr(0, picture.find("\n■ may attend"));
      size_t rows = 0, cells = 0;
      for (const absl::string_view line : absl::StrSplit(drawn, '\n', absl::SkipEmpty())) {
        ASSERT_LE(Columns(line), static_cast<size_t>(width)) << line;
        rows += line.size() > Columns(line);  // it holds marks, which are no ASCII
      }
      for (size_t i = 0; i < drawn.size(); ++i) {
        cells += drawn.compare(i, 3, "■") == 0 || drawn.compare(i, 2, "·") == 0;
      }
      ASSERT_EQ(cells, view.positions.size() * view.positions.size());
      ASSERT_EQ(rows % view.positions.size(), 0u);
    }
  }
}

TEST_F(MaskPictureTest, HeadingsSideBySideReadAsThePositions) {
  const MaskView view = View({"--scenario=large"});
  const std::string picture = DrawMask(view, {});
  const std::vector<std::string> heading =
      absl::StrSplit(picture.substr(0, picture.find('\n')), ' ', absl::SkipEmpty());
  ASSERT_EQ(heading.size(), view.positions.size() + 1);
  for (size_t i = 0; i < view.positions.size(); ++i) {
    EXPECT_EQ(heading[i + 1], absl::StrCat(view.positions[i]));
  }
}

TEST_F(MaskPictureTest, ColoursAddNothingButColours) {
  const MaskView view = View({"--scenario=small"});
  const std::string plain = DrawMask(view, {});
  std::string coloured = DrawMask(view, {.has_colours = true});
  EXPECT_THAT(plain, Not(HasSubstr("\x1b")));
  EXPECT_THAT(coloured, HasSubstr("\x1b[34mG0\x1b[0m"));
  EXPECT_THAT(coloured, HasSubstr("\x1b[31mS1\x1b[0m"));
  EXPECT_EQ(absl::StrReplaceAll(
                coloured, {{"\x1b[31m", ""}, {"\x1b[32m", ""}, {"\x1b[34m", ""}, {"\x1b[0m", ""}}),
            plain);
}

}  // namespace
}  // namespace chorus
