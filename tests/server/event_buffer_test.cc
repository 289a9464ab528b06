#include "server/event_buffer.h"

#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using testing::ElementsAre;
using testing::SizeIs;

TokenEvent Token(int32_t id, const std::string& text, int32_t prompt_index = -1) {
  TokenEvent event;
  event.text = text;
  event.token_ids = {id};
  event.logprobs = {-0.5f * static_cast<float>(id)};
  event.top_logprobs = {{{id, -1.0f}, {id + 1, -2.0f}}};
  Attribution attribution;
  attribution.segments = {static_cast<float>(id)};
  event.attribution = {attribution};
  event.disagreement = {0.25f * static_cast<float>(id)};
  event.prompt_index = prompt_index;
  return event;
}

TokenEvent TextOnly(const std::string& text) {
  TokenEvent event;
  event.text = text;
  return event;
}

TEST(EventBufferTest, GivesStartThenTokensThenEnd) {
  EventBuffer buffer;
  EXPECT_TRUE(buffer.empty());
  PromptSummary start;
  start.prompt_tokens = 7;
  buffer.AddStart(start);
  buffer.AddToken(Token(1, "a"));
  FinishSummary finish;
  finish.generated_tokens = 1;
  buffer.AddFinish(finish);
  EXPECT_EQ(std::get<PromptSummary>(buffer.TakeNext()).prompt_tokens, 7);
  EXPECT_THAT(std::get<TokenEvent>(buffer.TakeNext()).token_ids, ElementsAre(1));
  EXPECT_EQ(std::get<FinishSummary>(buffer.TakeNext()).generated_tokens, 1);
  EXPECT_TRUE(buffer.empty());
}

TEST(EventBufferTest, WaitingTokensBecomeOneChunkInOrder) {
  EventBuffer buffer;
  buffer.AddToken(Token(1, "a"));
  buffer.AddToken(Token(2, "b"));
  buffer.AddToken(TextOnly("c"));
  buffer.AddToken(Token(3, "d"));
  const auto chunk = std::get<TokenEvent>(buffer.TakeNext());
  EXPECT_EQ(chunk.text, "abcd");
  EXPECT_THAT(chunk.token_ids, ElementsAre(1, 2, 3));
  EXPECT_THAT(chunk.logprobs, ElementsAre(-0.5f, -1.0f, -1.5f));
  ASSERT_THAT(chunk.top_logprobs, SizeIs(3));
  for (int32_t i = 0; i < 3; ++i) {
    ASSERT_THAT(chunk.top_logprobs[i], SizeIs(2));
    EXPECT_EQ(chunk.top_logprobs[i][0].token_id, i + 1);
  }
  EXPECT_THAT(chunk.disagreement, ElementsAre(0.25f, 0.5f, 0.75f));
  ASSERT_THAT(chunk.attribution, SizeIs(3));
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_THAT(chunk.attribution[i].segments, ElementsAre(static_cast<float>(i + 1)));
  }
  EXPECT_TRUE(buffer.empty());
}

TEST(EventBufferTest, TokensOfDifferentPromptsStayApart) {
  EventBuffer buffer;
  for (const auto& [id, prompt] : {std::pair{1, 0}, {2, 1}, {3, 0}, {4, 2}, {5, 1}}) {
    buffer.AddToken(Token(id, "x", prompt));
  }
  auto chunk = std::get<TokenEvent>(buffer.TakeNext());
  EXPECT_EQ(chunk.prompt_index, 0);
  EXPECT_THAT(chunk.token_ids, ElementsAre(1, 3));
  // What comes after its chunk was taken begins a new one, behind the others.
  buffer.AddToken(Token(6, "x", 0));
  chunk = std::get<TokenEvent>(buffer.TakeNext());
  EXPECT_EQ(chunk.prompt_index, 1);
  EXPECT_THAT(chunk.token_ids, ElementsAre(2, 5));
  EXPECT_THAT(std::get<TokenEvent>(buffer.TakeNext()).token_ids, ElementsAre(4));
  EXPECT_THAT(std::get<TokenEvent>(buffer.TakeNext()).token_ids, ElementsAre(6));
  EXPECT_TRUE(buffer.empty());
}

TEST(EventBufferTest, CountsTokensAndNotMessages) {
  EventBuffer buffer;
  buffer.AddStart(PromptSummary());
  EXPECT_EQ(buffer.num_waiting(), 1);
  buffer.TakeNext();
  EXPECT_EQ(buffer.num_waiting(), 0);
  TokenEvent several = Token(1, "a");
  several.token_ids = {1, 2, 3};
  buffer.AddToken(several);
  buffer.AddToken(Token(4, "b"));
  buffer.AddToken(TextOnly("c"));
  EXPECT_EQ(buffer.num_waiting(), 5);
  buffer.AddFinish(FinishSummary());
  EXPECT_EQ(buffer.num_waiting(), 6);
  buffer.TakeNext();
  EXPECT_EQ(buffer.num_waiting(), 1);
  buffer.AddToken(Token(5, "d"));
  buffer.Clear();
  EXPECT_TRUE(buffer.empty());
  EXPECT_EQ(buffer.num_waiting(), 0);
}

}  // namespace
}  // namespace chorus
