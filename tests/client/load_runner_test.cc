#include "client/load_runner.h"

#include <csignal>

#include <gtest/gtest.h>

#include "client/interrupt.h"
#include "tests/client/fake_service.h"

namespace chorus {
namespace {

class LoadRunnerTest : public ::testing::Test {
 protected:
  LoadRunnerTest() { service_.events = PlainAnswer({"Par", "is"}); }

  LoadResult RunLoad(const std::vector<std::string>& arguments, const LoadHooks& hooks) {
    LoadOptions options;
    const auto parsed = MakeLoadParser(options).Parse(arguments);
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    const absl::Status status = FinishLoadOptions(options);
    EXPECT_TRUE(status.ok()) << status;
    const Workload workload(options, {.items = {{.question = "Why?"}}});
    std::vector<ChorusClient> clients;
    auto client = ChorusClient::Connect(service_.target());
    EXPECT_TRUE(client.ok()) << client.status();
    clients.push_back(*std::move(client));
    return LoadRunner(options, workload, clients, hooks).Run();
  }

  FakeService service_;
};

TEST_F(LoadRunnerTest, AnInterruptCancelsWhatRunsAndKeepsWhatWasMeasured) {
  service_.waits_for_cancel = true;
  LoadSnapshot last;
  const LoadResult result =
      RunLoad({"--data=x", "--clients=3", "--duration=1h"},
              {.is_interrupted = [&] { return last.num_tokens == 6; },
               .on_tick = [&](const LoadSnapshot& snapshot) { last = snapshot; }});
  EXPECT_EQ(result.num_sent, 3);
  EXPECT_EQ(result.num_cancelled, 3);
  EXPECT_EQ(result.num_failed(), 0);
  EXPECT_EQ(result.ttft.Summarize().count, 3);
  EXPECT_EQ(result.generated_tokens, 6);
}

TEST_F(LoadRunnerTest, TheDurationEndsTheSendingAndNoRequest) {
  LoadSnapshot last;
  const LoadResult result =
      RunLoad({"--data=x", "--clients=2", "--duration=50ms"},
              {.is_interrupted = [] { return false; },
               .on_tick = [&](const LoadSnapshot& snapshot) { last = snapshot; }});
  EXPECT_GT(result.num_sent, 0);
  EXPECT_EQ(result.num_ok, result.num_sent);
  EXPECT_EQ(result.num_ok, static_cast<int64_t>(service_.requests().size()));
}

TEST(InterruptTest, TakesOneSignalAndRemembersIt) {
  Interrupt interrupt;
  EXPECT_FALSE(interrupt.HasCome());
  raise(SIGINT);
  EXPECT_TRUE(interrupt.HasCome());
  EXPECT_TRUE(interrupt.HasCome());
}

}  // namespace
}  // namespace chorus
