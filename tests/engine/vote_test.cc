#include "core/engine/vote.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;

Answer Saying(std::string text, double mean_logprob) {
  Answer answer;
  answer.text = std::move(text);
  answer.token_ids = {1};
  answer.mean_logprob = mean_logprob;
  return answer;
}

TEST(NormaliseAnswerTest, TakesTheFirstLineWithoutSpaceCaseAndFinalPunctuation) {
  EXPECT_EQ(NormaliseAnswer("Paris."), "paris");
  EXPECT_EQ(NormaliseAnswer("  PARIS !?. \nand more"), "paris");
  EXPECT_EQ(NormaliseAnswer("Paris\r\nLyon"), "paris");
  EXPECT_EQ(NormaliseAnswer("st. john's"), "st. john's");
  EXPECT_EQ(NormaliseAnswer("\"Paris\""), "\"paris");
  EXPECT_EQ(NormaliseAnswer("..."), "");
  EXPECT_EQ(NormaliseAnswer(""), "");
  EXPECT_EQ(NormaliseAnswer("\nParis"), "");
}

TEST(NormaliseAnswerTest, UsesCompatibilityFormsAndUnicodeCase) {
  EXPECT_EQ(NormaliseAnswer("\xef\xbc\xb0\xef\xbd\x81\xef\xbd\x92\xef\xbd\x89\xef\xbd\x93"),
            "paris");                                                     // full-width letters
  EXPECT_EQ(NormaliseAnswer("e\xcc\x81t\xc3\xa9"), "\xc3\xa9t\xc3\xa9");  // combining accent
  EXPECT_EQ(NormaliseAnswer("\xc3\x89TE"), "\xc3\xa9te");
  EXPECT_EQ(NormaliseAnswer("\xe6\x9d\xb1\xe4\xba\xac\xe3\x80\x82"),
            "\xe6\x9d\xb1\xe4\xba\xac");                             // ideographic full stop
  EXPECT_EQ(NormaliseAnswer("\xe3\x80\x80Paris\xc2\xa0"), "paris");  // wide and hard spaces
}

TEST(CountVotesTest, MostFrequentWinsAndItsBestMemberSpeaks) {
  const std::vector<Answer> answers = {Saying("B", -0.1), Saying("a", -3.0), Saying("A.", -2.0)};
  const VoteResult result = CountVotes(answers, {0, 1, 2});
  EXPECT_EQ(result.winner, 2);
  ASSERT_EQ(result.tally.size(), 2u);
  EXPECT_EQ(result.tally[0].answer, "a");
  EXPECT_THAT(result.tally[0].prompt_indexes, ElementsAre(1, 2));
  EXPECT_EQ(result.tally[1].count, 1);
}

TEST(CountVotesTest, TiesGoToTheLargerMeanLogprob) {
  const std::vector<Answer> answers = {Saying("a", -1.0), Saying("b", -0.9), Saying("a", -1.0),
                                       Saying("b", -1.05)};
  EXPECT_EQ(CountVotes(answers, {0, 1, 2, 3}).winner, 1);
}

TEST(CountVotesTest, EqualTiesGoToTheFirstInCanonicalOrder) {
  const std::vector<Answer> answers = {Saying("a", -1.0), Saying("b", -1.0), Saying("b", -1.0),
                                       Saying("a", -1.0)};
  EXPECT_EQ(CountVotes(answers, {0, 1, 2, 3}).winner, 0);
  EXPECT_EQ(CountVotes(answers, {2, 1, 0, 3}).winner, 2);
  EXPECT_EQ(CountVotes(answers, {3, 2, 1, 0}).winner, 3);
}

TEST(CountVotesTest, EmptyAnswerDoesNotWinATieByItsMissingLogprob) {
  std::vector<Answer> answers = {Answer{}, Saying("a", -5.0)};
  EXPECT_EQ(CountVotes(answers, {0, 1}).winner, 1);
}

}  // namespace
}  // namespace chorus
