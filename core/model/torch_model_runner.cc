#include "core/model/torch_model_runner.h"

#include <algorithm>
#include <new>
#include <utility>
#include <vector>

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/base/thread_pool.h"
#include "core/model/checkpoint.h"
#include "core/model/choice_groups.h"
#include "core/model/kv_storage.h"
#include "core/model/llama_model.h"
#include "core/model/llama_weights.h"
#include "core/model/logit_combiner.h"
#include "core/model/plan_check.h"
#include "core/model/sampler.h"
#include "core/model/workspace.h"

namespace chorus {

class SharedWeights {
 public:
  SharedWeights(std::string name, std::unique_ptr<const LlamaModel> model)
      : name_(std::move(name)), model_(std::move(model)) {}
  const std::string& name() const { return name_; }
  const LlamaModel& model() const { return *model_; }

 private:
  std::string name_;
  std::unique_ptr<const LlamaModel> model_;
};

namespace {

// Logits that stand side by side: enough for the head's matrix product to be limited by arithmetic,
// and a bound on memory.
constexpr size_t kMaxLogitRows = 64;

constexpr int kMaxThreads = 1024;
constexpr int64_t kMaxSlots = int64_t{1} << 30;  // slot numbers are int32

// Runs `body`, the one place where torch's exceptions become a Status.
template <typename Body>
auto CatchTorch(const Body& body) -> decltype(body()) {
  try {
    const c10::InferenceMode guard;
    return body();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    const bool is_memory = absl::StrContains(what, "can't allocate memory") ||
                           absl::StrContains(what, "not enough memory");
    if (is_memory) return absl::ResourceExhaustedError(absl::StrCat("out of memory: ", what));
    return absl::InternalError(what);
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

KvType KvTypeOf(WeightType type) {
  return type == WeightType::kFloat32 ? KvType::kFloat32 : KvType::kBFloat16;
}

// All but num_parameters and weight_bytes.
ModelInfo MakeInfo(const std::string& name, const ModelConfig& config, WeightType type,
                   int32_t num_slots) {
  return {.name = name,
          .vocab_size = config.vocab_size,
          .max_positions = config.max_positions,
          .num_kv_slots = num_slots,
          .device = "cpu",
          .dtype = type == WeightType::kFloat32 ? "float32" : "bfloat16",
          .kv_bytes_per_token = KvStorage::BytesPerToken(config, KvTypeOf(type)),
          .num_layers = config.num_layers,
          .num_heads = config.num_heads,
          .num_kv_heads = config.num_kv_heads,
          .head_dim = config.head_dim,
          .hidden_size = config.hidden_size,
          .layer_windows = config.layer_windows};
}

ModelInfo MakeInfo(const SharedWeights& weights, int32_t num_slots) {
  const LlamaModel& model = weights.model();
  ModelInfo info = MakeInfo(weights.name(), model.config(), model.type(), num_slots);
  info.num_parameters = model.num_parameters();
  info.weight_bytes = model.weight_bytes();
  return info;
}

class TorchModelRunner : public ModelRunner {
 public:
  TorchModelRunner(std::shared_ptr<const SharedWeights> weights, int num_threads, int32_t num_slots)
      : weights_(std::move(weights)),
        model_(weights_->model()),
        info_(MakeInfo(*weights_, num_slots)),
        pool_(num_threads),
        kv_(model_.config(), KvTypeOf(model_.type()), num_slots) {}

  const ModelInfo& info() const override { return info_; }

  absl::StatusOr<StepResult> Run(const StepPlan& plan) override {
    CHORUS_RETURN_IF_ERROR(CheckStepPlan(plan, info_));
    return CatchTorch([&]() -> absl::StatusOr<StepResult> { return RunStep(plan); });
  }

 private:
  absl::StatusOr<StepResult> RunStep(const StepPlan& plan);
  // Fills result.tokens[first, end); Forward has left the states of `logit_rows` in the workspace.
  void ChooseTokens(const StepPlan& plan, const std::vector<int32_t>& logit_rows, size_t first,
                    size_t end, StepResult& result);

  const std::shared_ptr<const SharedWeights> weights_;
  const LlamaModel& model_;
  const ModelInfo info_;
  ThreadPool pool_;
  KvStorage kv_;
  Workspace workspace_;
};

int32_t IndexIn(const std::vector<int32_t>& ascending, int32_t value) {
  return static_cast<int32_t>(std::lower_bound(ascending.begin(), ascending.end(), value) -
                              ascending.begin());
}

absl::StatusOr<StepResult> TorchModelRunner::RunStep(const StepPlan& plan) {
  StepResult result;
  if (plan.num_rows() == 0) return result;
  const std::vector<int32_t> logit_rows = RowsOfChoices(plan, 0, plan.choices.size());
  result.probes = model_.Forward(plan, logit_rows, kv_, workspace_, pool_);
  result.tokens.resize(plan.choices.size());
  for (size_t first = 0; first < plan.choices.size();) {
    const size_t end = EndOfChoiceGroup(plan, first, kMaxLogitRows);
    ChooseTokens(plan, logit_rows, first, end, result);
    first = end;
  }
  return result;
}

void TorchModelRunner::ChooseTokens(const StepPlan& plan, const std::vector<int32_t>& logit_rows,
                                    size_t first, size_t end, StepResult& result) {
  const int64_t vocab_size = model_.config().vocab_size;
  const std::vector<int32_t> rows = RowsOfChoices(plan, first, end);
  std::vector<int32_t> hidden_rows;
  for (const int32_t row : rows) hidden_rows.push_back(IndexIn(logit_rows, row));
  workspace_.ReserveLogits(model_.config(), static_cast<int64_t>(rows.size()),
                           static_cast<int64_t>(end - first));
  model_.Logits(hidden_rows, workspace_, pool_);
  const float* logits = workspace_.logits.const_data_ptr<float>();
  float* combined = workspace_.combined.mutable_data_ptr<float>();
  pool_.ParallelFor(static_cast<int64_t>(end - first), [&](int64_t i) {
    const TokenChoice& choice = plan.choices[first + i];
    ChosenToken& chosen = result.tokens[first + i];
    try {
      const auto logits_of = [&](const std::vector<int32_t>& of) {
        std::vector<const float*> pointers;
        for (const int32_t row : of) pointers.push_back(logits + IndexIn(rows, row) * vocab_size);
        return pointers;
      };
      const std::vector<const float*> inputs = logits_of(choice.rows);
      const float* row = inputs[0];
      if (choice.rule != CombineRule::kNone) {
        row = combined + i * vocab_size;
        CombineLogits(choice.rule, inputs, choice.weights, static_cast<int32_t>(vocab_size),
                      combined + i * vocab_size);
      }
      chosen = SampleToken(choice, row, static_cast<int32_t>(vocab_size));
      if (!choice.compared_rows.empty()) {
        chosen.disagreement =
            Disagreement(logits_of(choice.compared_rows), static_cast<int32_t>(vocab_size));
      }
      for (const float* row_alone : logits_of(choice.target_rows)) {
        AppendLogprobs(row_alone, static_cast<int32_t>(vocab_size), choice.targets,
                       &chosen.target_logprobs);
      }
    } catch (const std::bad_alloc&) {  // must not leave a thread of the team
      chosen.status = absl::ResourceExhaustedError("out of memory");
    }
  });
}

WeightType WeightTypeOf(ModelDtype dtype) {
  return dtype == ModelDtype::kFloat32 ? WeightType::kFloat32 : WeightType::kBFloat16;
}

absl::StatusOr<std::shared_ptr<const SharedWeights>> Load(const ModelOptions& options) {
  CHORUS_ASSIGN_OR_RETURN(const Checkpoint checkpoint, OpenCheckpoint(options));
  ThreadPool pool(std::max(1, options.num_threads));
  CHORUS_ASSIGN_OR_RETURN(auto model,
                          LlamaModel::Load(checkpoint.config, WeightTypeOf(options.dtype),
                                           *checkpoint.source, pool, options.progress));
  return std::make_shared<const SharedWeights>(checkpoint.name, std::move(model));
}

absl::StatusOr<ModelInfo> Inspect(const ModelOptions& options) {
  CHORUS_ASSIGN_OR_RETURN(const Checkpoint checkpoint, OpenCheckpoint(options));
  const ModelConfig& config = checkpoint.config;
  int64_t num_parameters = 0;
  for (const WeightName& weight : WeightNames(config).All()) {
    CHORUS_RETURN_IF_ERROR(checkpoint.source->Check(weight));
    num_parameters += weight.num_elements();
  }
  const bool is_float32 = WeightTypeOf(options.dtype) == WeightType::kFloat32;
  ModelInfo info = MakeInfo(checkpoint.name, config, WeightTypeOf(options.dtype), 0);
  info.num_parameters = num_parameters;
  info.weight_bytes = num_parameters * (is_float32 ? 4 : 2);
  return info;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const SharedWeights>> LoadSharedWeights(
    const ModelOptions& options) {
  return CatchTorch([&]() -> absl::StatusOr<std::shared_ptr<const SharedWeights>> {
    // The kernels bring their own threads; torch's would only stand in their way.
    at::set_num_threads(1);
    return Load(options);
  });
}

absl::StatusOr<ModelInfo> InspectModel(const ModelOptions& options) {
  return CatchTorch([&] { return Inspect(options); });
}

absl::StatusOr<std::unique_ptr<ModelRunner>> CreateTorchModelRunner(
    std::shared_ptr<const SharedWeights> weights, const RunnerOptions& options) {
  if (options.num_threads < 1 || options.num_threads > kMaxThreads) {
    return absl::InvalidArgumentError(absl::StrCat(
        "num_threads: ", options.num_threads, " is not valid: must be in [1, ", kMaxThreads, "]"));
  }
  const LlamaModel& model = weights->model();
  const int64_t token_bytes = KvStorage::BytesPerToken(model.config(), KvTypeOf(model.type()));
  const int64_t num_slots = std::min<int64_t>(options.kv_cache_bytes / token_bytes, kMaxSlots);
  if (num_slots < 1) {
    return absl::InvalidArgumentError(absl::StrCat("kv_cache_bytes: ", options.kv_cache_bytes,
                                                   " is not valid: one token of this model takes ",
                                                   token_bytes));
  }
  return CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<ModelRunner>> {
    return std::make_unique<TorchModelRunner>(std::move(weights), options.num_threads,
                                              static_cast<int32_t>(num_slots));
  });
}

}  // namespace chorus
