#include <algorithm>
#include <cstdio>
#include <fstream>
#include <set>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "absl/strings/str_cat.h"

#include "tests/client/fake_service.h"
#include "tests/client/run_command.h"

namespace chorus {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// sent = ok + cancelled + errors, whatever happened.
void ExpectAddsUp(const nlohmann::json& report) {
  int64_t errors = 0;
  for (const auto& [code, count] : report["requests"]["errors"].items()) {
    errors += count.get<int64_t>();
  }
  EXPECT_EQ(report["requests"]["sent"].get<int64_t>(),
            report["requests"]["ok"].get<int64_t>() +
                report["requests"]["cancelled"].get<int64_t>() + errors)
      << report;
  EXPECT_EQ(report["end_to_end_seconds"]["count"], report["requests"]["ok"]);
}

class LoadCommandTest : public ::testing::Test {
 protected:
  LoadCommandTest()
      : data_(absl::StrCat(::testing::TempDir(), "/load_command_test_", getpid(), ".jsonl")) {
    service_.events = PlainAnswer({"Par", "is"});
    std::ofstream(data_) << "{\"question\": \"Capital?\", \"answers\": [\"paris\"]}\n"
                         << "{\"question\": \"Other?\", \"answers\": [\"rome\"]}\n";
  }

  ~LoadCommandTest() override { std::remove(data_.c_str()); }

  // "chorus load" of the data file with `flags`; --json unless it asks for something else.
  Outcome Load(std::vector<std::string> flags, bool json = true) {
    flags.insert(flags.begin(), {"load", absl::StrCat("--server=", service_.target())});
    const bool is_synthetic = std::any_of(flags.begin(), flags.end(), [](const std::string& flag) {
      return flag.rfind("--synthetic=", 0) == 0;
    });
    if (!is_synthetic) flags.push_back(absl::StrCat("--data=", data_));
    if (json) flags.push_back("--json");
    return RunChorus(flags);
  }

  const std::string data_;
  FakeService service_;
};

TEST_F(LoadCommandTest, AClosedLoopSendsWhatWasAskedForAndCountsIt) {
  const Outcome outcome = Load({"--clients=4", "--requests=20"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  const nlohmann::json report = outcome.json();
  ExpectAddsUp(report);
  EXPECT_EQ(report["mode"], "closed");
  EXPECT_EQ(report["clients"], 4);
  EXPECT_EQ(report["requests"]["ok"], 20);
  EXPECT_EQ(report["tokens"]["generated"], 40);
  EXPECT_EQ(report["tokens"]["prompt"], 20 * 14);
  EXPECT_EQ(report["ttft_seconds"]["count"], 20);
  EXPECT_EQ(report["inter_token_seconds"]["count"], 20);
  EXPECT_EQ(report["answers_right"], 10);
  EXPECT_EQ(service_.requests().size(), 20u);
}

TEST_F(LoadCommandTest, WarmUpRequestsAreSentButNotMeasured) {
  const nlohmann::json report = Load({"--clients=2", "--requests=5", "--warmup=3"}).json();
  EXPECT_EQ(report["requests"]["sent"], 5);
  EXPECT_EQ(report["requests"]["ok"], 5);
  EXPECT_EQ(report["ttft_seconds"]["count"], 5);
  EXPECT_EQ(service_.requests().size(), 8u);
}

TEST_F(LoadCommandTest, AnOpenLoopSendsOverSeveralConnections) {
  const Outcome outcome = Load({"--rate=500", "--requests=15", "--channels=3"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const nlohmann::json report = outcome.json();
  ExpectAddsUp(report);
  EXPECT_EQ(report["mode"], "open");
  EXPECT_EQ(report["clients"], nullptr);
  EXPECT_EQ(report["rate"], 500);
  EXPECT_EQ(report["requests"]["ok"], 15);
  EXPECT_EQ(report["requests"]["not_sent"], 0);
}

TEST_F(LoadCommandTest, ArrivalsBeyondTheBoundAreNotSentAndCounted) {
  service_.waits_for_cancel = true;
  const Outcome outcome =
      Load({"--rate=1000", "--requests=2", "--max_in_flight=1", "--timeout=300ms"});
  EXPECT_EQ(outcome.code, 1);
  const nlohmann::json report = outcome.json();
  ExpectAddsUp(report);
  EXPECT_EQ(report["requests"]["sent"], 2);
  EXPECT_EQ(report["requests"]["errors"]["DEADLINE_EXCEEDED"], 2);
  EXPECT_GT(report["requests"]["not_sent"], 0);
  EXPECT_THAT(outcome.err, HasSubstr("chorus: every request failed, the first: "));
  EXPECT_THAT(outcome.err, HasSubstr("[DEADLINE_EXCEEDED]"));
}

TEST_F(LoadCommandTest, EveryRequestCanBeCancelledByThisClient) {
  service_.waits_for_cancel = true;
  const Outcome outcome =
      Load({"--clients=3", "--requests=6", "--cancel=1", "--cancel_within=20ms"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const nlohmann::json report = outcome.json();
  ExpectAddsUp(report);
  EXPECT_EQ(report["requests"]["cancelled"], 6);
}

TEST_F(LoadCommandTest, ARaceOfEndsAndCancellationsStillAddsUp) {
  const nlohmann::json report =
      Load({"--clients=8", "--requests=200", "--cancel=0.7", "--cancel_within=2ms"}).json();
  ExpectAddsUp(report);
  EXPECT_EQ(report["requests"]["errors"], nlohmann::json::object());
}

TEST_F(LoadCommandTest, AServersOwnCancellationIsAnError) {
  service_.status = grpc::Status(grpc::StatusCode::CANCELLED, "not asked for");
  const nlohmann::json report = Load({"--clients=2", "--requests=4", "--error_pause=1ms"}).json();
  EXPECT_EQ(report["requests"]["cancelled"], 0);
  EXPECT_EQ(report["requests"]["errors"]["CANCELLED"], 4);
}

TEST_F(LoadCommandTest, SomeErrorsAreReportedAndNoFailure) {
  service_.fails_every = 3;
  const Outcome outcome = Load({"--clients=1", "--requests=9", "--error_pause=1ms"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const nlohmann::json report = outcome.json();
  ExpectAddsUp(report);
  EXPECT_EQ(report["requests"]["ok"], 6);
  EXPECT_EQ(report["requests"]["errors"]["UNAVAILABLE"], 3);
  EXPECT_EQ(report["error_messages"]["UNAVAILABLE"], "fails as told");
}

TEST_F(LoadCommandTest, SlowReadersGetEverything) {
  const nlohmann::json report =
      Load({"--clients=4", "--requests=8", "--slow_readers=0.5", "--slow_read=5ms"}).json();
  ExpectAddsUp(report);
  EXPECT_EQ(report["requests"]["ok"], 8);
  // prompt_info and two chunks are each followed by a wait, for half of the callers; a timer may
  // round each by a millisecond.
  EXPECT_GE(report["end_to_end_seconds"]["max"], 0.012);
}

TEST_F(LoadCommandTest, SyntheticRequestsAllDiffer) {
  const Outcome outcome = Load({"--synthetic=2x16", "--clients=2", "--requests=10"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.json()["answers_right"], nullptr);
  std::set<std::string> prompts;
  for (const v1::GenerateRequest& request : service_.requests()) {
    EXPECT_EQ(request.prompt().tokens().segments_size(), 2);
    prompts.insert(request.prompt().SerializeAsString());
  }
  EXPECT_EQ(prompts.size(), 10u);
}

TEST_F(LoadCommandTest, TheStallProbeIsSentBesideTheLoadAndNotCountedInIt) {
  const nlohmann::json report =
      Load({"--clients=2", "--duration=300ms", "--stall_probe=50", "--stall_probe_after=100ms"})
          .json();
  ExpectAddsUp(report);
  EXPECT_EQ(report["stall_probe"]["prompt_tokens"], 50);
  EXPECT_GT(report["stall_probe"]["ttft_seconds"], 0);
  EXPECT_EQ(report["requests"]["sent"].get<size_t>() + 1, service_.requests().size());
}

TEST_F(LoadCommandTest, TheTableIsForPeopleAndProgressForTheTerminal) {
  const Outcome outcome = Load({"--clients=2", "--requests=4"}, /*json=*/false);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("closed loop, 2 clients, attention"));
  EXPECT_THAT(outcome.out, HasSubstr("4 sent: 4 ok, 0 cancelled, 0 failed"));
  EXPECT_THAT(outcome.out, HasSubstr("2 of 4 right"));
  EXPECT_THAT(outcome.out, HasSubstr("\nfirst token"));
  EXPECT_THAT(outcome.err, Not(HasSubstr("\x1b")));
}

TEST_F(LoadCommandTest, AWrongDataFileIsAUsageErrorThatNamesTheLine) {
  std::ofstream(data_, std::ios::app) << "{\"question\": 3}\n";
  const Outcome outcome = Load({"--requests=1"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.err, absl::StrCat("chorus load: ", data_,
                                      ":3: 'question' is not a text but of type number\n"));
  EXPECT_EQ(outcome.out, "");
  EXPECT_TRUE(service_.requests().empty());
}

}  // namespace
}  // namespace chorus
