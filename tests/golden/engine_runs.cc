#include "tests/golden/engine_runs.h"

#include <algorithm>
#include <map>
#include <utility>

#include <gtest/gtest.h>

namespace chorus {
namespace {

// What came for one answer: events may be cut and mixed in another way.
struct StreamedAnswer {
  std::vector<int32_t> token_ids;
  std::vector<float> logprobs;
  std::vector<std::vector<std::pair<int32_t, float>>> top_logprobs;
  std::vector<std::vector<float>> attribution;  // prefix, segments, separators, suffix, generated
  std::vector<float> disagreement;
  std::string text;
};

std::vector<float> SharesOf(const Attribution& attribution) {
  std::vector<float> shares = {attribution.prefix};
  shares.insert(shares.end(), attribution.segments.begin(), attribution.segments.end());
  for (float share : {attribution.separators, attribution.suffix, attribution.generated}) {
    shares.push_back(share);
  }
  return shares;
}

std::map<int32_t, StreamedAnswer> StreamedAnswers(const CollectingSink& sink) {
  std::map<int32_t, StreamedAnswer> answers;
  for (const TokenEvent& event : sink.tokens) {
    StreamedAnswer& answer = answers[event.prompt_index];
    answer.text += event.text;
    answer.token_ids.insert(answer.token_ids.end(), event.token_ids.begin(),
                            event.token_ids.end());
    answer.logprobs.insert(answer.logprobs.end(), event.logprobs.begin(), event.logprobs.end());
    for (const auto& list : event.top_logprobs) {
      auto& pairs = answer.top_logprobs.emplace_back();
      for (const TokenLogprob& top : list) pairs.emplace_back(top.token_id, top.logprob);
    }
    for (const Attribution& one : event.attribution) answer.attribution.push_back(SharesOf(one));
    answer.disagreement.insert(answer.disagreement.end(), event.disagreement.begin(),
                               event.disagreement.end());
  }
  return answers;
}

void ExpectSameAnswer(const Answer& want, const Answer& got) {
  EXPECT_EQ(want.token_ids, got.token_ids);
  EXPECT_EQ(want.mean_logprob, got.mean_logprob);
  EXPECT_EQ(want.text, got.text);
  EXPECT_EQ(want.reason, got.reason);
}

}  // namespace

LoadedModel LoadModel(const std::string& directory, ModelDtype dtype) {
  LoadedModel model;
  auto weights =
      LoadSharedWeights({.model_directory = directory, .dtype = dtype, .num_threads = 2});
  EXPECT_TRUE(weights.ok()) << weights.status();
  auto tokenizer = Tokenizer::Load(directory + "/tokenizer.json");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  if (weights.ok()) model.weights = *std::move(weights);
  if (tokenizer.ok()) model.tokenizer = *std::move(tokenizer);
  return model;
}

EngineRun::EngineRun(const LoadedModel& model, const EngineRunOptions& options) {
  std::vector<std::unique_ptr<ModelRunner>> runners;
  for (int i = 0; i < options.num_workers; ++i) {
    auto runner = CreateTorchModelRunner(
        model.weights,
        {.num_threads = options.num_threads, .kv_cache_bytes = options.kv_cache_bytes});
    EXPECT_TRUE(runner.ok()) << runner.status();
    runners.push_back(options.wrap ? options.wrap(*std::move(runner)) : *std::move(runner));
  }
  EngineOptions engine_options = options.engine;
  engine_options.eos_token_ids = {2};  // of the tiny models and of SmolLM2
  auto engine = Engine::Create(std::move(engine_options), std::move(runners),
                               model.tokenizer.get(), &observer_, Clock::Real());
  EXPECT_TRUE(engine.ok()) << engine.status();
  engine_ = *std::move(engine);
}

std::shared_ptr<CollectingSink> EngineRun::Submit(const Request& request) {
  auto sink = std::make_shared<CollectingSink>();
  const auto handle = engine_->Submit(request, sink);
  EXPECT_TRUE(handle.ok()) << request.id << ": " << handle.status();
  return handle.ok() ? sink : nullptr;
}

EngineRun::Sinks EngineRun::RunAtOnce(absl::Span<const Request> requests) {
  Sinks sinks;
  for (const Request& request : requests) sinks.push_back(Submit(request));
  for (auto& sink : sinks) {
    if (sink != nullptr) sink->Wait();
  }
  return sinks;
}

EngineRun::Sinks EngineRun::RunAlone(absl::Span<const Request> requests) {
  Sinks sinks;
  for (const Request& request : requests) {
    sinks.push_back(Submit(request));
    if (sinks.back() != nullptr) sinks.back()->Wait();
  }
  return sinks;
}

int64_t ExpectSameStream(const CollectingSink& want, const CollectingSink& got,
                         bool with_statistics) {
  EXPECT_TRUE(want.status.ok()) << want.status;
  EXPECT_TRUE(got.status.ok()) << got.status;
  const auto want_answers = StreamedAnswers(want), got_answers = StreamedAnswers(got);
  EXPECT_EQ(want_answers.size(), got_answers.size());
  int64_t num_tokens = 0;
  for (const auto& [prompt_index, want_answer] : want_answers) {
    const auto found = got_answers.find(prompt_index);
    if (found == got_answers.end()) {
      ADD_FAILURE() << "nothing came for prompt " << prompt_index;
      continue;
    }
    EXPECT_EQ(want_answer.token_ids, found->second.token_ids);
    EXPECT_EQ(want_answer.logprobs, found->second.logprobs);
    EXPECT_EQ(want_answer.top_logprobs, found->second.top_logprobs);
    EXPECT_EQ(want_answer.text, found->second.text);
    if (with_statistics) {
      EXPECT_EQ(want_answer.attribution, found->second.attribution);
      EXPECT_EQ(want_answer.disagreement, found->second.disagreement);
    }
    num_tokens += static_cast<int64_t>(want_answer.token_ids.size());
  }
  ExpectSameAnswer(want.finish.answer, got.finish.answer);
  EXPECT_EQ(want.finish.prompts.size(), got.finish.prompts.size());
  for (size_t i = 0; i < std::min(want.finish.prompts.size(), got.finish.prompts.size()); ++i) {
    ExpectSameAnswer(want.finish.prompts[i], got.finish.prompts[i]);
  }
  return num_tokens;
}

}  // namespace chorus
