#include "client/token_table.h"

#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace chorus {
namespace {

using ::testing::HasSubstr;

std::string Printed(const v1::TokenChunk& chunk, bool is_terminal = false) {
  std::istringstream in;
  std::ostringstream out, err;
  Console console = {in, out, err, is_terminal};
  TokenTable table;
  table.Add(chunk);
  table.Print([](int32_t id) { return absl::StrCat(" t", id, "\xC2\x9B"); }, console);
  return out.str();
}

v1::Attribution& AddToken(v1::TokenChunk& chunk, int32_t id, int num_prompts) {
  chunk.add_token_ids(id);
  v1::Attribution& attribution = *chunk.add_attribution();
  for (int i = 0; i < num_prompts; ++i) attribution.add_segments(i == 0 ? 0.5f : 0.125f);
  return attribution;
}

TEST(TokenTableTest, AColumnForWhatThereIs) {
  v1::TokenChunk chunk;
  AddToken(chunk, 5, 2).set_prefix(0.25);
  AddToken(chunk, 61, 2).set_generated(0.375);
  EXPECT_EQ(Printed(chunk),
            "\n  token    prefix    [0]    [1]  answer\n"
            "  \" t5\xC2\x9B\"    25.0%  50.0%  12.5%    0.0%\n"
            "  \" t61\xC2\x9B\"    0.0%  50.0%  12.5%   37.5%\n");
  chunk.add_disagreement(0.25);
  chunk.add_disagreement(1.5);
  EXPECT_THAT(Printed(chunk), HasSubstr("37.5%              1.5000\n"));
  EXPECT_THAT(Printed(chunk, /*is_terminal=*/true), HasSubstr("t61\xEF\xBF\xBD"));
}

TEST(TokenTableTest, DisagreementAloneIsOneColumn) {
  v1::TokenChunk chunk;
  chunk.add_token_ids(5);
  chunk.add_disagreement(0.03125);
  EXPECT_EQ(Printed(chunk),
            "\n  token   disagreement, bits\n  \" t5\xC2\x9B\"              0.0312\n");
}

TEST(TokenTableTest, OfManyPromptsThoseThatGotMost) {
  v1::TokenChunk chunk;
  AddToken(chunk, 5, 30).set_segments(17, 0.75);
  EXPECT_THAT(Printed(chunk),
              HasSubstr("[17] 75.0%  [0] 50.0%  [1] 12.5%  [2] 12.5%  [3] 12.5%    0.0%\n"));
}

TEST(TokenTableTest, NothingSaidIsNothingPrinted) {
  v1::TokenChunk chunk;
  chunk.add_token_ids(5);
  EXPECT_EQ(Printed(chunk), "");
}

}  // namespace
}  // namespace chorus
