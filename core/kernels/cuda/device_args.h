#pragma once

#include <cstdint>

#include "core/kernels/cuda/sampling_types.h"
#include "core/kernels/probe_plan.h"
#include "core/kernels/segment_attention.h"
#include "core/kernels/tile_plan.h"
#include "core/segment/attention_plan.h"

// What the device kernels are given: pointers to device memory, arrays beginning at multiples of 16
// bytes. Without any header of CUDA, so that code for a simulated device includes it too.
namespace chorus {

enum class DeviceType { kBFloat16, kFloat16 };  // of activations, weights, keys and values

// The tiles of one step on the device, made by PlanTiles.
struct DeviceTiles {
  const Tile* tiles = nullptr;
  int32_t num_tiles = 0;
  const KeySpan* spans = nullptr;
  int32_t num_spans = 0;
  int32_t longest_span = 0;  // keys, for speed only; 0: not known
};

// One layer's attention over a ragged batch. Every row of the step is in `own` or in `fused`.
struct DeviceAttentionArgs {
  DeviceType type = DeviceType::kBFloat16;
  AttentionShape shape;
  const void* q = nullptr;  // [num_rows, num_heads, head_dim], RoPE applied
  const void* k = nullptr;  // [num_slots, num_kv_heads, head_dim]; holds the step's own rows too
  const void* v = nullptr;  // like k
  int32_t num_slots = 0;
  void* out = nullptr;  // [num_rows, num_heads, head_dim]
  float* log_sum_exp = nullptr;  // [num_rows, num_heads] natural log, or null
  const int32_t* slot_table = nullptr;
  const SegmentScaling* scalings = nullptr;
  // Of the fused rows that are looked at, q k * softmax_scale of the keys that row r sees: to
  // logits + logit_offsets[r], [num_heads, index of r's token + 1]. It changes no output.
  float* logits = nullptr;
  const int64_t* logit_offsets = nullptr;  // [num_rows], -1: not looked at; null: no row is
  DeviceTiles own;                         // rows of prefixes and segments
  DeviceTiles fused;                       // rows that see everything: suffix and generated
  float* workspace = nullptr;  // AttentionWorkspaceFloats of them, for the spans of `fused`
};

// As RopeArgs; head_dim a multiple of 4.
struct DeviceRopeArgs {
  AttentionShape shape;
  const void* qkv = nullptr;           // [num_rows, (num_heads + 2 num_kv_heads) * head_dim]
  const int32_t* positions = nullptr;  // [num_rows]
  const int32_t* slots = nullptr;      // [num_rows]
  int32_t num_rows = 0;
  const float* cosine = nullptr;  // [max_positions, head_dim / 2]
  const float* sine = nullptr;    // like cosine
  void* q_out = nullptr;          // [num_rows, num_heads, head_dim]
  void* k = nullptr;              // [num_slots, num_kv_heads, head_dim]
  void* v = nullptr;              // like k
};

// The probes of one step on a device; arrays of a ProbePlan of the layer's window, in device
// memory, as all others here.
struct DeviceProbes {
  const ProbeTask* tasks = nullptr;
  int32_t num_probes = 0;
  const ProbePiece* pieces = nullptr;
  const int32_t* piece_begins = nullptr;
  const int32_t* layer_order = nullptr;
  const int32_t* head_order = nullptr;
  const SegmentScaling* scalings = nullptr;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  const float* logits = nullptr;  // [num_logits] what the layer's attention gave
  float* mass_sums = nullptr;     // [num_heads * num_units] probe by probe [num_heads, num_units]
  float* mean_mass = nullptr;     // [num_units] probe by probe
  float* mass = nullptr;          // [num_chosen] probe by probe [layers, heads, num_units]
  float* mean_logits = nullptr;   // like mass
};

// The choices of one step, all of it in device memory; arrays begin at multiples of 16 bytes.
// core/model/device_choices.h packs `in` and reads `out`.
struct DeviceSamplingArgs {
  device::ChoiceInputs in;
  device::ChoiceOutputs out;
  const float* logits = nullptr;  // [num_rows, vocab_size]
  int32_t num_rows = 0;
  int32_t num_choices = 0;
  int32_t num_changed_rows = 0;
  int32_t vocab_size = 0;  // 1 to device::kMaxVocabSize
  // [num_choices, vocab_size]: the combined rows, where the rule is not kNone or they are wanted.
  float* combined = nullptr;
  float* changed = nullptr;   // [num_changed_rows, vocab_size]
  void* workspace = nullptr;  // SamplingWorkspaceBytes of them
  // Which kernels some choice needs. To start one that none needs changes no result.
  bool combines = true;
  bool adjusts = true;
  bool compares = true;
};

}  // namespace chorus
