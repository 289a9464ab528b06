#include "core/model/device_model.h"

#include <utility>

#include "core/base/status_macros.h"
#include "core/model/device_buffer.h"

namespace chorus {
namespace {

constexpr DeviceType kType = DeviceType::kBFloat16;
constexpr int64_t kTypeBytes = 2;

}  // namespace

DeviceActivations DeviceActivations::Place(const ModelConfig& config, int64_t num_rows, char* base,
                                           int64_t* num_bytes) {
  BlockPlacer placer;
  const auto place = [&](int64_t width, int64_t element_bytes) -> char* {
    const int64_t begin = placer.Place(num_rows * width * element_bytes);
    return base == nullptr ? nullptr : base + begin;
  };
  DeviceActivations activations;
  activations.residual = reinterpret_cast<float*>(place(config.hidden_size, 4));
  activations.kept_residual = reinterpret_cast<float*>(place(config.hidden_size, 4));
  activations.normed = place(config.hidden_size, kTypeBytes);
  activations.delta = place(config.hidden_size, kTypeBytes);
  activations.qkv = place(config.q_size() + 2 * config.kv_size(), kTypeBytes);
  activations.q = place(config.q_size(), kTypeBytes);
  activations.attention = place(config.q_size(), kTypeBytes);
  activations.gate_up = place(2 * int64_t{config.intermediate_size}, kTypeBytes);
  activations.activated = place(config.intermediate_size, kTypeBytes);
  *num_bytes = placer.size();
  return activations;
}

absl::Status DeviceModel::Multiply(const DeviceWeights::Matrix& matrix, const Rows& rows,
                                   const char* x, char* y, DeviceStream& stream) const {
  DeviceLinearArgs args = {.type = kType,
                           .x = x,
                           .weight = matrix.weight,
                           .y = y,
                           .in_size = matrix.in_size,
                           .out_size = matrix.out_size};
  if (rows.num_own_rows > 0) {
    args.kind = RowKind::kOwn;
    args.num_rows = rows.num_own_rows;
    CHORUS_RETURN_IF_ERROR(stream.Linear(args));
  }
  if (rows.num_rows > rows.num_own_rows) {
    args.kind = RowKind::kFused;
    args.num_rows = rows.num_rows - rows.num_own_rows;
    args.x = x + rows.num_own_rows * kTypeBytes * matrix.in_size;
    args.y = y + rows.num_own_rows * kTypeBytes * matrix.out_size;
    CHORUS_RETURN_IF_ERROR(stream.Linear(args));
  }
  if (matrix.bias == nullptr) return absl::OkStatus();
  return stream.kernels().AddBias(kType, y, matrix.bias, rows.num_rows, matrix.out_size);
}

// normed -> qkv -> q; keys and values into their slots -> moves.
absl::Status DeviceModel::WriteKeysAndValues(int32_t index, const DeviceForwardArgs& args,
                                             DeviceStream& stream) const {
  const DeviceActivations& activations = args.activations;
  const Rows rows = {args.step.num_rows, args.step.num_own_rows};
  CHORUS_RETURN_IF_ERROR(
      Multiply(weights_.layer(index).qkv, rows, activations.normed, activations.qkv, stream));
  const DeviceRopeArgs rope = {.shape = traits_.shape,
                               .qkv = activations.qkv,
                               .positions = args.step.positions,
                               .slots = args.step.slots,
                               .num_rows = args.step.num_rows,
                               .cosine = weights_.cosine(),
                               .sine = weights_.sine(),
                               .q_out = activations.q,
                               .k = args.kv.K(index),
                               .v = args.kv.V(index)};
  CHORUS_RETURN_IF_ERROR(stream.kernels().RopeAndWriteKv(kType, rope));
  if (args.step.num_moves == 0) return absl::OkStatus();
  return stream.kernels().MoveKv(kType, rope, args.step.moves, args.step.num_moves);
}

absl::Status DeviceModel::Attend(int32_t index, const DeviceForwardArgs& args,
                                 DeviceStream& stream) const {
  const int32_t window_index = traits_.window_of_layer[index];
  const DeviceStepView::Window& window = args.step.windows[window_index];
  DeviceAttentionArgs attention;
  attention.type = kType;
  attention.shape = traits_.shape;
  attention.q = args.activations.q;
  attention.k = args.kv.K(index);
  attention.v = args.kv.V(index);
  attention.num_slots = args.kv.num_slots;
  attention.out = args.activations.attention;
  attention.slot_table = args.step.slot_table;
  attention.scalings = args.step.scalings;
  attention.own = window.own;
  attention.fused = window.fused;
  attention.workspace = args.attention_workspace;
  if (window.probes.num_probes > 0) {
    attention.logits = args.probes.logits;
    attention.logit_offsets = window.logit_offsets;
  }
  if (traits_.windows[window_index].is_plain) {
    CHORUS_RETURN_IF_ERROR(stream.kernels().PlainAttention(attention, window.plain));
  } else {
    CHORUS_RETURN_IF_ERROR(stream.kernels().SegmentAttention(attention));
  }
  return window.probes.num_probes == 0 ? absl::OkStatus() : Probe(index, args, attention, stream);
}

absl::Status DeviceModel::Probe(int32_t index, const DeviceForwardArgs& args,
                                const DeviceAttentionArgs& attention, DeviceStream& stream) const {
  const DeviceStepView::Window& window = args.step.windows[traits_.window_of_layer[index]];
  if (window.probed_own.num_tiles > 0) {
    DeviceAttentionArgs logits_only = attention;
    logits_only.out = nullptr;
    CHORUS_RETURN_IF_ERROR(stream.kernels().PlainAttention(logits_only, window.probed_own));
  }
  DeviceProbes probes = window.probes;
  probes.logits = args.probes.logits;
  probes.mass_sums = args.probes.mass_sums;
  probes.mean_mass = args.probes.mean_mass;
  probes.mass = args.probes.mass;
  probes.mean_logits = args.probes.mean_logits;
  CHORUS_RETURN_IF_ERROR(stream.kernels().ReduceProbes(probes, index));
  return index + 1 < config_.num_layers ? absl::OkStatus() : stream.kernels().MeanProbes(probes);
}

// Past the last keys and values only the rows that lead to a choice matter.
absl::Status DeviceModel::KeepRows(const DeviceForwardArgs& args, DeviceActivations& activations,
                                   DeviceStream& stream) const {
  const DeviceStepView& step = args.step;
  if (step.keeps_all) return absl::OkStatus();
  CHORUS_RETURN_IF_ERROR(stream.kernels().GatherFloatRows(activations.residual, step.kept_rows,
                                                          step.num_kept_rows, config_.hidden_size,
                                                          activations.kept_residual));
  CHORUS_RETURN_IF_ERROR(stream.kernels().GatherRows(kType, activations.attention, step.kept_rows,
                                                     step.num_kept_rows, config_.q_size(),
                                                     activations.q));
  std::swap(activations.residual, activations.kept_residual);
  std::swap(activations.attention, activations.q);
  return absl::OkStatus();
}

// attention -> delta, then residual += delta, then the MLP of its norm -> delta.
absl::Status DeviceModel::RunMlp(const DeviceWeights::Layer& layer, const Rows& rows,
                                 const DeviceActivations& activations, DeviceStream& stream) const {
  DeviceKernels& kernels = stream.kernels();
  CHORUS_RETURN_IF_ERROR(
      Multiply(layer.output, rows, activations.attention, activations.delta, stream));
  CHORUS_RETURN_IF_ERROR(kernels.AddRmsNorm(
      kType, activations.residual, activations.delta, layer.post_attention_norm, rows.num_rows,
      config_.hidden_size, static_cast<float>(config_.rms_norm_epsilon), activations.normed));
  CHORUS_RETURN_IF_ERROR(
      Multiply(layer.gate_up, rows, activations.normed, activations.gate_up, stream));
  CHORUS_RETURN_IF_ERROR(kernels.SiluMultiply(kType, activations.gate_up, rows.num_rows,
                                              config_.intermediate_size, activations.activated));
  return Multiply(layer.down, rows, activations.activated, activations.delta, stream);
}

absl::Status DeviceModel::Forward(const DeviceForwardArgs& args, DeviceStream& stream) const {
  const DeviceStepView& step = args.step;
  DeviceActivations activations = args.activations;
  DeviceKernels& kernels = stream.kernels();
  const float epsilon = static_cast<float>(config_.rms_norm_epsilon);
  const bool is_probed = !step.windows.empty() && step.windows[0].probes.num_probes > 0;
  Rows rows = {step.num_rows, step.num_own_rows};
  CHORUS_RETURN_IF_ERROR(kernels.Embed(kType, step.token_ids, rows.num_rows, weights_.embedding(),
                                       config_.hidden_size, activations.residual));
  for (int32_t index = 0; index < config_.num_layers; ++index) {
    const DeviceWeights::Layer& layer = weights_.layer(index);
    const bool is_last = index + 1 == config_.num_layers;
    CHORUS_RETURN_IF_ERROR(kernels.AddRmsNorm(
        kType, activations.residual, index == 0 ? nullptr : activations.delta, layer.input_norm,
        rows.num_rows, config_.hidden_size, epsilon, activations.normed));
    CHORUS_RETURN_IF_ERROR(WriteKeysAndValues(index, args, stream));
    if (!is_last || step.num_kept_rows > 0 || is_probed) {
      CHORUS_RETURN_IF_ERROR(Attend(index, args, stream));
    }
    if (is_last) {
      rows = {step.num_kept_rows, step.num_kept_own_rows};
      if (rows.num_rows == 0) return absl::OkStatus();
      CHORUS_RETURN_IF_ERROR(KeepRows(args, activations, stream));
    }
    CHORUS_RETURN_IF_ERROR(RunMlp(layer, rows, activations, stream));
  }
  return kernels.AddRmsNorm(kType, activations.residual, activations.delta, weights_.final_norm(),
                            rows.num_rows, config_.hidden_size, epsilon, activations.normed);
}

absl::Status DeviceModel::Logits(const void* normed, int32_t num_rows, float* logits,
                                 DeviceStream& stream) const {
  const DeviceWeights::Matrix& head = weights_.head();
  return stream.Linear({.kind = RowKind::kFused,
                        .type = kType,
                        .x = normed,
                        .weight = head.weight,
                        .y = logits,
                        .num_rows = num_rows,
                        .in_size = head.in_size,
                        .out_size = head.out_size,
                        .is_output_float32 = true});
}

}  // namespace chorus
