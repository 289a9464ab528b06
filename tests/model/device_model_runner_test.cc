// A model on a device made of the processor, by the kernels' own sources.
#include "core/model/device_model_runner.h"

#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/status_macros.h"
#include "core/model/host_device.h"
#include "tests/model/device_model_cases.h"

namespace chorus {
namespace {

absl::StatusOr<std::unique_ptr<ModelRunner>> CreateOn(HostDevice& device,
                                                      const std::string& directory,
                                                      DeviceRunnerOptions options) {
  CHORUS_ASSIGN_OR_RETURN(auto weights, LoadDeviceWeights(device, {.model_directory = directory}));
  options.kv_cache_bytes = 1 << 20;
  return CreateDeviceModelRunner(device, std::move(weights), options);
}

// A runner on a device of its own.
struct OnDevice {
  explicit OnDevice(const std::string& directory, DeviceRunnerOptions options = {}) {
    auto made = CreateOn(device, directory, std::move(options));
    EXPECT_TRUE(made.ok()) << made.status();
    runner = *std::move(made);
  }
  StepResult Run(const StepPlan& plan) {
    auto result = runner->Run(plan);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *std::move(result) : StepResult();
  }
  HostDevice device;
  std::unique_ptr<ModelRunner> runner;
};

struct HostBackend {
  static std::string WhyAbsent() { return ""; }
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Create(const std::string& directory,
                                                             const TestRunnerOptions& options) {
    static auto* const device = new HostDevice();
    return CreateOn(*device, directory,
                    {.use_graphs = options.use_graphs,
                     .max_graph_rows = 8,
                     .progress = options.progress,
                     .warn = options.warn});
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Host, DeviceModelTest, HostBackend);

DeviceRunnerOptions WithoutGraphs() { return {.use_graphs = false}; }

TEST(DeviceModelRunnerTest, TellsWhatItLoaded) {
  HostDevice device;
  std::vector<int> done;
  const auto weights = LoadDeviceWeights(
      device, {.model_directory = ModelDirectory(), .progress = [&](int at, int total) {
                 EXPECT_EQ(total, 3);
                 done.push_back(at);
               }});
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(done, (std::vector<int>{1, 2, 3}));
  const auto runner =
      CreateDeviceModelRunner(device, *weights, {.kv_cache_bytes = 10250, .use_graphs = false});
  ASSERT_TRUE(runner.ok()) << runner.status();
  const ModelInfo& info = (*runner)->info();
  EXPECT_EQ(info.device, "host:0");
  EXPECT_EQ(info.dtype, "bfloat16");
  EXPECT_EQ(info.kv_bytes_per_token, 2 * 2 * 2 * 64 * 2);
  EXPECT_EQ(info.num_kv_slots, 10);
  EXPECT_EQ(LoadDeviceWeights(device,
                              {.model_directory = ModelDirectory(), .dtype = ModelDtype::kFloat32})
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateDeviceModelRunner(device, *weights, {.kv_cache_bytes = 1023}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(DeviceModelRunnerTest, GraphsAreRecordedForRowsAndSpans) {
  int num_graphs = 0;
  const OnDevice on(ModelDirectory(),
                    {.max_graph_rows = 8, .progress = [&](int, int total) { num_graphs = total; }});
  EXPECT_EQ(num_graphs, 3 + 4 + 6 + 8);  // of 1, 2, 4 and 8 rows: from 16 spans to 64 a row
}

TEST(DeviceModelRunnerTest, TooLittleMemoryCostsOneStep) {
  OnDevice on_device(ModelDirectory(), {.max_step_rows = 8, .use_graphs = false});
  const TestSequence sequence = CausalSequence(Tokens(40, 3), 0);
  StepPlan small, large;
  AppendWithChoices(sequence, 0, 4, small);
  AppendRows(sequence, 0, 40, large);
  const StepResult want = on_device.Run(small);
  const int64_t used = std::numeric_limits<int64_t>::max() - *on_device.device.FreeBytes();
  on_device.device.SetMemoryLimit(used + 2000);
  EXPECT_EQ(on_device.runner->Run(large).status().code(), absl::StatusCode::kResourceExhausted);
  const StepResult again = on_device.Run(small);
  for (size_t i = 0; i < want.tokens.size(); ++i) ExpectSameBits(again.tokens[i], want.tokens[i]);
  on_device.device.SetMemoryLimit(std::numeric_limits<int64_t>::max());
  on_device.Run(large);
}

TEST(DeviceModelRunnerTest, ALostDeviceIsUnavailable) {
  OnDevice on(ModelDirectory(), WithoutGraphs());
  StepPlan plan;
  AppendWithChoices(Fused(1, 0, 1), 0, 1, plan);
  on.Run(plan);
  on.device.Lose();
  EXPECT_EQ(on.runner->Run(plan).status().code(), absl::StatusCode::kUnavailable);
}

TEST(DeviceModelRunnerTest, MemoryThatIsNotToBeHadIsResourceExhausted) {
  HostDevice device(200'000);
  EXPECT_EQ(LoadDeviceWeights(device, {.model_directory = ModelDirectory()}).status().code(),
            absl::StatusCode::kResourceExhausted);
  device.SetMemoryLimit(4 << 20);
  const auto weights = LoadDeviceWeights(device, {.model_directory = ModelDirectory()});
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(CreateDeviceModelRunner(device, *weights, {.kv_cache_bytes = 8 << 20}).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace chorus
