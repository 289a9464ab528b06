// A request's answer is a function of the request: the same tokens and log-probabilities, bit for
// bit, alone or in any company, read in chunks of any size, from a cold or a warm cache, preempted
// or not, on any worker. With the real models, through the whole engine.

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "core/engine/fusion_strategy.h"
#include "tests/golden/engine_runs.h"
#include "tests/golden/golden_cases.h"

namespace chorus {
namespace {

using Sinks = EngineRun::Sinks;

struct ModelCase {
  const char* name;
  const char* directory;
  std::vector<std::string> files;  // of tests/golden/data
  size_t num_requests;
  int32_t max_new_tokens;
  ModelDtype dtype;
  bool all_chunks;  // every chunk size, or one
};

// Greedy cases made into requests that also draw, with every parameter of sampling.
Request WithSampling(Request request, size_t index) {
  request.priority = static_cast<int32_t>(index % 3);
  SamplingParams& sampling = request.sampling;
  sampling.seed = 1000 + index;
  if (index % 2 == 1) sampling.temperature = 0.9f;
  if (index % 4 == 1) sampling.top_k = 40;
  if (index % 8 == 3) sampling.top_p = 0.9f;
  if (index % 8 == 7) sampling.min_p = 0.02f;
  if (index % 5 == 0) sampling.repetition_penalty = 1.2f;
  if (index % 5 == 1) sampling.frequency_penalty = 0.4f;
  if (index % 5 == 2) sampling.presence_penalty = 0.3f;
  if (index % 7 == 0) request.response.top_logprobs = 3;
  const FusionMethod method = request.fusion.method;
  request.response.attribution = method == FusionMethod::kAttention && index % 3 != 2;
  request.response.prompt_disagreement =
      method != FusionMethod::kPerPrompt && method != FusionMethod::kVote && index % 3 != 1;
  return request;
}

// The values that tell forms of requests apart.
std::set<std::string> ValuesOf(const Request& request) {
  const FusionParams& fusion = request.fusion;
  std::set<std::string> values = {absl::StrCat("method ", static_cast<int>(fusion.method))};
  if (fusion.method != FusionMethod::kAttention) return values;
  values.insert(absl::StrCat("positions ", static_cast<int>(fusion.positions),
                             request.prefix.empty() ? " without a prefix" : ""));
  values.insert(request.separator.empty()
                    ? "no separator"
                    : absl::StrCat("separator ", static_cast<int>(fusion.separators)));
  values.insert(request.suffix.empty()
                    ? absl::StrCat("first token ", static_cast<int>(fusion.first_token))
                    : "suffix");
  if (fusion.scaling.has_value()) values.insert("scaling");
  if (!fusion.weights.empty()) values.insert("weights");
  return values;
}

std::vector<Request> AllCases(const std::vector<std::string>& files) {
  std::vector<Request> all;
  for (const std::string& file : files) {
    for (const GoldenCase& golden : LoadGoldenFile("tests/golden/data/" + file + ".json").cases) {
      all.push_back(golden.request);
      if (golden.request.fusion.method != FusionMethod::kPerPrompt) continue;
      all.push_back(golden.request);
      all.back().id += "/vote";
      all.back().fusion.method = FusionMethod::kVote;
    }
  }
  return all;
}

// The cases that have something new, then others, spread evenly.
std::vector<Request> MakeRequests(const ModelCase& model_case) {
  const std::vector<Request> all = AllCases(model_case.files);
  std::set<size_t> chosen;
  std::set<std::string> values;
  for (size_t i = 0; i < all.size(); ++i) {
    const size_t before = values.size();
    values.merge(ValuesOf(all[i]));
    if (values.size() > before) chosen.insert(i);
  }
  for (size_t i = 0; chosen.size() < model_case.num_requests && i < 2 * all.size(); ++i) {
    chosen.insert(i * 7 % all.size());
  }
  std::vector<Request> requests;
  for (size_t i : chosen) {
    requests.push_back(WithSampling(all[i], requests.size()));
    StoppingParams& stopping = requests.back().stopping;
    stopping.max_new_tokens = std::min(stopping.max_new_tokens, model_case.max_new_tokens);
  }
  return requests;
}

// What the requests give alone, each from an empty cache and in one step if it can be.
struct Reference {
  explicit Reference(const ModelCase& model_case)
      : requests(MakeRequests(model_case)),
        model(LoadModel(model_case.directory, model_case.dtype)) {
    EngineRunOptions options;
    options.engine.max_step_rows = 4096;
    options.engine.max_idle_cache_tokens = 0;
    EngineRun engine(model, options);
    alone = engine.RunAlone(requests);
    kv_bytes_per_token = engine.model_info().kv_bytes_per_token;
  }

  const std::vector<Request> requests;
  const LoadedModel model;
  Sinks alone;
  int64_t kv_bytes_per_token = 0;
};

class ExactnessTest : public testing::TestWithParam<ModelCase> {
 protected:
  static const Reference& reference() {
    static std::map<std::string, std::unique_ptr<const Reference>> references;
    auto& made = references[GetParam().name];
    if (made == nullptr) made = std::make_unique<const Reference>(GetParam());
    return *made;
  }

  static EngineRunOptions Options() {
    EngineRunOptions options;
    options.kv_cache_bytes = 8192 * reference().kv_bytes_per_token;
    return options;
  }

  // Places in the reference's requests.
  static std::vector<size_t> ShuffledOrder(uint32_t seed) {
    std::vector<size_t> order(reference().requests.size());
    std::iota(order.begin(), order.end(), 0);
    std::mt19937 random(seed);
    std::shuffle(order.begin(), order.end(), random);
    return order;
  }

  static std::vector<Request> InOrder(const std::vector<size_t>& order) {
    std::vector<Request> requests;
    for (size_t i : order) requests.push_back(reference().requests[i]);
    return requests;
  }

  static void ExpectAsAlone(const std::string& how, const std::vector<size_t>& order,
                            const Sinks& sinks) {
    SCOPED_TRACE(how);
    int64_t num_tokens = 0;
    for (size_t i = 0; i < order.size(); ++i) {
      SCOPED_TRACE(testing::Message()
                   << "request " << order[i] << ", " << reference().requests[order[i]].id);
      const auto& alone = reference().alone[order[i]];
      ASSERT_TRUE(alone != nullptr && sinks[i] != nullptr);
      num_tokens += ExpectSameStream(*alone, *sinks[i]);
    }
    EXPECT_GT(num_tokens, static_cast<int64_t>(order.size()));
    std::printf("%s, %s: %zu requests, %ld tokens as alone\n", GetParam().name, how.c_str(),
                sinks.size(), long(num_tokens));
  }
};

int64_t CachedTokens(const Sinks& sinks) {
  int64_t count = 0;
  for (const auto& sink : sinks) count += sink->finish.cached_tokens;
  return count;
}

TEST_P(ExactnessTest, RequestsAreOfEveryForm) {
  EXPECT_EQ(reference().requests.size(), GetParam().num_requests);
  std::set<std::string> values;
  for (const Request& request : reference().requests) values.merge(ValuesOf(request));
  // Seven methods; kinds of positions, separators and first tokens; scaling; weights. The data of
  // SmolLM2 lack overlapping positions without a prefix.
  EXPECT_GE(values.size(), 7u + 3 + 3 + 3 + 2) << absl::StrJoin(values, ", ");
  EXPECT_EQ(CachedTokens(reference().alone), 0);
}

// Once with all at once in small chunks, then once more in another order from the cache.
TEST_P(ExactnessTest, SameInACrowdInAnyChunksColdAndWarm) {
  for (const int32_t max_step_rows : {37, 5, 512}) {
    if (max_step_rows != 37 && !GetParam().all_chunks) continue;
    EngineRunOptions options = Options();
    options.engine.max_step_rows = max_step_rows;
    options.engine.prompt_share_rows = 7;
    EngineRun engine(reference().model, options);
    const std::vector<size_t> order = ShuffledOrder(1), again = ShuffledOrder(2);
    const Sinks cold = engine.RunAtOnce(InOrder(order));
    ExpectAsAlone(absl::StrCat("at once, steps of ", max_step_rows), order, cold);
    const Sinks warm = engine.RunAlone(InOrder(again));
    ExpectAsAlone("one by one, warm", again, warm);
    std::printf("  of the prompts' tokens %ld cached, then %ld\n", long(CachedTokens(cold)),
                long(CachedTokens(warm)));
    EXPECT_GT(CachedTokens(warm), CachedTokens(cold));
  }
}

// What is not asked for is not there, and changes no bit of the rest.
TEST_P(ExactnessTest, SameWithoutAttributionAndDisagreement) {
  std::vector<Request> requests = reference().requests;
  for (Request& request : requests) {
    request.response.attribution = request.response.prompt_disagreement = false;
  }
  EngineRun engine(reference().model, Options());
  const Sinks plain = engine.RunAtOnce(requests);
  int64_t num_attributed = 0, num_compared = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    SCOPED_TRACE(reference().requests[i].id);
    ExpectSameStream(*reference().alone[i], *plain[i], /*with_statistics=*/false);
    for (const TokenEvent& event : plain[i]->tokens) {
      EXPECT_TRUE(event.attribution.empty() && event.disagreement.empty());
    }
    for (const TokenEvent& event : reference().alone[i]->tokens) {
      num_attributed += static_cast<int64_t>(event.attribution.size());
      num_compared += static_cast<int64_t>(event.disagreement.size());
      for (const Attribution& attribution : event.attribution) {
        float sum = attribution.prefix + attribution.separators + attribution.suffix +
                    attribution.generated;
        for (float share : attribution.segments) sum += share;
        EXPECT_NEAR(sum, 1.0f, 1e-4f);
      }
      for (float bits : event.disagreement) EXPECT_GE(bits, 0.0f);
    }
  }
  std::printf("%s: %ld tokens with attribution, %ld with disagreement\n", GetParam().name,
              long(num_attributed), long(num_compared));
  EXPECT_GT(num_attributed, 0);
  EXPECT_GT(num_compared, 0);
}

// The same values, bit for bit, at the caller's places.
TEST_P(ExactnessTest, AttributionFollowsThePromptsIntoAnyOrder) {
  EngineRun engine(reference().model, Options());
  int num_permuted = 0;
  for (size_t i = 0; i < reference().requests.size(); ++i) {
    Request request = reference().requests[i];
    if (!request.response.attribution || !request.separator.empty() ||
        request.fusion.positions != PositionMode::kOverlapping || request.prompts.size() < 2 ||
        !request.fusion.weights.empty() ||
        (request.suffix.empty() && request.fusion.first_token == FirstToken::kLastSegment)) {
      continue;
    }
    SCOPED_TRACE(request.id);
    ++num_permuted;
    std::rotate(request.prompts.begin(), request.prompts.begin() + 1, request.prompts.end());
    const Sinks sinks = engine.RunAlone({request});
    const CollectingSink& want = *reference().alone[i];
    const CollectingSink& got = *sinks.front();
    ExpectSameStream(want, got, /*with_statistics=*/false);
    ASSERT_EQ(got.tokens.size(), want.tokens.size());
    for (size_t t = 0; t < want.tokens.size(); ++t) {
      EXPECT_EQ(got.tokens[t].disagreement, want.tokens[t].disagreement);
      ASSERT_EQ(got.tokens[t].attribution.size(), want.tokens[t].attribution.size());
      for (size_t k = 0; k < want.tokens[t].attribution.size(); ++k) {
        std::vector<float> segments = want.tokens[t].attribution[k].segments;
        std::rotate(segments.begin(), segments.begin() + 1, segments.end());
        EXPECT_EQ(got.tokens[t].attribution[k].segments, segments);
        EXPECT_EQ(got.tokens[t].attribution[k].prefix, want.tokens[t].attribution[k].prefix);
      }
    }
  }
  EXPECT_GT(num_permuted, 0);
}

TEST_P(ExactnessTest, SameWhenPreempted) {
  int64_t largest = 0;
  for (const Request& request : reference().requests) {
    largest = std::max(largest, SizeOf(request).num_slots);
  }
  EngineRunOptions options = Options();
  options.kv_cache_bytes = (largest + 20) * reference().kv_bytes_per_token;
  options.engine.max_step_rows = 64;
  EngineRun engine(reference().model, options);
  const std::vector<size_t> order = ShuffledOrder(3);
  ExpectAsAlone("in little KV space", order, engine.RunAtOnce(InOrder(order)));
  std::printf("  %ld preemptions\n", long(engine.num_preemptions()));
  EXPECT_GT(engine.num_preemptions(), 0);
}

TEST_P(ExactnessTest, SameOnEitherOfTwoWorkers) {
  EngineRunOptions options = Options();
  options.num_workers = 2;
  options.num_threads = 1;
  EngineRun engine(reference().model, options);
  const std::vector<size_t> order = ShuffledOrder(4);
  const Sinks sinks = engine.RunAtOnce(InOrder(order));
  ExpectAsAlone("on two workers", order, sinks);
  int64_t num_of_worker[2] = {0, 0};
  for (const auto& sink : sinks) ++num_of_worker[sink->start.worker];
  std::printf("  %ld and %ld requests\n", long(num_of_worker[0]), long(num_of_worker[1]));
  EXPECT_GT(num_of_worker[0], 0);
  EXPECT_GT(num_of_worker[1], 0);
}

const char kTiny[] = "tests/golden/models/tiny_gqa";
// Layers with sliding windows; with full ones between; chunked, sliding and full.
const char kMistral[] = "tests/golden/models/tiny_mistral";
const char kHybrid[] = "tests/golden/models/tiny_hybrid";
const char kChunked[] = "tests/golden/models/tiny_chunked";
const char kSmol[] = "models/smollm2-135m-instruct";
const std::vector<std::string> kSmolFiles = {"smollm2_few_shot", "smollm2_prototype",
                                             "smollm2_chatml"};

INSTANTIATE_TEST_SUITE_P(
    Models, ExactnessTest,
    testing::Values(
        ModelCase{"TinyFloat32", kTiny, {"tiny_gqa"}, 64, 12, ModelDtype::kFloat32, true},
        ModelCase{"TinyBFloat16", kTiny, {"tiny_gqa"}, 64, 12, ModelDtype::kBFloat16, true},
        ModelCase{"MistralFloat32", kMistral, {"tiny_mistral"}, 32, 12, ModelDtype::kFloat32, true},
        ModelCase{"HybridBFloat16", kHybrid, {"tiny_hybrid"}, 32, 12, ModelDtype::kBFloat16, true},
        ModelCase{
            "ChunkedBFloat16", kChunked, {"tiny_chunked"}, 32, 12, ModelDtype::kBFloat16, true},
        ModelCase{"SmolFloat32", kSmol, kSmolFiles, 16, 12, ModelDtype::kFloat32, false},
        ModelCase{"SmolBFloat16", kSmol, kSmolFiles, 16, 12, ModelDtype::kBFloat16, false}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace chorus
