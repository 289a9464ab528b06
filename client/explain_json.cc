#include "client/explain_json.h"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "client/answer_json.h"
#include "client/enum_names.h"
#include "client/layer_statistics.h"

namespace chorus {
namespace {

using Json = nlohmann::ordered_json;

// The fewest digits that name the float; more would only be the noise of its conversion. NaN is null.
Json Number(float value) {
  if (!std::isfinite(value)) return nullptr;
  char digits[32] = {};
  std::to_chars(digits, digits + sizeof(digits) - 1, value);
  return std::strtod(digits, nullptr);
}

Json Number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

template <typename List>
Json Numbers(const List& values) {
  Json list = Json::array();
  for (const auto value : values) list.push_back(Number(value));
  return list;
}

template <typename List>
Json Integers(const List& values) {
  return Json(std::vector<int32_t>(values.begin(), values.end()));
}

Json Range(const v1::TokenRange& range) { return {{"begin", range.begin()}, {"end", range.end()}}; }

template <typename List>
Json Ranges(const List& ranges) {
  Json list = Json::array();
  for (const v1::TokenRange& range : ranges) list.push_back(Range(range));
  return list;
}

Json LayoutJson(const v1::FusedLayout& layout) {
  return {{"token_ids", Integers(layout.token_ids())},
          {"tokens", std::vector<std::string>(layout.tokens().begin(), layout.tokens().end())},
          {"positions", Integers(layout.positions())},
          {"prefix_length", layout.prefix_length()},
          {"original_length", layout.original_length()},
          {"prompt_length", layout.prompt_length()},
          {"length", layout.length()},
          {"segments", Ranges(layout.segments())},
          {"prompt_indexes", Integers(layout.prompt_indexes())}};
}

Json MaskJson(const v1::MaskStatistics& mask) {
  return {{"allowed", mask.allowed()},
          {"total", mask.total()},
          {"ratio", mask.ratio()},
          {"fully_masked_rows", Ranges(mask.fully_masked_rows())}};
}

Json MaskRunsJson(const v1::ExplainResponse& response) {
  Json runs = Json::array();
  for (const v1::MaskRun& run : response.mask_runs()) {
    runs.push_back({{"rows", Range(run.rows())}, {"keys", Ranges(run.keys())}});
  }
  return runs;
}

Json UnitsJson(const v1::ExplainResponse& response) {
  Json units = Json::array();
  for (const v1::AttentionUnit& unit : response.units()) {
    units.push_back({{"kind", EnumName(unit.kind())},
                     {"prompt_index", unit.prompt_index()},
                     {"num_keys", unit.num_keys()}});
  }
  return units;
}

Json StatisticsJson(const LayerStatistics& statistics) {
  return {{"first", Number(statistics.first.value)},
          {"middle", Number(statistics.middle.value)},
          {"last", Number(statistics.last.value)},
          {"first_over_middle", Number(statistics.ratio())},
          {"first_minus_last", Number(statistics.difference())},
          {"mean", Numbers(statistics.mean)},
          {"deviation", Numbers(statistics.deviation)},
          {"sink_scores", Numbers(statistics.sink_scores)},
          {"spreads", Numbers(statistics.spreads)}};
}

Json LayersJson(const v1::ExplainResponse& response, const std::vector<int>& seen_units) {
  Json layers = Json::array();
  for (const v1::LayerAttention& layer : response.layers()) {
    const LayerStatistics logits = StatisticsOf(response, layer.logits(), seen_units);
    Json sink_heads = Json::array();
    for (const int head : logits.sink_heads()) sink_heads.push_back(response.heads(head));
    layers.push_back(
        {{"layer", layer.layer()},
         {"logits", Numbers(layer.logits())},
         {"mass", Numbers(layer.mass())},
         {"logits_statistics", StatisticsJson(logits)},
         {"mass_statistics", StatisticsJson(StatisticsOf(response, layer.mass(), seen_units))},
         {"has_sink", logits.has_sink()},
         {"sink_heads", std::move(sink_heads)}});
  }
  return layers;
}

}  // namespace

nlohmann::ordered_json ExplainJson(const v1::ExplainResponse& response) {
  const std::vector<int> seen_units = SeenUnits(response);
  return {{"prompt_info", PromptInfoJson(response.prompt_info())},
          {"finish", FinishJson(response.finish())},
          {"layout", LayoutJson(response.layout())},
          {"mask", MaskJson(response.mask())},
          {"mask_runs", MaskRunsJson(response)},
          {"units", UnitsJson(response)},
          {"seen_units", seen_units},
          {"steps", Integers(response.steps())},
          {"heads", Integers(response.heads())},
          {"layers", LayersJson(response, seen_units)},
          {"mean_mass", Numbers(MeanMass(response))}};
}

}  // namespace chorus
