#include "client/answer_json.h"

#include <google/protobuf/repeated_field.h>

#include "client/enum_names.h"

namespace chorus {
namespace {

using Json = nlohmann::ordered_json;

Json Ids(const google::protobuf::RepeatedField<int32_t>& ids) {
  return Json(std::vector<int32_t>(ids.begin(), ids.end()));
}

}  // namespace

Json PromptInfoJson(const v1::PromptInfo& info) {
  return {{"request_id", info.request_id()},
          {"seed", info.seed()},
          {"segment_tokens", Ids(info.segment_tokens())},
          {"original_length", info.original_length()},
          {"prompt_tokens", info.prompt_tokens()},
          {"cached_tokens", info.cached_tokens()},
          {"worker", info.worker()}};
}

namespace {

Json UsageJson(const v1::Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens()},
          {"cached_tokens", usage.cached_tokens()},
          {"generated_tokens", usage.generated_tokens()},
          {"model_steps", usage.model_steps()}};
}

}  // namespace

Json TimingJson(const v1::Timing& timing) {
  return {{"queue_seconds", timing.queue_seconds()},
          {"first_token_seconds", timing.first_token_seconds()},
          {"total_seconds", timing.total_seconds()}};
}

Json FinishJson(const v1::FinishInfo& finish) {
  return {{"text", finish.text()},
          {"token_ids", Ids(finish.token_ids())},
          {"finish_reason", EnumName(finish.reason())},
          {"stop", finish.stop()},
          {"usage", UsageJson(finish.usage())},
          {"timing", TimingJson(finish.timing())}};
}

namespace {

Json PromptsJson(const v1::FinishInfo& finish) {
  Json prompts = Json::array();
  for (const v1::PromptAnswer& answer : finish.prompts()) {
    prompts.push_back({{"index", answer.index()},
                       {"text", answer.text()},
                       {"token_ids", Ids(answer.token_ids())},
                       {"finish_reason", EnumName(answer.reason())},
                       {"stop", answer.stop()},
                       {"mean_logprob", answer.mean_logprob()}});
  }
  return prompts;
}

Json TallyJson(const v1::FinishInfo& finish) {
  Json tally = Json::array();
  for (const v1::VoteCount& vote : finish.tally()) {
    tally.push_back({{"answer", vote.answer()},
                     {"count", vote.count()},
                     {"prompt_indexes", Ids(vote.prompt_indexes())}});
  }
  return tally;
}

Json AttributionJson(const v1::Attribution& attribution) {
  return {{"prefix", attribution.prefix()},
          {"segments",
           std::vector<float>(attribution.segments().begin(), attribution.segments().end())},
          {"separators", attribution.separators()},
          {"suffix", attribution.suffix()},
          {"generated", attribution.generated()}};
}

void AddTokens(const v1::TokenChunk& chunk, Json& tokens) {
  for (int i = 0; i < chunk.token_ids_size(); ++i) {
    Json top = Json::array();
    if (i < chunk.top_logprobs_size()) {
      for (const v1::TokenLogprob& entry : chunk.top_logprobs(i).entries()) {
        top.push_back(
            {{"token_id", entry.token_id()}, {"text", entry.text()}, {"logprob", entry.logprob()}});
      }
    }
    tokens.push_back(
        {{"token_id", chunk.token_ids(i)},
         {"logprob", i < chunk.logprobs_size() ? Json(chunk.logprobs(i)) : Json()},
         {"prompt_index", chunk.prompt_index()},
         {"top_logprobs", std::move(top)},
         {"attribution",
          i < chunk.attribution_size() ? AttributionJson(chunk.attribution(i)) : Json()},
         {"disagreement", i < chunk.disagreement_size() ? Json(chunk.disagreement(i)) : Json()},
         {"text", nullptr}});
  }
}

}  // namespace

AnswerJson::AnswerJson(v1::FusionMethod method) {
  object_["method"] = EnumName(method);
  // Every key stands there from the start, so that its place and presence never depend on events.
  for (const char* key : {"text", "token_ids", "finish_reason", "stop", "usage", "timing"}) {
    object_[key] = nullptr;
  }
  object_["prompts"] = Json::array();
  object_["tally"] = Json::array();
  object_["prompt_info"] = nullptr;
  object_["tokens"] = Json::array();
}

void AnswerJson::Add(const v1::GenerateResponse& event) {
  if (event.has_prompt_info()) object_["prompt_info"] = PromptInfoJson(event.prompt_info());
  if (event.has_chunk()) AddTokens(event.chunk(), object_["tokens"]);
  if (!event.has_finish()) return;
  const v1::FinishInfo& finish = event.finish();
  object_.update(FinishJson(finish));
  object_["prompts"] = PromptsJson(finish);
  object_["tally"] = TallyJson(finish);
}

void AnswerJson::SpellTokens(const std::function<std::string(int32_t)>& spell) {
  for (Json& token : object_["tokens"]) token["text"] = spell(token["token_id"].get<int32_t>());
}

std::string JsonLine(const nlohmann::ordered_json& value) {
  return value.dump(/*indent=*/-1, /*indent_char=*/' ', /*ensure_ascii=*/false,
                    Json::error_handler_t::replace) +
         "\n";
}

}  // namespace chorus
