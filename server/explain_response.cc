#include "server/explain_response.h"

#include <algorithm>
#include <utility>

#include "core/base/status_macros.h"
#include "core/engine/attention_units.h"
#include "core/engine/fusion_strategy.h"
#include "core/segment/row_intervals.h"
#include "server/response.h"
#include "server/stream_end.h"

namespace chorus {
namespace {

void Fill(int32_t begin, int32_t end, v1::TokenRange* range) {
  range->set_begin(begin);
  range->set_end(end);
}

void FillLayout(const FusionPlan& plan, const std::vector<int32_t>& generated,
                const Tokenizer& tokenizer, v1::FusedLayout* proto) {
  const SequencePlan& sequence = plan.sequences.front();
  const SegmentLayout& layout = sequence.layout;
  std::vector<int32_t> token_ids = sequence.token_ids;
  token_ids.insert(token_ids.end(), generated.begin(), generated.end());
  const auto length = static_cast<int32_t>(token_ids.size());
  for (int32_t i = 0; i < length; ++i) {
    proto->add_token_ids(token_ids[i]);
    proto->add_tokens(tokenizer.Decode({&token_ids[i], 1}, /*skip_special_tokens=*/false));
    proto->add_positions(layout.PositionOf(i));
  }
  proto->set_prefix_length(layout.prefix_length());
  proto->set_original_length(layout.original_length());
  proto->set_prompt_length(layout.length());
  proto->set_length(length);
  for (const TokenRange& segment : layout.segments()) {
    Fill(segment.begin, segment.end, proto->add_segments());
  }
  proto->mutable_prompt_indexes()->Add(plan.segment_prompts.begin(), plan.segment_prompts.end());
}

void FillMask(const SegmentLayout& layout, int32_t length, v1::ExplainResponse* response) {
  const RowIntervals intervals =
      RowIntervals::FromLayout(layout, length, /*split_segment_columns=*/false);
  v1::MaskStatistics* const statistics = response->mutable_mask();
  statistics->set_allowed(intervals.CountAllowed());
  statistics->set_total(int64_t{length} * length);
  statistics->set_ratio(static_cast<double>(statistics->allowed()) /
                        static_cast<double>(statistics->total()));
  for (const RowIntervals::Run& run : intervals.runs()) {
    v1::MaskRun* const proto = response->add_mask_runs();
    Fill(run.rows.begin, run.rows.end, proto->mutable_rows());
    for (const KeyInterval& keys : run.keys) Fill(keys.begin, keys.end, proto->add_keys());
    if (run.keys.empty()) Fill(run.rows.begin, run.rows.end, statistics->add_fully_masked_rows());
  }
}

v1::UnitKind KindOf(int32_t unit, const UnitNumbers& units) {
  if (unit == units.prefix()) return v1::UNIT_KIND_PREFIX;
  if (unit == units.separators()) return v1::UNIT_KIND_SEPARATORS;
  if (unit == units.suffix()) return v1::UNIT_KIND_SUFFIX;
  if (unit == units.generated()) return v1::UNIT_KIND_GENERATED;
  return v1::UNIT_KIND_SEGMENT;
}

// Adds the units that have keys; returns their numbers.
std::vector<int32_t> FillUnits(const KeyUnits& key_units, int32_t num_prompts, int32_t length,
                               v1::ExplainResponse* response) {
  std::vector<int32_t> num_keys(key_units.num_units, 0);
  for (const KeyUnits::Range& range : key_units.ranges) {
    num_keys[range.unit] += std::max(std::min(range.end, length) - range.begin, 0);
  }
  const UnitNumbers units(num_prompts);
  std::vector<int32_t> present;
  for (int32_t unit = 0; unit < key_units.num_units; ++unit) {
    if (num_keys[unit] == 0) continue;
    present.push_back(unit);
    v1::AttentionUnit* const proto = response->add_units();
    proto->set_kind(KindOf(unit, units));
    if (proto->kind() == v1::UNIT_KIND_SEGMENT) proto->set_prompt_index(unit - units.prompt(0));
    proto->set_num_keys(num_keys[unit]);
  }
  return present;
}

void FillAttention(const Explained& explained, const std::vector<int32_t>& present,
                   int32_t num_units, v1::ExplainResponse* response) {
  const ExplainParams& params = *explained.request.explain;
  const size_t num_heads = params.heads.size();
  for (const AttentionStep& step : explained.steps) response->add_steps(step.step);
  response->mutable_heads()->Add(params.heads.begin(), params.heads.end());
  for (size_t i = 0; i < params.layers.size(); ++i) {
    v1::LayerAttention* const layer = response->add_layers();
    layer->set_layer(params.layers[i]);
    const auto num_values = static_cast<int>(explained.steps.size() * num_heads * present.size());
    layer->mutable_logits()->Reserve(num_values);
    layer->mutable_mass()->Reserve(num_values);
    for (const AttentionStep& step : explained.steps) {
      for (size_t head = 0; head < num_heads; ++head) {
        const size_t row = (i * num_heads + head) * num_units;
        for (int32_t unit : present) {
          layer->add_logits(step.logits[row + unit]);
          layer->add_mass(step.mass[row + unit]);
        }
      }
    }
  }
}

}  // namespace

absl::Status FillExplainResponse(Explained explained, const Tokenizer& tokenizer,
                                 v1::ExplainResponse* response) {
  CHORUS_ASSIGN_OR_RETURN(const FusionPlan plan, PlanFusion(explained.request));
  const std::vector<int32_t>& generated = explained.finish.answer.token_ids;
  FillPromptInfo(explained.start, RecordOf(explained.request), response->mutable_prompt_info());
  FillLayout(plan, generated, tokenizer, response->mutable_layout());
  const int32_t length = response->layout().length();
  FillMask(plan.sequences.front().layout, length, response);
  const KeyUnits& key_units = plan.generations.front().key_units;
  const auto num_prompts = static_cast<int32_t>(explained.request.prompts.size());
  const std::vector<int32_t> present = FillUnits(key_units, num_prompts, length, response);
  FillAttention(explained, present, key_units.num_units, response);
  FillFinish(std::move(explained.finish), response->mutable_finish());
  return absl::OkStatus();
}

}  // namespace chorus
