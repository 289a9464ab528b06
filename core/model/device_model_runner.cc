#include "core/model/device_model_runner.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

#include "core/base/status_macros.h"
#include "core/kernels/cuda/attention_shapes.h"
#include "core/kernels/cuda/sampling_workspace.h"
#include "core/model/choice_groups.h"
#include "core/model/device_buffer.h"
#include "core/model/device_choices.h"
#include "core/model/device_graphs.h"
#include "core/model/device_model.h"
#include "core/model/device_step.h"
#include "core/model/plan_check.h"

namespace chorus {
namespace {

constexpr int64_t kTypeBytes = 2;
constexpr int64_t kMaxSlots = int64_t{1} << 30;  // slot numbers are int32
// Logits that stand side by side: each time the head is read once, and the host waits. 263 MB of
// a vocabulary of 128,256.
constexpr size_t kMaxLogitRows = 512;

int64_t KvBytesPerToken(const ModelConfig& config) {
  return 2 * kTypeBytes * config.num_layers * config.kv_size();
}

ModelInfo MakeInfo(const Device& device, const DeviceWeights& weights, int32_t num_slots) {
  const ModelConfig& config = weights.config();
  return {.name = weights.name(),
          .vocab_size = config.vocab_size,
          .max_positions = config.max_positions,
          .num_kv_slots = num_slots,
          .device = device.name(),
          .dtype = "bfloat16",
          .num_parameters = weights.num_parameters(),
          .weight_bytes = weights.weight_bytes(),
          .kv_bytes_per_token = KvBytesPerToken(config),
          .num_layers = config.num_layers,
          .num_heads = config.num_heads,
          .num_kv_heads = config.num_kv_heads,
          .head_dim = config.head_dim,
          .hidden_size = config.hidden_size,
          .layer_windows = config.layer_windows};
}

class DeviceModelRunner : public ModelRunner {
 public:
  DeviceModelRunner(Device& device, std::shared_ptr<const DeviceWeights> weights, int32_t num_slots)
      : weights_(std::move(weights)),
        config_(weights_->config()),
        info_(MakeInfo(device, *weights_, num_slots)),
        device_(device),
        kv_memory_(device),
        step_(device),
        activations_(device),
        workspace_(device),
        probes_(device),
        logits_(device),
        combined_(device),
        choices_(device) {}
  ~DeviceModelRunner() override {
    // Memory may only go when no work uses it.
    if (stream_ != nullptr) stream_->Wait().IgnoreError();
  }

  absl::Status Start(const DeviceRunnerOptions& options);
  const ModelInfo& info() const override { return info_; }
  absl::StatusOr<StepResult> Run(const StepPlan& plan) override;

 private:
  absl::StatusOr<StepResult> RunStep(const StepPlan& plan);
  absl::Status RunEagerly(DeviceStep& step);
  absl::StatusOr<DeviceProbeBuffers> ReserveProbes(const DeviceStep& step);
  absl::StatusOr<std::vector<AttentionProbeResult>> ReadProbes(const StepPlan& plan,
                                                               const DeviceStep& step,
                                                               const DeviceProbeBuffers& buffers);
  absl::Status ReserveRows(int32_t num_rows);
  // Fills result.tokens[first, end) from the final norms of the step's kept rows.
  absl::Status ChooseTokens(const StepPlan& plan, const DeviceStep& step, size_t first, size_t end,
                            StepResult& result);
  absl::Status Sample(const PackedChoices& packed, const char* packed_at, int32_t num_rows,
                      char** output);
  void Warn(const DeviceRunnerOptions& options) const;

  const std::shared_ptr<const DeviceWeights> weights_;
  const ModelConfig& config_;
  const ModelInfo info_;
  Device& device_;
  std::unique_ptr<DeviceStream> stream_;
  DeviceBuffer kv_memory_;
  DeviceKv kv_;
  StepTraits traits_;
  std::optional<DeviceModel> model_;
  std::optional<DeviceGraphs> graphs_;
  DeviceBuffer step_, activations_, workspace_, probes_;
  DeviceBuffer logits_, combined_, choices_;
  DeviceProbeBuffers probe_buffers_;  // of the present step
  // Of the present step: final norms of the kept rows, and memory that is free then.
  const char* normed_ = nullptr;
  char* gathered_ = nullptr;
};

absl::Status DeviceModelRunner::Start(const DeviceRunnerOptions& options) {
  CHORUS_ASSIGN_OR_RETURN(stream_, device_.CreateStream());
  const int32_t num_slots = info_.num_kv_slots;
  CHORUS_ASSIGN_OR_RETURN(traits_, StepTraits::Create(config_, stream_->kernels(), num_slots));
  Warn(options);
  kv_.num_slots = num_slots + 1;
  kv_.layer_bytes = kTypeBytes * int64_t{kv_.num_slots} * config_.kv_size();
  CHORUS_RETURN_IF_ERROR(kv_memory_.Reserve(2 * config_.num_layers * kv_.layer_bytes));
  kv_.base = kv_memory_.data();
  model_.emplace(*weights_, traits_);
  CHORUS_RETURN_IF_ERROR(ReserveRows(options.max_step_rows));
  if (options.max_step_rows > 0) {
    const int64_t num_rows = std::min<int64_t>(options.max_step_rows, kMaxLogitRows);
    CHORUS_RETURN_IF_ERROR(logits_.Reserve(num_rows * 4 * config_.vocab_size));
  }
  if (!options.use_graphs) return absl::OkStatus();
  graphs_.emplace(device_, *model_, config_, traits_, kv_);
  return graphs_->Record(options.max_graph_rows, num_slots, options.progress, *stream_);
}

void DeviceModelRunner::Warn(const DeviceRunnerOptions& options) const {
  const bool is_plain = std::any_of(traits_.windows.begin(), traits_.windows.end(),
                                    [](const WindowKernel& kernel) { return kernel.is_plain; });
  if (!is_plain || !options.warn) return;
  options.warn(absl::StrCat("attention of ", config_.num_heads, " heads of ", config_.head_dim,
                            " over ", config_.num_kv_heads, " key-value heads",
                            config_.layer_windows.empty() ? "" : ", or with a window,",
                            " runs through the plain kernel on ", device_.name(),
                            ", which is many times slower"));
}

absl::Status DeviceModelRunner::ReserveRows(int32_t num_rows) {
  if (num_rows == 0) return absl::OkStatus();
  int64_t num_bytes = 0;
  DeviceActivations::Place(config_, num_rows, nullptr, &num_bytes);
  return activations_.Reserve(num_bytes);
}

absl::StatusOr<StepResult> DeviceModelRunner::Run(const StepPlan& plan) {
  CHORUS_RETURN_IF_ERROR(CheckStepPlan(plan, info_));
  try {
    absl::StatusOr<StepResult> result = RunStep(plan);
    if (result.ok()) return result;
    // What has been started must end before memory that it uses is given back. A device that is
    // lost says so here, whatever the first call that failed because of it made of that.
    const absl::Status end = stream_->Wait();
    return absl::IsUnavailable(end) ? end : result.status();
  } catch (const std::bad_alloc&) {
    stream_->Wait().IgnoreError();
    return absl::ResourceExhaustedError("out of host memory");
  }
}

absl::StatusOr<StepResult> DeviceModelRunner::RunStep(const StepPlan& plan) {
  StepResult result;
  if (plan.num_rows() == 0) return result;
  DeviceStep step(plan, RowsOfChoices(plan, 0, plan.choices.size()), traits_);
  bool is_done = false;
  if (graphs_.has_value()) {
    CHORUS_ASSIGN_OR_RETURN(is_done, graphs_->Run(step, *stream_));
    normed_ = graphs_->normed();
    gathered_ = graphs_->delta();
  }
  if (!is_done) CHORUS_RETURN_IF_ERROR(RunEagerly(step));
  if (!plan.probes.empty()) {
    CHORUS_ASSIGN_OR_RETURN(result.probes, ReadProbes(plan, step, probe_buffers_));
  }
  result.tokens.resize(plan.choices.size());
  for (size_t first = 0; first < plan.choices.size();) {
    const size_t end = EndOfChoiceGroup(plan, first, kMaxLogitRows);
    CHORUS_RETURN_IF_ERROR(ChooseTokens(plan, step, first, end, result));
    first = end;
  }
  if (plan.choices.empty()) CHORUS_RETURN_IF_ERROR(stream_->Wait());  // else choosing has waited
  return result;
}

absl::Status DeviceModelRunner::RunEagerly(DeviceStep& step) {
  step.Pack();
  const int64_t num_bytes = static_cast<int64_t>(step.bytes().size());
  CHORUS_RETURN_IF_ERROR(step_.Reserve(num_bytes));
  CHORUS_RETURN_IF_ERROR(ReserveRows(step.num_rows()));
  DeviceForwardArgs args;
  args.step = step.ViewAt(step_.data());
  if (args.step.num_spans > 0) {
    CHORUS_RETURN_IF_ERROR(
        workspace_.Reserve(4 * AttentionWorkspaceFloats(traits_.shape, args.step.num_spans)));
  }
  if (!step.probe_plans().empty()) {
    CHORUS_ASSIGN_OR_RETURN(probe_buffers_, ReserveProbes(step));
    args.probes = probe_buffers_;
  }
  int64_t activation_bytes = 0;
  args.activations =
      DeviceActivations::Place(config_, step.num_rows(), activations_.data(), &activation_bytes);
  args.kv = kv_;
  args.attention_workspace = reinterpret_cast<float*>(workspace_.data());
  normed_ = args.activations.normed;
  gathered_ = args.activations.delta;
  CHORUS_RETURN_IF_ERROR(stream_->Upload(step_.data(), step.bytes().data(), num_bytes));
  return model_->Forward(args, *stream_);
}

absl::StatusOr<DeviceProbeBuffers> DeviceModelRunner::ReserveProbes(const DeviceStep& step) {
  const ProbePlan& plan = step.probe_plans()[0];  // sizes are the same for every window
  BlockPlacer placer;
  const int64_t logits = placer.Place(4 * plan.num_logits);
  const int64_t sums = placer.Place(int64_t{4} * plan.num_units * config_.num_heads);
  const int64_t mean_mass = placer.Place(int64_t{4} * plan.num_units);
  const int64_t mass = placer.Place(4 * plan.num_chosen);
  const int64_t mean_logits = placer.Place(4 * plan.num_chosen);
  CHORUS_RETURN_IF_ERROR(probes_.Reserve(placer.size()));
  const auto at = [&](int64_t begin) { return reinterpret_cast<float*>(probes_.data() + begin); };
  return DeviceProbeBuffers{at(logits), at(sums), at(mean_mass), at(mass), at(mean_logits)};
}

absl::StatusOr<std::vector<AttentionProbeResult>> DeviceModelRunner::ReadProbes(
    const StepPlan& plan, const DeviceStep& step, const DeviceProbeBuffers& buffers) {
  const ProbePlan& planned = step.probe_plans()[0];
  std::vector<float> means(planned.num_units), mass(planned.num_chosen), logits(planned.num_chosen);
  const auto read = [&](std::vector<float>& to, const float* from) {
    return stream_->Download(to.data(), from, static_cast<int64_t>(4 * to.size()));
  };
  CHORUS_RETURN_IF_ERROR(read(means, buffers.mean_mass));
  CHORUS_RETURN_IF_ERROR(read(mass, buffers.mass));
  CHORUS_RETURN_IF_ERROR(read(logits, buffers.mean_logits));
  std::vector<AttentionProbeResult> results;
  for (size_t i = 0; i < plan.probes.size(); ++i) {
    const ProbeTask& task = planned.tasks[i];
    const AttentionProbe& probe = plan.probes[i];
    const auto num_chosen =
        static_cast<int64_t>(probe.layers.size() * probe.heads.size()) * task.num_units;
    const auto slice = [](const std::vector<float>& from, int64_t begin, int64_t count) {
      return std::vector<float>(from.begin() + begin, from.begin() + begin + count);
    };
    results.push_back({slice(means, task.unit_begin, task.num_units),
                       slice(mass, task.chosen_begin, num_chosen),
                       slice(logits, task.chosen_begin, num_chosen)});
  }
  return results;
}

absl::Status DeviceModelRunner::ChooseTokens(const StepPlan& plan, const DeviceStep& step,
                                             size_t first, size_t end, StepResult& result) {
  const std::vector<int32_t> rows = RowsOfChoices(plan, first, end);
  const auto choices = absl::MakeConstSpan(plan.choices).subspan(first, end - first);
  const PackedChoices packed = PackChoices(choices, rows, config_.vocab_size);
  // One upload: which rows, then the choices.
  std::vector<int32_t> kept;
  for (const int32_t row : rows) kept.push_back(step.KeptIndexOf(row));
  const int64_t packed_begin = (static_cast<int64_t>(4 * kept.size()) + 255) / 256 * 256;
  std::vector<uint8_t> bytes(packed_begin);
  std::memcpy(bytes.data(), kept.data(), 4 * kept.size());
  bytes.insert(bytes.end(), packed.bytes().begin(), packed.bytes().end());
  const int32_t num_rows = static_cast<int32_t>(rows.size());
  DeviceKernels& kernels = stream_->kernels();
  BlockPlacer placer;
  placer.Place(static_cast<int64_t>(bytes.size()));
  placer.Place(packed.output_bytes());
  placer.Place(device::SamplingWorkspaceBytes(
      {num_rows, packed.num_choices(), packed.num_changed_rows(), config_.vocab_size}));
  CHORUS_RETURN_IF_ERROR(choices_.Reserve(placer.size()));
  CHORUS_RETURN_IF_ERROR(logits_.Reserve(int64_t{4} * num_rows * config_.vocab_size));
  CHORUS_RETURN_IF_ERROR(
      stream_->Upload(choices_.data(), bytes.data(), static_cast<int64_t>(bytes.size())));
  CHORUS_RETURN_IF_ERROR(kernels.GatherRows(DeviceType::kBFloat16, normed_,
                                            reinterpret_cast<const int32_t*>(choices_.data()),
                                            num_rows, config_.hidden_size, gathered_));
  CHORUS_RETURN_IF_ERROR(
      model_->Logits(gathered_, num_rows, reinterpret_cast<float*>(logits_.data()), *stream_));
  char* output = nullptr;
  CHORUS_RETURN_IF_ERROR(Sample(packed, choices_.data() + packed_begin, num_rows, &output));
  std::vector<uint64_t> read((packed.output_bytes() + 15) / 16 * 2);
  CHORUS_RETURN_IF_ERROR(stream_->Download(read.data(), output, packed.output_bytes()));
  std::vector<float> combined;
  if (std::any_of(choices.begin(), choices.end(),
                  [](const TokenChoice& choice) { return choice.want_logits; })) {
    combined.resize(choices.size() * config_.vocab_size);
    CHORUS_RETURN_IF_ERROR(stream_->Download(combined.data(), combined_.data(),
                                             static_cast<int64_t>(4 * combined.size())));
  }
  std::vector<ChosenToken> chosen =
      UnpackChosen(choices, packed, read.data(), combined.data(), config_.vocab_size);
  std::move(chosen.begin(), chosen.end(), result.tokens.begin() + static_cast<int64_t>(first));
  return absl::OkStatus();
}

// REQUIRES: choices_ holds the packed choices at `packed_at`, and room behind them.
absl::Status DeviceModelRunner::Sample(const PackedChoices& packed, const char* packed_at,
                                       int32_t num_rows, char** output) {
  const int64_t row_bytes = int64_t{4} * config_.vocab_size;
  BlockPlacer placer;
  placer.Place(packed_at - choices_.data() + static_cast<int64_t>(packed.bytes().size()));
  *output = choices_.data() + placer.Place(packed.output_bytes());
  BlockPlacer rows;
  rows.Place(packed.num_choices() * row_bytes);
  const int64_t changed = rows.Place(packed.num_changed_rows() * row_bytes);
  CHORUS_RETURN_IF_ERROR(combined_.Reserve(rows.size()));
  DeviceSamplingArgs args;
  args.in = packed.InputsAt(packed_at);
  args.out = packed.OutputsAt(*output);
  args.logits = reinterpret_cast<const float*>(logits_.data());
  args.num_rows = num_rows;
  args.num_choices = packed.num_choices();
  args.num_changed_rows = packed.num_changed_rows();
  args.vocab_size = config_.vocab_size;
  args.combined = reinterpret_cast<float*>(combined_.data());
  args.changed = reinterpret_cast<float*>(combined_.data() + changed);
  args.workspace = choices_.data() + placer.size();
  args.combines = packed.combines();
  args.adjusts = packed.adjusts();
  args.compares = packed.compares();
  return stream_->kernels().Sample(args);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRunner>> CreateDeviceModelRunner(
    Device& device, std::shared_ptr<const DeviceWeights> weights,
    const DeviceRunnerOptions& options) {
  const int64_t token_bytes = KvBytesPerToken(weights->config());
  const int64_t num_slots = std::min(options.kv_cache_bytes / token_bytes, kMaxSlots);
  if (num_slots < 1) {
    return absl::InvalidArgumentError(absl::StrCat("kv_cache_bytes: ", options.kv_cache_bytes,
                                                   " is not valid: one token of this model takes ",
                                                   token_bytes));
  }
  auto runner = std::make_unique<DeviceModelRunner>(device, std::move(weights),
                                                    static_cast<int32_t>(num_slots));
  CHORUS_RETURN_IF_ERROR(runner->Start(options));
  return runner;
}

}  // namespace chorus
