#include "client/score_json.h"

#include <algorithm>

#include "client/answer_json.h"
#include "client/enum_names.h"

namespace chorus {
namespace {

using Json = nlohmann::ordered_json;

template <typename Values>
Json List(const Values& values) {
  Json list = Json::array();
  for (const auto value : values) list.push_back(value);
  return list;
}

Json OneScore(const v1::ContinuationScore& score, const std::string& text,
              const std::function<std::string(int32_t)>& spell) {
  Json token_texts;
  if (spell) {
    token_texts = Json::array();
    for (const int32_t id : score.token_ids()) token_texts.push_back(spell(id));
  }
  return {{"text", text},
          {"token_ids", List(score.token_ids())},
          {"logprob", score.logprob()},
          {"mean_logprob", score.logprob() / std::max(score.token_ids_size(), 1)},
          {"is_greedy", score.is_greedy()},
          {"token_logprobs", List(score.token_logprobs())},
          {"prompt_logprobs", List(score.prompt_logprobs())},
          {"greedy_token_ids", List(score.greedy_token_ids())},
          {"token_texts", std::move(token_texts)}};
}

}  // namespace

Json ScoreJson(v1::FusionMethod method, const v1::ScoreResponse& response,
               const std::vector<std::string>& texts,
               const std::function<std::string(int32_t)>& spell) {
  Json scores = Json::array();
  for (int i = 0; i < response.scores_size(); ++i) {
    scores.push_back(OneScore(response.scores(i), texts[i], spell));
  }
  const v1::Usage& usage = response.usage();
  return {{"method", EnumName(method)},
          {"scores", std::move(scores)},
          {"prompt_info", PromptInfoJson(response.prompt_info())},
          {"usage",
           {{"prompt_tokens", usage.prompt_tokens()},
            {"cached_tokens", usage.cached_tokens()},
            {"scored_tokens", usage.scored_tokens()},
            {"model_steps", usage.model_steps()}}},
          {"timing", TimingJson(response.timing())}};
}

}  // namespace chorus
