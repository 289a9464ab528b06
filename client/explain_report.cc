#include "client/explain_report.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

#include "client/enum_names.h"
#include "client/layer_statistics.h"
#include "client/text_table.h"

namespace chorus {
namespace {

constexpr size_t kTextWidth = 60;
constexpr absl::string_view kIndent = "  ";

std::string RangeText(int32_t begin, int32_t end) {
  return absl::StrCat("[", begin, ", ", end, ")");
}

std::string UnitName(const v1::AttentionUnit& unit) {
  if (unit.kind() == v1::UNIT_KIND_SEGMENT) return absl::StrCat("[", unit.prompt_index(), "]");
  if (unit.kind() == v1::UNIT_KIND_GENERATED) return "answer";
  return EnumName(unit.kind());
}

// Adds the tokens [begin, end) as a line, if there are any.
void AddPart(const v1::FusedLayout& layout, const std::string& name, int32_t begin, int32_t end,
             TextTable& table) {
  if (begin >= end || end > layout.tokens_size()) return;
  std::string text;
  for (int32_t i = begin; i < end; ++i) text += layout.tokens(i);
  table.AddRow({name, absl::StrCat(end - begin), RangeText(begin, end),
                RangeText(layout.positions(begin), layout.positions(end - 1) + 1),
                absl::StrCat("\"", Shortened(text, kTextWidth), "\"")});
}

std::string LayoutText(const v1::FusedLayout& layout) {
  TextTable table({"part", "tokens", "at", "positions", "text"}, /*last_is_text=*/true);
  AddPart(layout, "prefix", 0, layout.prefix_length(), table);
  int32_t end = layout.prefix_length();
  for (int i = 0; i < layout.segments_size(); ++i) {
    const v1::TokenRange& segment = layout.segments(i);
    AddPart(layout, "separator", end, segment.begin(), table);
    const int32_t prompt = i < layout.prompt_indexes_size() ? layout.prompt_indexes(i) : i;
    AddPart(layout, absl::StrCat("[", prompt, "]"), segment.begin(), segment.end(), table);
    end = segment.end();
  }
  AddPart(layout, "suffix", layout.original_length(), layout.prompt_length(), table);
  AddPart(layout, "answer", layout.prompt_length(), layout.length(), table);
  return absl::StrFormat("Layout: %d tokens; from token %d on rows see every prompt\n%s",
                         layout.length(), layout.original_length(), table.ToString(kIndent));
}

std::string MaskText(const v1::MaskStatistics& mask) {
  std::string rows = "no row sees nothing";
  if (mask.fully_masked_rows_size() > 0) {
    rows = absl::StrCat("rows that see nothing: ",
                        absl::StrJoin(mask.fully_masked_rows(), " ",
                                      [](std::string* out, const v1::TokenRange& range) {
                                        out->append(RangeText(range.begin(), range.end()));
                                      }));
  }
  return absl::StrFormat("Mask: %d of %d pairs allowed (%.1f %%); %s\n", mask.allowed(),
                         mask.total(), mask.ratio() * 100, rows);
}

std::string PartText(const LayerStatistics::Part& part) {
  return absl::StrFormat("%.3f ± %.3f", part.value, part.deviation);
}

std::string LayersText(const v1::ExplainResponse& response, const std::vector<int>& seen_units,
                       bool of_mass) {
  TextTable table({"layer", "first", "middle", "last", "first / middle", "first - last"});
  for (const v1::LayerAttention& layer : response.layers()) {
    const LayerStatistics statistics =
        StatisticsOf(response, of_mass ? layer.mass() : layer.logits(), seen_units);
    table.AddRow({absl::StrCat(layer.layer()), PartText(statistics.first),
                  PartText(statistics.middle), PartText(statistics.last),
                  absl::StrFormat("%.3f", statistics.ratio()),
                  absl::StrFormat("%.3f", statistics.difference())});
  }
  return table.ToString(kIndent);
}

std::string SinksText(const v1::ExplainResponse& response, const std::vector<int>& seen_units) {
  std::vector<int32_t> sink_layers;
  std::string heads;
  for (const v1::LayerAttention& layer : response.layers()) {
    const LayerStatistics logits = StatisticsOf(response, layer.logits(), seen_units);
    if (logits.has_sink()) sink_layers.push_back(layer.layer());
    const std::vector<int> sink_heads = logits.sink_heads();
    if (sink_heads.empty()) continue;
    absl::StrAppend(&heads, kIndent, "layer ", layer.layer(), ": ",
                    absl::StrJoin(sink_heads, ", ",
                                  [&](std::string* out, int head) {
                                    absl::StrAppend(out, response.heads(head));
                                  }),
                    "\n");
  }
  return absl::StrFormat(
      "Layers with a sink (first / middle of the logits above %.1f): %s\n"
      "Sink heads (first - middle of the logits above %.1f):%s\n%s",
      kSinkLayerRatio, sink_layers.empty() ? "none" : absl::StrJoin(sink_layers, ", "),
      kSinkHeadScore, heads.empty() ? " none" : "", heads);
}

std::string MassText(const v1::ExplainResponse& response) {
  TextTable table({"unit", "keys", "mass", "a key"});
  const std::vector<double> mass = MeanMass(response);
  for (int i = 0; i < response.units_size(); ++i) {
    const v1::AttentionUnit& unit = response.units(i);
    table.AddRow({UnitName(unit), absl::StrCat(unit.num_keys()),
                  absl::StrFormat("%.2f %%", mass[i] * 100),
                  absl::StrFormat("%.3f %%", mass[i] * 100 / std::max(unit.num_keys(), 1))});
  }
  return absl::StrCat("Mass by unit, mean over layers, heads and rows\n", table.ToString(kIndent));
}

}  // namespace

std::string ExplainReport(const v1::ExplainResponse& response) {
  const std::vector<int> seen_units = SeenUnits(response);
  std::string text = absl::StrCat(response.finish().text(), "\n\n", LayoutText(response.layout()),
                                  "\n", MaskText(response.mask()), "\n");
  if (response.steps_size() == 0 || seen_units.empty()) {
    return absl::StrCat(text, "The answer has none of the steps asked for.\n");
  }
  const std::string units = absl::StrJoin(seen_units, " ", [&](std::string* out, int unit) {
    out->append(UnitName(response.units(unit)));
  });
  absl::StrAppendFormat(
      &text,
      "Attention of the rows that gave token %s of the answer, %d heads; units: %s\n\n"
      "Logits (mean over a unit's keys), mean and deviation over heads\n%s\n"
      "Mass (softmax, summed over a unit's keys), mean and deviation over heads\n%s\n%s\n%s",
      absl::StrJoin(response.steps(), ", "), response.heads_size(), units,
      LayersText(response, seen_units, /*of_mass=*/false),
      LayersText(response, seen_units, /*of_mass=*/true), SinksText(response, seen_units),
      MassText(response));
  return text;
}

}  // namespace chorus
