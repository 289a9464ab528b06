// Explain, and what Generate's tokens say of their prompts, through real gRPC on a fake model that
// looks at all keys alike.

#include <cmath>
#include <future>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "core/segment/segment_mask.h"
#include "tests/engine/engine_test_support.h"
#include "tests/server/server_test_support.h"
#include "tests/support/fake_probes.h"

namespace chorus {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

// Prompts of 4, 2 and 3 tokens between 3 of prefix and 2 of suffix.
v1::GenerateRequest TokenRequest(int max_new_tokens) {
  v1::GenerateRequest request;
  v1::TokenPrompt* const prompt = request.mutable_prompt()->mutable_tokens();
  for (const std::vector<int32_t>& ids :
       {std::vector<int32_t>{20, 21, 22, 23}, {30, 31}, {40, 41, 42}}) {
    prompt->add_segments()->mutable_token_ids()->Assign(ids.begin(), ids.end());
  }
  for (const int id : {10, 11, 12}) prompt->mutable_prefix()->add_token_ids(id);
  for (const int id : {50, 51}) prompt->mutable_suffix()->add_token_ids(id);
  request.mutable_stopping()->set_max_new_tokens(max_new_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  return request;
}

struct Explanation {
  grpc::Status status;
  v1::ExplainResponse response;
};

Explanation Explain(TestServer& test, const v1::ExplainRequest& request) {
  Explanation explanation;
  grpc::ClientContext context;
  explanation.status = test.stub().Explain(&context, request, &explanation.response);
  return explanation;
}

void ExpectLayoutOf(const v1::GenerateRequest& request, const v1::ExplainResponse& response) {
  const v1::FusedLayout& layout = response.layout();
  EXPECT_EQ(layout.length(), 17);
  EXPECT_EQ(layout.prefix_length(), 3);
  EXPECT_EQ(layout.original_length(), 12);
  EXPECT_EQ(layout.prompt_length(), 14);
  ASSERT_THAT(layout.token_ids(), SizeIs(17));
  ASSERT_THAT(layout.tokens(), SizeIs(17));
  ASSERT_THAT(layout.positions(), SizeIs(17));
  EXPECT_EQ(layout.positions(11), 3 + layout.segments(2).end() - layout.segments(2).begin() - 1);
  EXPECT_EQ(layout.positions(16), 11);  // 3 + 4 + 2 of suffix + 2 more
  for (int i = 0; i < 3; ++i) {         // each segment is the prompt that it says it is
    const auto& ids = request.prompt().tokens().segments(layout.prompt_indexes(i));
    const v1::TokenRange& segment = layout.segments(i);
    ASSERT_EQ(segment.end() - segment.begin(), ids.token_ids_size());
    for (int k = 0; k < ids.token_ids_size(); ++k) {
      EXPECT_EQ(layout.token_ids(segment.begin() + k), ids.token_ids(k));
    }
  }
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(layout.token_ids(14 + i), response.finish().token_ids(i));
    EXPECT_EQ(layout.tokens(i),
              TinyTokenizer().Decode(std::vector<int32_t>{layout.token_ids(i)}, false));
  }
}

void ExpectAttention(const v1::ExplainResponse& response) {
  ASSERT_THAT(response.units(), SizeIs(6));  // no separators
  EXPECT_EQ(response.units(0).kind(), v1::UNIT_KIND_PREFIX);
  EXPECT_EQ(response.units(4).kind(), v1::UNIT_KIND_SUFFIX);
  EXPECT_EQ(response.units(5).kind(), v1::UNIT_KIND_GENERATED);
  const int num_keys[] = {3, 4, 2, 3, 2, 3};
  const int engine_units[] = {0, 1, 2, 3, 5, 6};
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(response.units(i).num_keys(), num_keys[i]);
    if (i >= 1 && i <= 3) EXPECT_EQ(response.units(i).prompt_index(), i - 1);
  }

  EXPECT_THAT(response.steps(), ElementsAre(0, 2));
  EXPECT_THAT(response.heads(), ElementsAre(3));
  ASSERT_THAT(response.layers(), SizeIs(2));
  for (int l = 0; l < 2; ++l) {
    const v1::LayerAttention& layer = response.layers(l);
    EXPECT_EQ(layer.layer(), 2 * l);
    ASSERT_THAT(layer.logits(), SizeIs(12));
    ASSERT_THAT(layer.mass(), SizeIs(12));
    for (int at = 0; at < 12; ++at) {
      const int step = response.steps(at / 6), unit = at % 6;
      const int seen = unit == 5 ? step : num_keys[unit];
      EXPECT_FLOAT_EQ(layer.mass(at), static_cast<float>(seen) / static_cast<float>(14 + step));
      if (seen == 0) {
        EXPECT_TRUE(std::isnan(layer.logits(at)));
      } else {
        EXPECT_EQ(layer.logits(at), fake_model::FakeLogit(2 * l, 3, engine_units[unit]));
      }
    }
  }
}

TEST(ExplainTest, SaysLayoutUnitsAndAttention) {
  TestServer test;
  v1::ExplainRequest request;
  *request.mutable_request() = TokenRequest(3);
  request.mutable_request()->set_request_id("mine");
  for (const int layer : {0, 2}) request.add_layers(layer);
  request.add_heads(3);
  for (const int step : {0, 2}) request.add_steps(step);
  const Explanation explanation = Explain(test, request);
  ASSERT_TRUE(explanation.status.ok()) << explanation.status.error_message();
  const v1::ExplainResponse& response = explanation.response;
  EXPECT_EQ(response.prompt_info().request_id(), "mine");
  EXPECT_THAT(response.prompt_info().segment_tokens(), ElementsAre(4, 2, 3));
  EXPECT_EQ(response.finish().reason(), v1::FINISH_REASON_LENGTH);
  ExpectLayoutOf(request.request(), response);
  ExpectAttention(response);
  // As Generate answers it.
  const TestServer::Answer answer = test.Ask(TokenRequest(3));
  EXPECT_EQ(answer.finish().text(), response.finish().text());
}

// Counted pair by pair from the one definition of the mask.
TEST(ExplainTest, MaskIsThatOfTheWholeSequence) {
  TestServer test;
  v1::ExplainRequest request;
  *request.mutable_request() = TokenRequest(3);
  request.mutable_request()->mutable_prompt()->mutable_tokens()->mutable_separator()->add_token_ids(
      60);
  const Explanation explanation = Explain(test, request);
  ASSERT_TRUE(explanation.status.ok()) << explanation.status.error_message();
  const v1::ExplainResponse& response = explanation.response;
  const v1::FusedLayout& proto = response.layout();
  std::vector<TokenRange> segments;
  for (const v1::TokenRange& range : proto.segments())
    segments.push_back({range.begin(), range.end()});
  const auto layout =
      SegmentLayout::FromRanges(proto.prefix_length(), segments, proto.original_length(),
                                proto.prompt_length(), PositionMode::kOverlapping);
  ASSERT_TRUE(layout.ok()) << layout.status();
  const SegmentMask mask(&*layout);
  int64_t allowed = 0;
  std::vector<int> masked_rows;
  std::vector<std::string> rows(proto.length());
  for (int q = 0; q < proto.length(); ++q) {
    for (int k = 0; k < proto.length(); ++k) {
      allowed += mask.Allows(q, k);
      rows[q] += mask.Allows(q, k) ? '1' : '0';
    }
    if (!absl::StrContains(rows[q], "1")) masked_rows.push_back(q);
  }
  EXPECT_EQ(response.mask().allowed(), allowed);
  EXPECT_EQ(response.mask().total(), int64_t{proto.length()} * proto.length());
  EXPECT_DOUBLE_EQ(response.mask().ratio(),
                   static_cast<double>(allowed) / (proto.length() * proto.length()));
  std::vector<int> said;
  for (const v1::TokenRange& range : response.mask().fully_masked_rows()) {
    for (int q = range.begin(); q < range.end(); ++q) said.push_back(q);
  }
  EXPECT_EQ(said, masked_rows);
  EXPECT_THAT(said, SizeIs(2));  // two separators
  int next = 0;
  for (const v1::MaskRun& run : response.mask_runs()) {
    ASSERT_EQ(run.rows().begin(), next);
    for (; next < run.rows().end(); ++next) {
      std::string row(proto.length(), '0');
      for (const v1::TokenRange& keys : run.keys()) {
        for (int k = keys.begin(); k < keys.end() && k <= next; ++k) row[k] = '1';
      }
      EXPECT_EQ(row, rows[next]) << next;
    }
  }
  EXPECT_EQ(next, proto.length());
  const int separators = 4;  // prefix, three prompts, separators
  EXPECT_EQ(response.units(separators).kind(), v1::UNIT_KIND_SEPARATORS);
  EXPECT_EQ(response.units(separators).num_keys(), 2);
}

TEST(ExplainTest, DefaultsAreTheFirstStepOfAllLayersAndHeads) {
  TestServer test;
  v1::ExplainRequest request;
  *request.mutable_request() = SimpleGenerateRequest(4);
  const Explanation explanation = Explain(test, request);
  ASSERT_TRUE(explanation.status.ok()) << explanation.status.error_message();
  EXPECT_THAT(explanation.response.steps(), ElementsAre(0));
  EXPECT_THAT(explanation.response.heads(), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(explanation.response.layers(), SizeIs(fake_model::kNumLayers));
}

TEST(ExplainTest, BadRequestsNameTheirField) {
  TestServer test;
  struct Case {
    std::function<void(v1::ExplainRequest*)> change;
    std::string field;
    std::string says;
  };
  const std::vector<Case> cases = {
      {[](auto* r) { r->add_layers(3); }, "layers[0]", "must be in [0, 3)"},
      {[](auto* r) { r->add_layers(-1); }, "layers[0]", "-1"},
      {[](auto* r) { r->add_heads(1), r->add_heads(1); }, "heads[1]", "above the one before"},
      {[](auto* r) { r->add_steps(4); }, "steps[0]", "must be in [0, 4)"},
      {[](auto* r) { r->mutable_request()->mutable_fusion()->set_method(v1::FUSION_METHOD_VOTE); },
       "fusion.method", "ATTENTION"},
      {[](auto* r) { r->mutable_request()->mutable_sampling()->set_top_p(2); }, "sampling.top_p",
       "2"},
      {[](auto* r) { r->clear_request(); }, "prompt", "nothing"},
      {[](auto* r) {
         r->mutable_request()->mutable_stopping()->set_max_new_tokens(20000);
         for (int i = 0; i < 13000; ++i) r->add_steps(i);
       },
       "layers", "3 layers x 4 heads x 7 units x 13000 rows"},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.field + " " + one.says);
    v1::ExplainRequest request;
    *request.mutable_request() = TokenRequest(4);
    one.change(&request);
    const grpc::Status status = Explain(test, request).status;
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(FieldOf(status), one.field) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(one.says));
  }
  EXPECT_EQ(test.Metric("chorus_requests_rejected_total"), static_cast<double>(cases.size()));
}

TEST(ExplainTest, CallerThatLeavesAndDeadlineEndIt) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  TestServer test(model);
  v1::ExplainRequest request;
  *request.mutable_request() = TokenRequest(1000);
  grpc::ClientContext context;
  v1::ExplainResponse response;
  auto status = std::async(std::launch::async,
                           [&] { return test.stub().Explain(&context, request, &response); });
  gate.Open(3);
  gate.AwaitArrivals(4);
  context.TryCancel();
  EXPECT_EQ(status.get().error_code(), grpc::StatusCode::CANCELLED);

  grpc::ClientContext late;
  late.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  EXPECT_EQ(test.stub().Explain(&late, request, &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  gate.OpenForGood();
  WaitUntil([&] {
    return test.Metric("chorus_requests_finished_total") +
               test.Metric("chorus_requests_rejected_total") >=
           2;
  });
  EXPECT_EQ(test.Metric("chorus_requests_finished_total", "outcome=cancelled"), 1);
  EXPECT_TRUE(test.Ask(SimpleGenerateRequest(2)).status.ok());
}

TEST(ExplainTest, TooManyAreToldToComeAgainAndOthersRunOn) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  TestServer test(model, [](ServerConfig* config) { config->engine.max_explain_requests = 1; });
  v1::ExplainRequest request;
  *request.mutable_request() = TokenRequest(50);
  auto first = std::async(std::launch::async, [&] { return Explain(test, request).status; });
  gate.AwaitArrivals(1);
  const grpc::Status refused = Explain(test, request).status;
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("1 Explain requests"));
  gate.OpenForGood();
  EXPECT_TRUE(test.Ask(SimpleGenerateRequest(5)).status.ok());
  EXPECT_TRUE(first.get().ok());
}

TEST(ExplainTest, DrainLetsItEnd) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  TestServer test(model);
  v1::ExplainRequest request;
  *request.mutable_request() = TokenRequest(20);
  auto running = std::async(std::launch::async, [&] { return Explain(test, request).status; });
  gate.AwaitArrivals(1);
  auto drained =
      std::async(std::launch::async, [&] { return test.server().Drain(absl::Seconds(60)); });
  WaitUntil([&] { return test.Metric("chorus_draining") == 1; });
  gate.OpenForGood();
  EXPECT_TRUE(running.get().ok());
  EXPECT_TRUE(drained.get());
  EXPECT_EQ(Explain(test, request).status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

// 3 layers x 4 heads x 3,000 steps x 5 units, and a sequence of 3,012 tokens.
TEST(ExplainTest, LargeAnswerArrivesWhole) {
  TestServer test;
  v1::ExplainRequest request;
  *request.mutable_request() = TokenRequest(1);
  v1::Prompt* const prompt = request.mutable_request()->mutable_prompt();
  prompt->mutable_tokens()->clear_suffix();  // FUSE_FIRST: three rows for step 0
  constexpr int kNumSteps = 3000;
  request.mutable_request()->mutable_stopping()->set_max_new_tokens(kNumSteps);
  for (int i = 0; i < kNumSteps; ++i) request.add_steps(i);
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(64 << 20);
  const auto stub = v1::Inference::NewStub(
      grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", test.server().grpc_port()),
                                grpc::InsecureChannelCredentials(), arguments));
  grpc::ClientContext context;
  v1::ExplainResponse response;
  const grpc::Status status = stub->Explain(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  const int num_units = response.units_size();
  EXPECT_EQ(num_units, 5);  // no separators, no suffix
  for (const v1::LayerAttention& layer : response.layers()) {
    EXPECT_EQ(layer.mass_size(), kNumSteps * 4 * num_units);
    double sum = 0;
    for (const float mass : layer.mass()) sum += mass;
    EXPECT_NEAR(sum, kNumSteps * 4, 1e-2);
  }
}

std::vector<v1::TokenChunk> ChunksOf(const std::vector<v1::GenerateResponse>& events) {
  std::vector<v1::TokenChunk> chunks;
  for (const v1::GenerateResponse& event : events) {
    if (event.has_chunk()) chunks.push_back(event.chunk());
  }
  return chunks;
}

void ExpectStatisticsOfEachToken(const std::vector<v1::GenerateResponse>& events) {
  int i = 0;
  for (const v1::TokenChunk& chunk : ChunksOf(events)) {
    ASSERT_EQ(chunk.attribution_size(), chunk.token_ids_size());
    ASSERT_EQ(chunk.disagreement_size(), chunk.token_ids_size());
    for (int k = 0; k < chunk.token_ids_size(); ++k, ++i) {
      const v1::Attribution& attribution = chunk.attribution(k);
      const auto total = static_cast<float>(14 + i);
      EXPECT_FLOAT_EQ(attribution.prefix(), 3 / total);
      ASSERT_THAT(attribution.segments(), SizeIs(3));
      EXPECT_FLOAT_EQ(attribution.segments(0), 4 / total);
      EXPECT_FLOAT_EQ(attribution.segments(1), 2 / total);
      EXPECT_FLOAT_EQ(attribution.suffix(), 2 / total);
      EXPECT_EQ(attribution.separators(), 0);
      EXPECT_FLOAT_EQ(attribution.generated(), static_cast<float>(i) / total);
      EXPECT_GT(chunk.disagreement(k), 0);
      EXPECT_LE(chunk.disagreement(k), std::log2(3.0f));
    }
  }
  EXPECT_EQ(i, 40);
}

TEST(TokenStatisticsTest, ComeWithTheTokensByGenerateAndGenerateMany) {
  TestServer test;
  v1::GenerateRequest request = TokenRequest(40);
  const TestServer::Answer plain = test.Ask(request);
  for (const v1::TokenChunk& chunk : ChunksOf(plain.events)) {
    EXPECT_EQ(chunk.attribution_size() + chunk.disagreement_size(), 0);
  }
  request.mutable_response()->set_attribution(true);
  request.mutable_response()->set_prompt_disagreement(true);
  const TestServer::Answer answer = test.Ask(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ExpectStatisticsOfEachToken(answer.events);
  EXPECT_EQ(answer.finish().text(), plain.finish().text());
  EXPECT_EQ(test.Metric("chorus_attribution_entropy"), 40);
  EXPECT_EQ(test.Metric("chorus_prompt_disagreement"), 40);

  grpc::ClientContext context;
  const auto stream = test.stub().GenerateMany(&context);
  v1::GenerateManyRequest many;
  many.set_request_id("a");
  *many.mutable_request() = request;
  ASSERT_TRUE(stream->Write(many));
  stream->WritesDone();
  std::vector<v1::GenerateResponse> events;
  v1::GenerateManyResponse message;
  while (stream->Read(&message)) events.push_back(message.response());
  EXPECT_TRUE(stream->Finish().ok());
  ExpectStatisticsOfEachToken(events);
}

TEST(TokenStatisticsTest, MethodsThatHaveNoneRefuseThem) {
  TestServer test;
  v1::GenerateRequest request = TokenRequest(2);
  request.mutable_fusion()->set_method(v1::FUSION_METHOD_LOGIT_MEAN);
  request.mutable_response()->set_attribution(true);
  EXPECT_EQ(FieldOf(test.Ask(request).status), "response.attribution");
  request.mutable_fusion()->set_method(v1::FUSION_METHOD_VOTE);
  request.mutable_response()->set_attribution(false);
  request.mutable_response()->set_prompt_disagreement(true);
  EXPECT_EQ(FieldOf(test.Ask(request).status), "response.prompt_disagreement");
}

}  // namespace
}  // namespace chorus
