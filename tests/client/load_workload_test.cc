#include "client/load_workload.h"

#include <set>
#include <sstream>

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "client/load_vocabulary.h"
#include "tests/client/fake_service.h"

namespace chorus {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::UnorderedElementsAreArray;

std::string DataError(const std::string& text) {
  std::istringstream in(text);
  return std::string(ReadDataItems(in, "q.jsonl").status().message());
}

TEST(LoadDataTest, ReadsQuestionsParaphrasesAndAnswers) {
  std::istringstream in(
      "{\"id\": 7, \"question\": \"A?\", \"paraphrases\": [\"B?\", \"C?\"], \"answers\": [\"d\"]}\n"
      "\n{\"question\": \"E?\"}");
  const absl::StatusOr<std::vector<DataItem>> items = ReadDataItems(in, "q.jsonl");
  ASSERT_TRUE(items.ok()) << items.status();
  ASSERT_EQ(items->size(), 2u);
  EXPECT_EQ((*items)[0].question, "A?");
  EXPECT_THAT((*items)[0].paraphrases, ElementsAre("B?", "C?"));
  EXPECT_THAT((*items)[0].answers, ElementsAre("d"));
  EXPECT_EQ((*items)[1].question, "E?");
}

TEST(LoadDataTest, ErrorsNameFileLineAndField) {
  EXPECT_EQ(DataError("{\"question\": \"A?\"}\n{"), "q.jsonl:2: is not valid JSON");
  EXPECT_EQ(DataError("[1]"), "q.jsonl:1: is not a JSON object such as {\"question\": \"...\"}");
  EXPECT_EQ(DataError("\n\n{\"paraphrases\": []}"), "q.jsonl:3: 'question' is missing");
  EXPECT_EQ(DataError("{\"question\": 5}"),
            "q.jsonl:1: 'question' is not a text but of type number");
  EXPECT_EQ(DataError("{\"question\": \"\"}"), "q.jsonl:1: 'question' is empty");
  EXPECT_EQ(DataError("{\"question\": \"A\", \"paraphrases\": \"B\"}"),
            "q.jsonl:1: 'paraphrases' is not a list of texts but of type string");
  EXPECT_EQ(DataError("{\"question\": \"A\", \"paraphrases\": [\"B\", null]}"),
            "q.jsonl:1: 'paraphrases[1]' is not a text but of type null");
  EXPECT_EQ(DataError("{\"question\": \"A\", \"answers\": [1]}"),
            "q.jsonl:1: 'answers[0]' is not a text but of type number");
  EXPECT_EQ(DataError(""), "q.jsonl holds no question");
  EXPECT_EQ(ReadDataFile("no/such/file").status().message(),
            "cannot read no/such/file: No such file or directory");
}

// Options as the command would have them. A member, because a workload refers to them.
class WorkloadTest : public ::testing::Test {
 protected:
  Workload Make(const std::vector<std::string>& arguments) {
    options_ = LoadOptions();
    const auto result = MakeLoadParser(options_).Parse(arguments);
    EXPECT_TRUE(result.ok()) << result.status();
    const absl::Status status = FinishLoadOptions(options_);
    EXPECT_TRUE(status.ok()) << status;
    WorkloadParts parts;
    for (int32_t id = 10; id < 1000; ++id) parts.plain_token_ids.push_back(id);
    parts.separator_tokens = {7, 8};
    if (options_.data_path) {
      parts.items = {{.question = "A", .paraphrases = {"B", "C", "D"}, .answers = {"x"}},
                     {.question = "E", .paraphrases = {"F"}},
                     {.question = "G"}};
    }
    return Workload(options_, std::move(parts));
  }

  LoadOptions options_;
};

std::vector<std::string> Wordings(const v1::GenerateRequest& request) {
  const v1::TextPrompt& prompt = request.prompt().text();
  std::vector<std::string> wordings = {prompt.question()};
  wordings.insert(wordings.end(), prompt.paraphrases().begin(), prompt.paraphrases().end());
  return wordings;
}

std::vector<int32_t> Ids(const v1::TokenSegment& segment) {
  return {segment.token_ids().begin(), segment.token_ids().end()};
}

TEST_F(WorkloadTest, DataIsAskedInTurnAndAgain) {
  const Workload workload = Make({"--data=x", "--max_new_tokens=5"});
  EXPECT_THAT(Wordings(workload.MakeRequest(0)), ElementsAre("A", "B", "C", "D"));
  EXPECT_THAT(Wordings(workload.MakeRequest(1)), ElementsAre("E", "F"));
  EXPECT_THAT(Wordings(workload.MakeRequest(2)), ElementsAre("G"));
  EXPECT_THAT(Wordings(workload.MakeRequest(3)), ElementsAre("A", "B", "C", "D"));
  EXPECT_EQ(workload.MakeRequest(0).stopping().max_new_tokens(), 5);
  EXPECT_FALSE(workload.MakeRequest(0).sampling().has_seed());
  EXPECT_TRUE(workload.has_answers());
  EXPECT_THAT(workload.answers(3), ElementsAre("x"));
  EXPECT_TRUE(workload.answers(1).empty());
}

TEST_F(WorkloadTest, MethodsTakeTurnsOverEveryQuestion) {
  const Workload workload = Make({"--data=x", "--method=vote,attention"});
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(workload.MakeRequest(i).fusion().method(),
              i % 2 == 0 ? v1::FUSION_METHOD_VOTE : v1::FUSION_METHOD_ATTENTION);
    EXPECT_EQ(workload.MakeRequest(i).prompt().text().question(), std::string(1, "AEG"[i / 2]));
  }
}

TEST_F(WorkloadTest, ShufflesArePermutationsThatTheSeedRepeats) {
  std::vector<std::vector<std::string>> runs;
  for (int run = 0; run < 2; ++run) {
    const Workload workload = Make({"--data=x", "--shuffle", "--shuffle_prompts", "--seed=5"});
    std::vector<std::string> wordings;
    for (int i = 0; i < 3; ++i) {
      for (const std::string& wording : Wordings(workload.MakeRequest(i))) {
        wordings.push_back(wording);
      }
    }
    runs.push_back(wordings);
  }
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_THAT(runs[0], UnorderedElementsAreArray({"A", "B", "C", "D", "E", "F", "G"}));
}

TEST_F(WorkloadTest, PromptOrdersDifferBetweenRequests) {
  const Workload workload = Make({"--data=x", "--shuffle_prompts", "--seed=5"});
  std::set<std::vector<std::string>> orders;
  for (int i = 0; i < 30; ++i) orders.insert(Wordings(workload.MakeRequest(3 * i)));
  EXPECT_GT(orders.size(), 5u);  // of 24
}

TEST_F(WorkloadTest, UniqueWordingsNeverRepeat) {
  const Workload workload = Make({"--data=x", "--unique", "--seed=12345"});
  EXPECT_THAT(Wordings(workload.MakeRequest(0)),
              ElementsAre("[2345.0] A", "[2345.0] B", "[2345.0] C", "[2345.0] D"));
  std::set<std::string> seen;
  for (int i = 0; i < 9; ++i) {
    for (const std::string& wording : Wordings(workload.MakeRequest(i))) {
      EXPECT_TRUE(seen.insert(wording).second) << wording;
    }
  }
}

TEST_F(WorkloadTest, SyntheticRequestsHaveTheShapeAndDiffer) {
  const Workload workload = Make({"--synthetic=3x20", "--prefix_tokens=5", "--suffix_tokens=2",
                                  "--separator=x", "--seed=1", "--request_id=r"});
  const v1::GenerateRequest first = workload.MakeRequest(0);
  const v1::GenerateRequest second = workload.MakeRequest(1);
  std::set<std::vector<int32_t>> segments;
  for (const v1::GenerateRequest* request : {&first, &second}) {
    const v1::TokenPrompt& prompt = request->prompt().tokens();
    ASSERT_EQ(prompt.segments_size(), 3);
    for (const v1::TokenSegment& segment : prompt.segments()) {
      EXPECT_EQ(segment.token_ids_size(), 20);
      EXPECT_THAT(segment.token_ids(), Each(Ge(10)));
      segments.insert(Ids(segment));
    }
    EXPECT_EQ(prompt.prefix().token_ids_size(), 5);
    EXPECT_EQ(prompt.suffix().token_ids_size(), 2);
    EXPECT_THAT(prompt.separator().token_ids(), ElementsAre(7, 8));
    EXPECT_EQ(Ids(prompt.prefix()), Ids(first.prompt().tokens().prefix()));
    EXPECT_EQ(Ids(prompt.suffix()), Ids(first.prompt().tokens().suffix()));
  }
  EXPECT_EQ(segments.size(), 6u);
  EXPECT_EQ(first.request_id(), "r-0");
  EXPECT_EQ(second.sampling().seed(), 2u);
  EXPECT_TRUE(MessageDifferencer::Equals(first, workload.MakeRequest(0)));
}

TEST_F(WorkloadTest, RepeatCyclesThroughSoManySyntheticRequests) {
  const Workload workload = Make({"--synthetic=2x9", "--repeat=2"});
  const auto first = [&](int index) {
    return Ids(workload.MakeRequest(index).prompt().tokens().segments(0));
  };
  EXPECT_NE(first(0), first(1));
  EXPECT_EQ(first(0), first(2));
  EXPECT_EQ(first(1), first(3));
}

TEST_F(WorkloadTest, ShuffledSyntheticPromptsAreTheSamePrompts) {
  const Workload workload = Make({"--synthetic=6x4", "--repeat=1", "--shuffle_prompts"});
  std::set<std::set<std::vector<int32_t>>> contents;
  std::set<std::vector<int32_t>> fronts;
  for (int i = 0; i < 30; ++i) {
    const v1::GenerateRequest request = workload.MakeRequest(i);
    std::set<std::vector<int32_t>> content;
    for (const auto& segment : request.prompt().tokens().segments()) content.insert(Ids(segment));
    contents.insert(content);
    fronts.insert(Ids(request.prompt().tokens().segments(0)));
  }
  EXPECT_EQ(contents.size(), 1u);
  EXPECT_GT(fronts.size(), 1u);
}

TEST_F(WorkloadTest, TheStallProbeIsOneLongPromptAndOneNewToken) {
  const v1::GenerateRequest probe = Make({"--data=x", "--stall_probe=300"}).MakeStallProbe();
  ASSERT_EQ(probe.prompt().tokens().segments_size(), 1);
  EXPECT_EQ(probe.prompt().tokens().segments(0).token_ids_size(), 300);
  EXPECT_EQ(probe.stopping().max_new_tokens(), 1);
}

TEST(LoadVocabularyTest, LeavesOutWhatTheServerCallsSpecialAndEos) {
  FakeService service;  // bytes; 256 is special, 2 is EOS
  absl::StatusOr<ChorusClient> client = ChorusClient::Connect(service.target());
  ASSERT_TRUE(client.ok()) << client.status();
  const absl::StatusOr<std::vector<int32_t>> ids = FindPlainTokenIds(*client, /*first_id=*/0);
  ASSERT_TRUE(ids.ok()) << ids.status();
  std::vector<int32_t> expected;
  for (int32_t id = 0; id < 256; ++id) {
    if (id != 2) expected.push_back(id);
  }
  EXPECT_EQ(*ids, expected);
  EXPECT_THAT(FindPlainTokenIds(*client, 250).value(), ElementsAre(250, 251, 252, 253, 254, 255));
  EXPECT_EQ(FindPlainTokenIds(*client, 256).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FindPlainTokenIds(*client, 999).status().message(),
            "no plain token from --synthetic_first_id=999 on; the vocabulary has 257 tokens");
}

}  // namespace
}  // namespace chorus
