#include "core/engine/request_validation.h"

#include <functional>
#include <limits>
#include <string>

#include "gtest/gtest.h"

#include "core/base/field_error.h"
#include "tests/engine/engine_test_support.h"

namespace chorus {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

ModelInfo Info() { return FakeModelRunner(FakeModelOptions{}).info(); }

struct Case {
  std::string name;
  std::string field;  // empty: accepted
  std::function<void(Request&)> change;
};

void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

class RequestValidationTest : public ::testing::TestWithParam<Case> {};

TEST_P(RequestValidationTest, NamesTheFieldThatIsOutOfItsRange) {
  Request request = SimpleRequest(FusionMethod::kLogitMean, 10);
  GetParam().change(request);
  const absl::Status status = ValidateRequest(request, Info());
  if (GetParam().field.empty()) {
    EXPECT_TRUE(status.ok()) << status;
  } else {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(FieldOf(status), GetParam().field) << status;
  }
}

// A case for each value of a float field.
void AddFloats(std::vector<Case>* cases, const std::string& field, std::vector<float> bad,
               std::vector<float> good, std::function<void(Request&, float)> set) {
  bad.insert(bad.end(), {kNan, kInfinity, -kInfinity});
  for (const auto& [values, expected] : {std::pair(bad, field), std::pair(good, std::string())}) {
    for (float value : values) {
      cases->push_back({field + "=" + std::to_string(value), expected,
                        [=](Request& request) { set(request, value); }});
    }
  }
}

std::vector<Case> FloatCases() {
  std::vector<Case> cases;
  AddFloats(&cases, "sampling.temperature", {-0.1f}, {0.0f, 2.0f},
            [](Request& r, float x) { r.sampling.temperature = x; });
  AddFloats(&cases, "sampling.top_p", {0.0f, 1.1f, -1.0f}, {0.1f, 1.0f},
            [](Request& r, float x) { r.sampling.top_p = x; });
  AddFloats(&cases, "sampling.min_p", {-0.1f, 1.1f}, {0.0f, 1.0f},
            [](Request& r, float x) { r.sampling.min_p = x; });
  AddFloats(&cases, "sampling.repetition_penalty", {0.0f, -1.0f}, {0.5f, 2.0f},
            [](Request& r, float x) { r.sampling.repetition_penalty = x; });
  AddFloats(&cases, "sampling.presence_penalty", {-2.1f, 2.1f}, {-2.0f, 2.0f},
            [](Request& r, float x) { r.sampling.presence_penalty = x; });
  AddFloats(&cases, "sampling.frequency_penalty", {-2.1f, 2.1f}, {-2.0f, 2.0f},
            [](Request& r, float x) { r.sampling.frequency_penalty = x; });
  AddFloats(&cases, "sampling.logit_bias[7]", {}, {-100.0f, 100.0f},
            [](Request& r, float x) { r.sampling.logit_bias[7] = x; });
  AddFloats(&cases, "fusion.attention_temperature", {0.0f, -1.0f}, {0.9f},
            [](Request& r, float x) { r.fusion.scaling = SegmentScaling{x, 1, 0}; });
  AddFloats(&cases, "fusion.attention_scale", {0.0f, -1.0f}, {0.9f},
            [](Request& r, float x) { r.fusion.scaling = SegmentScaling{1, x, 0}; });
  AddFloats(&cases, "fusion.segment_log_bias", {}, {-1.0f, 1.0f},
            [](Request& r, float x) { r.fusion.scaling = SegmentScaling{1, 1, x}; });
  AddFloats(&cases, "fusion.weights[1]", {-0.5f}, {0.0f, 3.0f},
            [](Request& r, float x) { r.fusion.weights = {1, x, 1}; });
  return cases;
}

std::vector<Case> PromptCases() {
  return {
      {"nothing changed", "", [](Request&) {}},
      {"no prompts", "prompt.tokens.segments", [](Request& r) { r.prompts.clear(); }},
      {"256 prompts", "", [](Request& r) { r.prompts.assign(256, {5}); }},
      {"257 prompts", "prompt.tokens.segments", [](Request& r) { r.prompts.assign(257, {5}); }},
      {"empty prompt", "prompt.tokens.segments[1]", [](Request& r) { r.prompts[1].clear(); }},
      {"segment id", "prompt.tokens.segments[2].token_ids[0]",
       [](Request& r) { r.prompts[2][0] = 300; }},
      {"prefix id", "prompt.tokens.prefix.token_ids[1]", [](Request& r) { r.prefix[1] = -1; }},
      {"suffix id", "prompt.tokens.suffix.token_ids[0]", [](Request& r) { r.suffix[0] = 300; }},
      {"separator id", "prompt.tokens.separator.token_ids[0]",
       [](Request& r) { r.separator = {300}; }},
      {"last id", "", [](Request& r) { r.suffix[0] = 299; }},
  };
}

std::vector<Case> FusionCases() {
  const auto attention = [](Request& r, bool suffix, FirstToken first) {
    r.fusion.method = FusionMethod::kAttention;
    if (!suffix) r.suffix.clear();
    r.fusion.first_token = first;
    r.fusion.weights = {1, 2, 3};
  };
  std::vector<Case> cases = {
      {"unknown method", "fusion.method",
       [](Request& r) { r.fusion.method = static_cast<FusionMethod>(9); }},
      {"too few weights", "fusion.weights", [](Request& r) { r.fusion.weights = {1, 2}; }},
      {"weights of sum 0", "fusion.weights", [](Request& r) { r.fusion.weights = {0, 0, 0}; }},
      {"weights for FUSE_FIRST", "",
       [=](Request& r) { attention(r, false, FirstToken::kFuseFirst); }},
      {"weights for LAST_SEGMENT", "fusion.weights",
       [=](Request& r) { attention(r, false, FirstToken::kLastSegment); }},
      {"weights with a suffix", "fusion.weights",
       [=](Request& r) { attention(r, true, FirstToken::kFuseFirst); }},
  };
  for (const auto& [method, field] :
       {std::pair(FusionMethod::kProbMean, ""), std::pair(FusionMethod::kProbMax, "fusion.weights"),
        std::pair(FusionMethod::kLogitMax, "fusion.weights"),
        std::pair(FusionMethod::kPerPrompt, "fusion.weights"),
        std::pair(FusionMethod::kVote, "fusion.weights")}) {
    cases.push_back({"weights for method " + std::to_string(static_cast<int>(method)), field,
                     [method = method](Request& r) {
                       r.fusion.method = method;
                       r.fusion.weights = {1, 2, 3};
                     }});
  }
  return cases;
}

std::vector<Case> OtherCases() {
  return {
      {"top_k", "sampling.top_k", [](Request& r) { r.sampling.top_k = -1; }},
      {"bias id", "sampling.logit_bias", [](Request& r) { r.sampling.logit_bias[300] = 1; }},
      {"allowed id", "sampling.allowed_token_ids[1]",
       [](Request& r) { r.sampling.allowed_token_ids = {5, -1}; }},
      {"max 0", "stopping.max_new_tokens", [](Request& r) { r.stopping.max_new_tokens = 0; }},
      {"min -1", "stopping.min_new_tokens", [](Request& r) { r.stopping.min_new_tokens = -1; }},
      {"min = max", "", [](Request& r) { r.stopping.min_new_tokens = 10; }},
      {"min > max", "stopping.min_new_tokens", [](Request& r) { r.stopping.min_new_tokens = 11; }},
      {"empty stop", "stopping.stop[1]", [](Request& r) { r.stopping.stop = {"a", ""}; }},
      {"long stop", "stopping.stop[0]",
       [](Request& r) { r.stopping.stop = {std::string(1025, 'a')}; }},
      {"16 stops", "", [](Request& r) { r.stopping.stop.assign(16, "a"); }},
      {"17 stops", "stopping.stop", [](Request& r) { r.stopping.stop.assign(17, "a"); }},
      {"stop id", "stopping.stop_token_ids[0]",
       [](Request& r) { r.stopping.stop_token_ids = {300}; }},
      {"1025 stop ids", "stopping.stop_token_ids",
       [](Request& r) { r.stopping.stop_token_ids.assign(1025, 5); }},
      {"top_logprobs -1", "response.top_logprobs",
       [](Request& r) { r.response.top_logprobs = -1; }},
      {"top_logprobs 20", "", [](Request& r) { r.response.top_logprobs = 20; }},
      {"top_logprobs 21", "response.top_logprobs",
       [](Request& r) { r.response.top_logprobs = 21; }},
  };
}

INSTANTIATE_TEST_SUITE_P(Floats, RequestValidationTest, ::testing::ValuesIn(FloatCases()));
INSTANTIATE_TEST_SUITE_P(Prompt, RequestValidationTest, ::testing::ValuesIn(PromptCases()));
INSTANTIATE_TEST_SUITE_P(Fusion, RequestValidationTest, ::testing::ValuesIn(FusionCases()));
INSTANTIATE_TEST_SUITE_P(Other, RequestValidationTest, ::testing::ValuesIn(OtherCases()));

TEST(ValidateSizeTest, BoundsAllTokensByTheServersLimitAndTheKvSpace) {
  Request request = SimpleRequest(FusionMethod::kLogitMean, 10);  // 18 + 30
  EngineOptions options;
  options.max_request_tokens = 48;
  EXPECT_TRUE(ValidateSize(request, Info(), options).ok());
  options.max_request_tokens = 47;
  EXPECT_EQ(FieldOf(ValidateSize(request, Info(), options)), "stopping.max_new_tokens");
  options.max_request_tokens = 18;
  EXPECT_EQ(FieldOf(ValidateSize(request, Info(), options)), "prompt");
  request.stopping.max_new_tokens = std::numeric_limits<int32_t>::max();
  options.max_request_tokens = std::numeric_limits<int32_t>::max();
  EXPECT_EQ(FieldOf(ValidateSize(request, Info(), options)), "stopping.max_new_tokens");
}

TEST(ValidatePositionsTest, LargestPositionAndNewTokensStayWithinTheContext) {
  FakeModelOptions model;
  model.max_positions = 50;
  const ModelInfo info = FakeModelRunner(model).info();
  const auto validate = [&](const Request& request) {
    return ValidatePositions(request, *PlanFusion(request), info);
  };
  // Overlapping: prefix 3, longest segment 4, suffix 2: largest position 8.
  EXPECT_TRUE(validate(SimpleRequest(FusionMethod::kAttention, 42)).ok());
  EXPECT_EQ(FieldOf(validate(SimpleRequest(FusionMethod::kAttention, 43))),
            "stopping.max_new_tokens");
  EXPECT_TRUE(validate(SimpleRequest(FusionMethod::kLogitMean, 42)).ok());
  EXPECT_FALSE(validate(SimpleRequest(FusionMethod::kLogitMean, 43)).ok());
  // Sequential: 14 tokens, largest position 13.
  Request sequential = SimpleRequest(FusionMethod::kAttention, 37);
  sequential.fusion.positions = PositionMode::kSequential;
  EXPECT_TRUE(validate(sequential).ok());
  sequential.stopping.max_new_tokens = 38;
  EXPECT_FALSE(validate(sequential).ok());
  sequential.prompts[0].assign(60, 5);
  EXPECT_EQ(FieldOf(validate(sequential)), "prompt");
}

}  // namespace
}  // namespace chorus
