#include "core/text/stop_checker.h"

#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace chorus {
namespace {

struct Outcome {
  std::string text;
  int stop = -1;

  friend bool operator==(const Outcome&, const Outcome&) = default;
};

Outcome RunAll(const std::vector<std::string>& stops, const std::vector<std::string>& pushes,
               bool include_stop = false) {
  StopChecker checker(stops, include_stop);
  Outcome outcome;
  for (const std::string& text : pushes) {
    const StopChecker::Result result = checker.Push(text);
    outcome.text += result.emit;
    if (result.matched_stop_index.has_value()) outcome.stop = *result.matched_stop_index;
  }
  outcome.text += checker.Flush();
  return outcome;
}

TEST(StopCheckerTest, NothingOfAStopStringIsEmitted) {
  EXPECT_EQ(RunAll({"END"}, {"text EN", "D more"}), (Outcome{"text ", 0}));
  EXPECT_EQ(RunAll({"END"}, {"text E", "N", "X"}), (Outcome{"text ENX", -1}));
  EXPECT_EQ(RunAll({"END"}, {"text EN"}), (Outcome{"text EN", -1}));
  EXPECT_EQ(RunAll({"aab"}, {"aa", "aab"}), (Outcome{"aa", 0}));
}

TEST(StopCheckerTest, IncludeStopEmitsItAndNothingBehind) {
  EXPECT_EQ(RunAll({"END"}, {"text EN", "D more"}, true), (Outcome{"text END", 0}));
}

TEST(StopCheckerTest, OnlyWhatMayStillBeAStopStringIsHeldBack) {
  StopChecker checker({"\n\nQ:"}, false);
  EXPECT_EQ(checker.Push("one\n").emit, "one");
  EXPECT_EQ(checker.Push("\n").emit, "");
  EXPECT_EQ(checker.Push("\n").emit, "\n");
  EXPECT_EQ(checker.Push("two").emit, "\n\ntwo");
  EXPECT_EQ(checker.Flush(), "");
}

TEST(StopCheckerTest, TheFirstToBeCompleteWinsThenTheLongest) {
  EXPECT_EQ(RunAll({"b", "ab"}, {"xab"}), (Outcome{"x", 1}));
  EXPECT_EQ(RunAll({"abc", "b"}, {"xabc"}), (Outcome{"xa", 1}));
  EXPECT_EQ(RunAll({"ab", "abc"}, {"xabc"}), (Outcome{"x", 0}));
  EXPECT_EQ(RunAll({"ab", "ab"}, {"ab"}), (Outcome{"", 0}));
}

TEST(StopCheckerTest, AfterAMatchEverythingIsIgnored) {
  StopChecker checker({"."}, false);
  EXPECT_EQ(checker.Push("a.b").matched_stop_index, 0);
  EXPECT_EQ(checker.Push("c.").emit, "");
  EXPECT_EQ(checker.Push("c.").matched_stop_index, std::nullopt);
  EXPECT_EQ(checker.Flush(), "");
}

TEST(StopCheckerTest, EmptyStopStringsNeverMatch) {
  EXPECT_EQ(RunAll({""}, {"abc"}), (Outcome{"abc", -1}));
  EXPECT_EQ(RunAll({}, {"abc"}), (Outcome{"abc", -1}));
}

// The definition: the smallest end, then the smallest begin.
Outcome FindNaively(const std::vector<std::string>& stops, const std::string& text,
                    bool include_stop) {
  for (size_t end = 1; end <= text.size(); ++end) {
    int best = -1;
    for (size_t i = 0; i < stops.size(); ++i) {
      const bool ends_here = !stops[i].empty() && stops[i].size() <= end &&
                             text.compare(end - stops[i].size(), stops[i].size(), stops[i]) == 0;
      if (ends_here && (best < 0 || stops[i].size() > stops[best].size()))
        best = static_cast<int>(i);
    }
    if (best >= 0) return {text.substr(0, include_stop ? end : end - stops[best].size()), best};
  }
  return {text, -1};
}

TEST(StopCheckerTest, AnyCutOfAnyTextGivesTheDefinedOutcome) {
  const unsigned seed = 20261123;
  std::mt19937 random(seed);
  const auto word = [&](size_t max_length) {
    std::string text(random() % (max_length + 1), 'a');
    for (char& c : text) c = "ab\n"[random() % 3];
    return text;
  };
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::string> stops(random() % 5);
    for (std::string& stop : stops) stop = word(6);
    std::vector<std::string> pushes(random() % 6);
    std::string text;
    for (std::string& push : pushes) text += push = word(5);
    const bool include_stop = random() % 2;
    ASSERT_EQ(RunAll(stops, pushes, include_stop), FindNaively(stops, text, include_stop))
        << "seed " << seed << " round " << i;
  }
}

TEST(StopCheckerTest, LongOverlappingStopStringsStayLinear) {
  const std::string stop = std::string(100000, 'a') + "b";
  StopChecker checker({stop}, false);
  std::string text;
  for (int i = 0; i < 3000; ++i) text += checker.Push(std::string(100, 'a')).emit;
  const StopChecker::Result result = checker.Push("b");
  EXPECT_EQ(result.matched_stop_index, 0);
  EXPECT_EQ(text.size() + result.emit.size(), 200000u);
}

}  // namespace
}  // namespace chorus
