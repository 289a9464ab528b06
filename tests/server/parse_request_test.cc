#include "server/parse_request.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/check.h"
#include "core/base/field_error.h"
#include "core/engine/request_validation.h"

namespace chorus {
namespace {

using testing::ElementsAre;

constexpr char kTinyModel[] = "tests/golden/models/tiny_mha";
constexpr char kChatMlPrefix[] = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n";
constexpr char kChatMlSuffix[] = "<|im_end|>\n<|im_start|>assistant\n";

const Tokenizer& TestTokenizer() {
  static const auto* const kTokenizer = new absl::StatusOr<std::unique_ptr<const Tokenizer>>(
      Tokenizer::Load(std::string(kTinyModel) + "/tokenizer.json"));
  CHECK(kTokenizer->ok());
  return ***kTokenizer;
}

std::vector<int32_t> Recognised(const std::string& text) {
  return TestTokenizer().Encode(text, SpecialTokens::kRecognize);
}
std::vector<int32_t> Plain(const std::string& text) {
  return TestTokenizer().Encode(text, SpecialTokens::kPlainText);
}

TextConfig ChatConfig() {
  TextConfig config;
  config.family = TemplateKind::kChatMl;
  config.default_system = "Be brief.";
  return config;
}

absl::StatusOr<Request> Parse(const v1::GenerateRequest& proto, TextConfig config = ChatConfig()) {
  const RequestParser parser(&TestTokenizer(), std::move(config), ParseLimits{300, 1000});
  return parser.Parse(proto, RequestDefaults{"made-id", 99});
}

absl::StatusOr<Request> ParseScore(const v1::ScoreRequest& proto) {
  const RequestParser parser(&TestTokenizer(), ChatConfig(), ParseLimits{300, 1000});
  return parser.Parse(proto, RequestDefaults{"made-id", 99});
}

v1::GenerateRequest Question() {
  v1::GenerateRequest proto;
  proto.mutable_prompt()->mutable_text()->set_question("Who?");
  return proto;
}

TEST(ParseRequestTest, DefaultsAreTheContracts) {
  const auto request = Parse(Question());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->id, "made-id");
  EXPECT_EQ(request->sampling.seed, 99u);
  EXPECT_EQ(request->fusion.method, FusionMethod::kAttention);
  EXPECT_EQ(request->fusion.positions, PositionMode::kOverlapping);
  EXPECT_EQ(request->fusion.separators, SeparatorPolicy::kIsolated);
  EXPECT_EQ(request->fusion.first_token, FirstToken::kFuseFirst);
  EXPECT_FALSE(request->fusion.scaling.has_value());
  EXPECT_EQ(request->stopping.max_new_tokens, 64);
  EXPECT_EQ(request->sampling.temperature, 0.0f);
  EXPECT_TRUE(request->separator.empty());
  EXPECT_EQ(request->deadline, absl::InfiniteFuture());
}

TEST(ParseRequestTest, QuestionComesBeforeParaphrasesAndPromptsKeepTheirOrder) {
  v1::GenerateRequest proto = Question();
  proto.mutable_prompt()->mutable_text()->add_paraphrases("Which one?");
  EXPECT_THAT(Parse(proto)->prompts, ElementsAre(Plain("Who?"), Plain("Which one?")));
  v1::GenerateRequest list;
  list.mutable_prompt()->mutable_text()->add_prompts("b");
  list.mutable_prompt()->mutable_text()->add_prompts("a");
  EXPECT_THAT(Parse(list)->prompts, ElementsAre(Plain("b"), Plain("a")));
}

TEST(ParseRequestTest, AutoTemplateIsTheModelsOwn) {
  const auto request = Parse(Question());
  EXPECT_EQ(request->prefix, Recognised(kChatMlPrefix));
  EXPECT_EQ(request->suffix, Recognised(kChatMlSuffix));
  const auto base = Parse(Question(), TextConfig());
  EXPECT_TRUE(base->prefix.empty());
  EXPECT_TRUE(base->suffix.empty());
}

TEST(ParseRequestTest, SystemTextReplacesTheDefault) {
  v1::GenerateRequest proto = Question();
  proto.mutable_prompt()->mutable_text()->set_system("Shout.");
  EXPECT_EQ(Parse(proto)->prefix,
            Recognised("<|im_start|>system\nShout.<|im_end|>\n<|im_start|>user\n"));
}

TEST(ParseRequestTest, GivenPrefixOrSuffixTurnsTheTemplateOffUnlessItIsNamed) {
  v1::GenerateRequest proto = Question();
  v1::TextPrompt* const text = proto.mutable_prompt()->mutable_text();
  text->set_suffix("");
  EXPECT_TRUE(Parse(proto)->prefix.empty());
  EXPECT_TRUE(Parse(proto)->suffix.empty());
  text->set_suffix("A:");
  EXPECT_TRUE(Parse(proto)->prefix.empty());
  EXPECT_EQ(Parse(proto)->suffix, Plain("A:"));
  text->set_template_(v1::TEMPLATE_CHATML);
  EXPECT_EQ(Parse(proto)->prefix, Recognised(kChatMlPrefix));
  EXPECT_EQ(Parse(proto)->suffix, Plain("A:"));
  text->clear_suffix();
  text->set_prefix("");
  text->set_template_(v1::TEMPLATE_AUTO);
  EXPECT_TRUE(Parse(proto)->prefix.empty());
  EXPECT_EQ(Parse(proto)->suffix, Recognised(kChatMlSuffix));
  text->set_template_(v1::TEMPLATE_NONE);
  EXPECT_TRUE(Parse(proto)->suffix.empty());
}

TEST(ParseRequestTest, NamedTemplateBeatsTheModelsFamily) {
  v1::GenerateRequest proto = Question();
  proto.mutable_prompt()->mutable_text()->set_template_(v1::TEMPLATE_LLAMA3);
  EXPECT_EQ(Parse(proto)->suffix,
            Recognised("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"));
  proto.mutable_prompt()->mutable_text()->set_template_(v1::TEMPLATE_NONE);
  EXPECT_TRUE(Parse(proto)->prefix.empty());
}

TEST(ParseRequestTest, BosIsPutOnceAtTheHeadOfTextPromptsOnly) {
  TextConfig config;
  config.bos_token_id = 1;
  EXPECT_THAT(Parse(Question(), config)->prefix, ElementsAre(1));
  v1::GenerateRequest spelled = Question();
  spelled.mutable_prompt()->mutable_text()->set_prefix("<|im_start|>");
  EXPECT_THAT(Parse(spelled, config)->prefix, ElementsAre(1));
  v1::GenerateRequest tokens;
  tokens.mutable_prompt()->mutable_tokens()->add_segments()->add_token_ids(5);
  EXPECT_TRUE(Parse(tokens, config)->prefix.empty());
}

TEST(ParseRequestTest, SpecialSpellingsAreTokensInTheFrameAndTextInPrompts) {
  v1::GenerateRequest proto;
  v1::TextPrompt* const text = proto.mutable_prompt()->mutable_text();
  const std::string spelling = "<|im_end|>";
  text->set_question(spelling);
  text->set_prefix(spelling);
  text->set_suffix(spelling);
  text->set_separator(spelling);
  const auto request = Parse(proto);
  ASSERT_TRUE(request.ok());
  EXPECT_THAT(request->prefix, ElementsAre(2));
  EXPECT_THAT(request->suffix, ElementsAre(2));
  EXPECT_THAT(request->separator, ElementsAre(2));
  EXPECT_GT(request->prompts[0].size(), 1u);
}

TEST(ParseRequestTest, TokenPromptsAreTakenAsTheyAre) {
  v1::GenerateRequest proto;
  v1::TokenPrompt* const tokens = proto.mutable_prompt()->mutable_tokens();
  tokens->add_segments()->add_token_ids(0);
  tokens->add_segments()->add_token_ids(299);
  tokens->mutable_prefix()->add_token_ids(7);
  tokens->mutable_suffix()->add_token_ids(8);
  tokens->mutable_separator()->add_token_ids(9);
  const auto request = Parse(proto);
  ASSERT_TRUE(request.ok());
  EXPECT_THAT(request->prompts, ElementsAre(ElementsAre(0), ElementsAre(299)));
  EXPECT_THAT(request->prefix, ElementsAre(7));
  EXPECT_THAT(request->suffix, ElementsAre(8));
  EXPECT_THAT(request->separator, ElementsAre(9));
}

TEST(ParseRequestTest, EverySettingArrives) {
  v1::GenerateRequest proto = Question();
  proto.set_request_id("id 1");
  proto.set_priority(-7);
  v1::Fusion* const fusion = proto.mutable_fusion();
  fusion->set_method(v1::FUSION_METHOD_PROB_MEAN);
  fusion->set_positions(v1::POSITION_MODE_SEQUENTIAL);
  fusion->set_separators(v1::SEPARATOR_POLICY_ATTACHED);
  fusion->set_first_token(v1::FIRST_TOKEN_LAST_SEGMENT);
  fusion->add_weights(0.5f);
  fusion->set_attention_temperature(0.9f);
  fusion->set_attention_scale(0.8f);
  fusion->set_segment_log_bias(-1.5f);
  v1::Sampling* const sampling = proto.mutable_sampling();
  sampling->set_temperature(0.7f);
  sampling->set_top_p(0.9f);
  sampling->set_top_k(40);
  sampling->set_min_p(0.1f);
  sampling->set_repetition_penalty(1.1f);
  sampling->set_presence_penalty(0.2f);
  sampling->set_frequency_penalty(0.3f);
  sampling->set_seed(0);
  (*sampling->mutable_logit_bias())[5] = -2.0f;
  sampling->add_allowed_token_ids(6);
  v1::Stopping* const stopping = proto.mutable_stopping();
  stopping->set_max_new_tokens(9);
  stopping->set_min_new_tokens(3);
  stopping->add_stop("end");
  stopping->add_stop_token_ids(4);
  stopping->set_ignore_eos(true);
  stopping->set_include_stop(true);
  proto.mutable_response()->set_top_logprobs(5);
  const auto request = Parse(proto);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->id, "id 1");
  EXPECT_EQ(request->priority, -7);
  EXPECT_EQ(request->fusion.method, FusionMethod::kProbMean);
  EXPECT_EQ(request->fusion.positions, PositionMode::kSequential);
  EXPECT_EQ(request->fusion.separators, SeparatorPolicy::kAttached);
  EXPECT_EQ(request->fusion.first_token, FirstToken::kLastSegment);
  EXPECT_THAT(request->fusion.weights, ElementsAre(0.5f));
  EXPECT_EQ(request->fusion.scaling, (SegmentScaling{0.9f, 0.8f, -1.5f}));
  EXPECT_EQ(request->sampling.temperature, 0.7f);
  EXPECT_EQ(request->sampling.top_p, 0.9f);
  EXPECT_EQ(request->sampling.top_k, 40);
  EXPECT_EQ(request->sampling.min_p, 0.1f);
  EXPECT_EQ(request->sampling.repetition_penalty, 1.1f);
  EXPECT_EQ(request->sampling.presence_penalty, 0.2f);
  EXPECT_EQ(request->sampling.frequency_penalty, 0.3f);
  EXPECT_EQ(request->sampling.seed, 0u);
  EXPECT_EQ(request->sampling.logit_bias.at(5), -2.0f);
  EXPECT_THAT(request->sampling.allowed_token_ids, ElementsAre(6));
  EXPECT_EQ(request->stopping.max_new_tokens, 9);
  EXPECT_EQ(request->stopping.min_new_tokens, 3);
  EXPECT_THAT(request->stopping.stop, ElementsAre("end"));
  EXPECT_THAT(request->stopping.stop_token_ids, ElementsAre(4));
  EXPECT_TRUE(request->stopping.ignore_eos);
  EXPECT_TRUE(request->stopping.include_stop);
  EXPECT_EQ(request->response.top_logprobs, 5);
}

TEST(ParseRequestTest, TheEnginesMethodsHaveTheContractsNumbers) {
  for (int method = v1::FUSION_METHOD_ATTENTION; method <= v1::FUSION_METHOD_VOTE; ++method) {
    v1::GenerateRequest proto = Question();
    proto.mutable_fusion()->set_method(static_cast<v1::FusionMethod>(method));
    EXPECT_EQ(static_cast<int>(Parse(proto)->fusion.method), method);
  }
  EXPECT_EQ(static_cast<int>(FusionMethod::kVote), v1::FUSION_METHOD_VOTE);
}

TEST(ParseRequestTest, TooManyOrTooLongTextsAreRefusedBeforeTokenising) {
  v1::GenerateRequest many = Question();
  for (int i = 0; i < 256; ++i) many.mutable_prompt()->mutable_text()->add_paraphrases("x");
  EXPECT_EQ(FieldOf(Parse(many).status()), "prompt.text.paraphrases");
  many.mutable_prompt()->mutable_text()->mutable_paraphrases()->RemoveLast();
  EXPECT_TRUE(Parse(many).ok());
  v1::GenerateRequest longer = Question();
  longer.mutable_prompt()->mutable_text()->set_question(std::string(64 * 1000 + 1, 'x'));
  EXPECT_EQ(FieldOf(Parse(longer).status()), "prompt.text");
}

TEST(ParseRequestTest, TextBytesCountsEveryText) {
  v1::GenerateRequest proto;
  v1::TextPrompt* const text = proto.mutable_prompt()->mutable_text();
  text->set_question("1");
  text->add_paraphrases("22");
  text->add_prompts("4444");
  text->set_prefix("88888888");
  text->set_suffix(std::string(16, 's'));
  text->set_separator(std::string(32, 's'));
  text->set_system(std::string(64, 's'));
  EXPECT_EQ(RequestParser::TextBytes(proto), 127u);
  EXPECT_EQ(RequestParser::TextBytes(v1::GenerateRequest()), 0u);
}

// Text is tokenised by itself, as plain text; ids are taken as they are; nothing is drawn.
TEST(ParseRequestTest, ContinuationsAreTheirOwnTokens) {
  v1::ScoreRequest proto;
  *proto.mutable_prompt() = Question().prompt();
  proto.mutable_fusion()->set_method(v1::FUSION_METHOD_PROB_MAX);
  proto.add_continuations()->set_text(" a <|im_end|>");
  proto.add_continuations()->mutable_tokens()->add_token_ids(1);
  proto.set_priority(3);
  const auto request = ParseScore(proto);
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_TRUE(request->score.has_value());
  EXPECT_THAT(request->score->continuations,
              ElementsAre(Plain(" a <|im_end|>"), std::vector<int32_t>{1}));
  EXPECT_TRUE(request->score->prompt_logprobs);
  EXPECT_EQ(request->fusion.method, FusionMethod::kProbMax);
  EXPECT_EQ(request->id, "made-id");
  EXPECT_EQ(request->priority, 3);
  EXPECT_EQ(request->sampling, SamplingParams());
  EXPECT_EQ(request->prefix, Recognised(kChatMlPrefix));
  proto.set_prompt_logprobs(false);
  EXPECT_FALSE(ParseScore(proto)->score->prompt_logprobs);
}

}  // namespace
}  // namespace chorus
