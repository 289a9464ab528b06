#include "tests/golden/golden_cases.h"

#include <fstream>
#include <stdexcept>

#include <nlohmann/json.hpp>

namespace chorus {
namespace {

using Json = nlohmann::json;

template <typename Enum>
Enum Named(const std::map<std::string, Enum>& values, const Json& fusion, const char* key,
           Enum otherwise) {
  return fusion.contains(key) ? values.at(fusion.at(key).get<std::string>()) : otherwise;
}

FusionParams ReadFusion(const Json& json) {
  FusionParams fusion;
  fusion.method = Named<FusionMethod>({{"FUSION_METHOD_ATTENTION", FusionMethod::kAttention},
                                       {"FUSION_METHOD_LOGIT_MEAN", FusionMethod::kLogitMean},
                                       {"FUSION_METHOD_PROB_MEAN", FusionMethod::kProbMean},
                                       {"FUSION_METHOD_PROB_MAX", FusionMethod::kProbMax},
                                       {"FUSION_METHOD_LOGIT_MAX", FusionMethod::kLogitMax},
                                       {"FUSION_METHOD_PER_PROMPT", FusionMethod::kPerPrompt},
                                       {"FUSION_METHOD_VOTE", FusionMethod::kVote}},
                                      json, "method", FusionMethod::kAttention);
  fusion.positions = Named<PositionMode>({{"POSITION_MODE_SEQUENTIAL", PositionMode::kSequential},
                                          {"POSITION_MODE_OVERLAPPING", PositionMode::kOverlapping}},
                                         json, "positions", PositionMode::kOverlapping);
  fusion.separators =
      Named<SeparatorPolicy>({{"SEPARATOR_POLICY_ISOLATED", SeparatorPolicy::kIsolated},
                              {"SEPARATOR_POLICY_ATTACHED", SeparatorPolicy::kAttached}},
                             json, "separators", SeparatorPolicy::kIsolated);
  fusion.first_token = Named<FirstToken>({{"FIRST_TOKEN_FUSE_FIRST", FirstToken::kFuseFirst},
                                          {"FIRST_TOKEN_LAST_SEGMENT", FirstToken::kLastSegment}},
                                         json, "first_token", FirstToken::kFuseFirst);
  if (json.contains("weights")) fusion.weights = json["weights"].get<std::vector<float>>();
  SegmentScaling scaling;
  scaling.temperature = json.value("attention_temperature", 1.0f);
  scaling.scale = json.value("attention_scale", 1.0f);
  scaling.log_bias = json.value("segment_log_bias", 0.0f);
  if (scaling != SegmentScaling()) fusion.scaling = scaling;
  return fusion;
}

GoldenAnswer ReadAnswer(const Json& json) {
  GoldenAnswer answer;
  answer.token_ids = json.at("token_ids").get<std::vector<int32_t>>();
  answer.margins = json.at("margins").get<std::vector<float>>();
  answer.logprobs = json.at("logprobs").get<std::vector<float>>();
  if (const Json& row = json.at("first_row"); !row.is_null()) {
    if (row.contains("ids")) answer.first_row.ids = row["ids"].get<std::vector<int32_t>>();
    answer.first_row.values = row.at("values").get<std::vector<float>>();
  }
  return answer;
}

GoldenCase ReadCase(const Json& json) {
  GoldenCase result;
  result.name = json.at("name");
  Request& request = result.request;
  request.id = result.name;
  const Json& prompt = json.at("prompt");
  request.prefix = prompt.at("prefix").get<std::vector<int32_t>>();
  request.suffix = prompt.at("suffix").get<std::vector<int32_t>>();
  request.separator = prompt.at("separator").get<std::vector<int32_t>>();
  request.prompts = prompt.at("segments").get<std::vector<std::vector<int32_t>>>();
  request.fusion = ReadFusion(json.at("fusion"));
  request.stopping.max_new_tokens = json.at("max_new_tokens");
  request.stopping.ignore_eos = json.at("ignore_eos");
  const Json& expected = json.at("expected");
  if (expected.contains("prompts")) {
    for (const Json& answer : expected["prompts"]) result.answers.push_back(ReadAnswer(answer));
  } else {
    result.answers.push_back(ReadAnswer(expected));
  }
  if (expected.contains("token_ids")) {
    result.fused_token_ids = expected["token_ids"].get<std::vector<int32_t>>();
  }
  return result;
}

}  // namespace

GoldenFile LoadGoldenFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot open " + path);
  const Json json = Json::parse(file);
  GoldenFile result;
  result.model_directory = json.at("model");
  for (const Json& entry : json.at("cases")) result.cases.push_back(ReadCase(entry));
  return result;
}

}  // namespace chorus
