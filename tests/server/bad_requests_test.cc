// Two hundred bad requests over real gRPC: each is INVALID_ARGUMENT whose BadRequest detail names
// the field, the value and the limit, and the server answers the next good request as before.
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

#include "tests/server/server_test_support.h"

namespace chorus {
namespace {

using Change = std::function<void(v1::GenerateRequest*)>;

struct BadRequestCase {
  std::string field;  // that the detail must name
  std::string value;  // that the description must quote
  Change change;      // makes a good request bad
};

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

v1::TextPrompt* Text(v1::GenerateRequest* request) {
  return request->mutable_prompt()->mutable_text();
}
v1::TokenPrompt* Tokens(v1::GenerateRequest* request) {
  return request->mutable_prompt()->mutable_tokens();
}

void AddPromptCases(std::vector<BadRequestCase>* cases) {
  using R = v1::GenerateRequest*;
  cases->push_back({"prompt", "nothing", [](R r) { r->clear_prompt(); }});
  cases->push_back({"prompt", "nothing", [](R r) { r->mutable_prompt()->clear_form(); }});
  cases->push_back({"prompt.text.question", "\"\"", [](R r) { Text(r)->clear_question(); }});
  cases->push_back({"prompt.text.question", "\"\"", [](R r) { Text(r)->Clear(); }});
  cases->push_back({"prompt.text.prompts", "1 entries", [](R r) { Text(r)->add_prompts("a"); }});
  cases->push_back({"prompt.text.prompts", "2 entries", [](R r) {
                      Text(r)->clear_question();
                      Text(r)->add_prompts("a");
                      Text(r)->add_prompts("b");
                    }});
  for (const int count : {254, 255, 300, 1000, 10000}) {
    cases->push_back({"prompt.text.paraphrases", absl::StrCat(count + 3, " prompts"), [count](R r) {
                        for (int i = 0; i < count; ++i) Text(r)->add_paraphrases("x");
                      }});
  }
  for (const int count : {257, 10000}) {
    cases->push_back({"prompt.text.prompts", absl::StrCat(count, " prompts"), [count](R r) {
                        Text(r)->Clear();
                        for (int i = 0; i < count; ++i) Text(r)->add_prompts("x");
                      }});
  }
  for (const int index : {0, 1}) {
    cases->push_back({absl::StrCat("prompt.text.paraphrases[", index, "]"), "\"\"",
                      [index](R r) { Text(r)->set_paraphrases(index, ""); }});
    cases->push_back({absl::StrCat("prompt.text.prompts[", index, "]"), "\"\"", [index](R r) {
                        Text(r)->Clear();
                        Text(r)->add_prompts(index == 0 ? "" : "a");
                        Text(r)->add_prompts(index == 1 ? "" : "a");
                      }});
  }
  for (const int value : {-1, 5, 99, std::numeric_limits<int>::max()}) {
    cases->push_back({"prompt.text.template", absl::StrCat(value),
                      [value](R r) { Text(r)->set_template_(static_cast<v1::Template>(value)); }});
  }
  // 32768 tokens of 64 bytes are 2 MiB.
  for (const int bytes : {(2 << 20) + 1, 5 << 20, 15 << 20}) {
    cases->push_back({"prompt.text", " bytes",
                      [bytes](R r) { Text(r)->set_question(std::string(bytes, 'q')); }});
    cases->push_back(
        {"prompt.text", " bytes", [bytes](R r) { Text(r)->set_prefix(std::string(bytes, 'q')); }});
  }
  // Within the byte limit, beyond context, KV space or max_request_tokens.
  for (const int bytes : {5000, 9000, 100000}) {
    cases->push_back(
        {"prompt", "", [bytes](R r) { Text(r)->set_question(std::string(bytes, '7')); }});
    cases->push_back(
        {"prompt", "", [bytes](R r) { Text(r)->set_suffix(std::string(bytes, '7')); }});
  }
}

void AddTokenCases(std::vector<BadRequestCase>* cases) {
  using R = v1::GenerateRequest*;
  cases->push_back({"prompt.tokens.segments", "0 segments", [](R r) { Tokens(r); }});
  cases->push_back({"prompt.tokens.segments", "0 segments",
                    [](R r) { Tokens(r)->mutable_prefix()->add_token_ids(5); }});
  for (const int count : {257, 10000}) {
    cases->push_back({"prompt.tokens.segments", absl::StrCat(count, " segments"), [count](R r) {
                        for (int i = 0; i < count; ++i) {
                          Tokens(r)->add_segments()->add_token_ids(5);
                        }
                      }});
  }
  for (const int index : {0, 1, 2}) {
    cases->push_back(
        {absl::StrCat("prompt.tokens.segments[", index, "]"), "0 tokens", [index](R r) {
           for (int i = 0; i < 3; ++i) {
             auto* const segment = Tokens(r)->add_segments();
             if (i != index) segment->add_token_ids(5);
           }
         }});
  }
  for (const int id :
       {-1, 300, 301, 49152, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()}) {
    const std::string value = absl::StrCat(id);
    const auto with_good_segment = [](R r) {
      Tokens(r)->add_segments()->add_token_ids(5);
      return Tokens(r);
    };
    cases->push_back({"prompt.tokens.segments[1].token_ids[1]", value, [=](R r) {
                        auto* const segment = with_good_segment(r)->add_segments();
                        segment->add_token_ids(5);
                        segment->add_token_ids(id);
                      }});
    cases->push_back({"prompt.tokens.prefix.token_ids[0]", value,
                      [=](R r) { with_good_segment(r)->mutable_prefix()->add_token_ids(id); }});
    cases->push_back({"prompt.tokens.suffix.token_ids[0]", value,
                      [=](R r) { with_good_segment(r)->mutable_suffix()->add_token_ids(id); }});
    cases->push_back({"prompt.tokens.separator.token_ids[0]", value,
                      [=](R r) { with_good_segment(r)->mutable_separator()->add_token_ids(id); }});
    cases->push_back({"sampling.allowed_token_ids[0]", value,
                      [id](R r) { r->mutable_sampling()->add_allowed_token_ids(id); }});
    cases->push_back({"stopping.stop_token_ids[0]", value,
                      [id](R r) { r->mutable_stopping()->add_stop_token_ids(id); }});
    cases->push_back({"sampling.logit_bias", value,
                      [id](R r) { (*r->mutable_sampling()->mutable_logit_bias())[id] = 1.0f; }});
  }
  for (const int count : {32769, 100000}) {
    cases->push_back({"prompt.tokens", absl::StrCat(count, " tokens"), [count](R r) {
                        auto* const ids = Tokens(r)->add_segments()->mutable_token_ids();
                        ids->Resize(count, 5);
                      }});
  }
  for (const int count : {4097, 8193, 20000}) {
    cases->push_back({"prompt", "", [count](R r) {
                        Tokens(r)->add_segments()->mutable_token_ids()->Resize(count, 5);
                      }});
  }
}

void AddFusionCases(std::vector<BadRequestCase>* cases) {
  using R = v1::GenerateRequest*;
  for (const int value : {-1, 8, 100, std::numeric_limits<int>::min()}) {
    const std::string text = absl::StrCat(value);
    cases->push_back({"fusion.method", text, [value](R r) {
                        r->mutable_fusion()->set_method(static_cast<v1::FusionMethod>(value));
                      }});
    cases->push_back({"fusion.positions", text, [value](R r) {
                        r->mutable_fusion()->set_positions(static_cast<v1::PositionMode>(value));
                      }});
    cases->push_back({"fusion.separators", text, [value](R r) {
                        r->mutable_fusion()->set_separators(
                            static_cast<v1::SeparatorPolicy>(value));
                      }});
    cases->push_back({"fusion.first_token", text, [value](R r) {
                        r->mutable_fusion()->set_first_token(static_cast<v1::FirstToken>(value));
                      }});
  }
  const auto weights = [](v1::FusionMethod method, std::vector<float> values) -> Change {
    return [=](R r) {
      r->mutable_fusion()->set_method(method);
      r->mutable_fusion()->mutable_weights()->Add(values.begin(), values.end());
    };
  };
  const auto mean = v1::FUSION_METHOD_LOGIT_MEAN;
  cases->push_back({"fusion.weights", "1 weights", weights(mean, {1})});
  cases->push_back({"fusion.weights", "4 weights", weights(mean, {1, 1, 1, 1})});
  cases->push_back({"fusion.weights", "0", weights(mean, {0, 0, 0})});
  cases->push_back({"fusion.weights", "300 entries", weights(mean, std::vector<float>(300, 1))});
  cases->push_back({"fusion.weights[1]", "-1", weights(mean, {1, -1, 1})});
  cases->push_back({"fusion.weights[0]", "nan", weights(mean, {kNan, 1, 1})});
  cases->push_back({"fusion.weights[2]", "inf", weights(mean, {1, 1, kInfinity})});
  for (const auto method :
       {v1::FUSION_METHOD_PROB_MAX, v1::FUSION_METHOD_LOGIT_MAX, v1::FUSION_METHOD_PER_PROMPT,
        v1::FUSION_METHOD_VOTE, v1::FUSION_METHOD_ATTENTION}) {
    cases->push_back({"fusion.weights", "3 weights", weights(method, {1, 1, 1})});
  }
  for (const float value : {kNan, kInfinity, -kInfinity, 0.0f, -1.0f}) {
    const std::string text = absl::StrCat(value);
    cases->push_back({"fusion.attention_temperature", text,
                      [value](R r) { r->mutable_fusion()->set_attention_temperature(value); }});
    cases->push_back({"fusion.attention_scale", text,
                      [value](R r) { r->mutable_fusion()->set_attention_scale(value); }});
    if (std::isfinite(value)) continue;
    cases->push_back({"fusion.segment_log_bias", text,
                      [value](R r) { r->mutable_fusion()->set_segment_log_bias(value); }});
  }
}

void AddSamplingCases(std::vector<BadRequestCase>* cases) {
  using Set = void (v1::Sampling::*)(float);
  const struct {
    const char* field;
    Set set;
    std::vector<float> values;
  } kFloats[] = {
      {"sampling.temperature", &v1::Sampling::set_temperature, {-0.1f, -1}},
      {"sampling.top_p", &v1::Sampling::set_top_p, {0, -0.5f, 1.01f, 2}},
      {"sampling.min_p", &v1::Sampling::set_min_p, {-0.1f, 1.1f, 7}},
      {"sampling.repetition_penalty", &v1::Sampling::set_repetition_penalty, {0, -1}},
      {"sampling.presence_penalty", &v1::Sampling::set_presence_penalty, {-2.1f, 2.1f, 100}},
      {"sampling.frequency_penalty", &v1::Sampling::set_frequency_penalty, {-2.1f, 2.1f, 100}}};
  for (const auto& entry : kFloats) {
    std::vector<float> values = entry.values;
    values.insert(values.end(), {kNan, kInfinity, -kInfinity});
    for (const float value : values) {
      cases->push_back(
          {entry.field, absl::StrCat(value), [set = entry.set, value](v1::GenerateRequest* r) {
             (r->mutable_sampling()->*set)(value);
           }});
    }
  }
  using R = v1::GenerateRequest*;
  for (const int value : {-1, std::numeric_limits<int>::min()}) {
    cases->push_back({"sampling.top_k", absl::StrCat(value),
                      [value](R r) { r->mutable_sampling()->set_top_k(value); }});
  }
  for (const float bias : {kNan, kInfinity, -kInfinity}) {
    cases->push_back({"sampling.logit_bias[5]", absl::StrCat(bias),
                      [bias](R r) { (*r->mutable_sampling()->mutable_logit_bias())[5] = bias; }});
  }
  cases->push_back({"sampling.logit_bias", "1025 entries", [](R r) {
                      for (int i = 0; i < 1025; ++i) {
                        (*r->mutable_sampling()->mutable_logit_bias())[i] = 0;
                      }
                    }});
  cases->push_back({"sampling.allowed_token_ids", "65537 entries", [](R r) {
                      r->mutable_sampling()->mutable_allowed_token_ids()->Resize(65537, 5);
                    }});
}

void AddOtherCases(std::vector<BadRequestCase>* cases) {
  using R = v1::GenerateRequest*;
  for (const int value : {0, -1, std::numeric_limits<int>::min()}) {
    cases->push_back({"stopping.max_new_tokens", absl::StrCat(value),
                      [value](R r) { r->mutable_stopping()->set_max_new_tokens(value); }});
  }
  for (const int value : {4096, 8192, 100000, std::numeric_limits<int>::max()}) {
    cases->push_back({"stopping.max_new_tokens", absl::StrCat(value),
                      [value](R r) { r->mutable_stopping()->set_max_new_tokens(value); }});
  }
  for (const int value : {-1, 6, std::numeric_limits<int>::max()}) {
    cases->push_back({"stopping.min_new_tokens", absl::StrCat(value),
                      [value](R r) { r->mutable_stopping()->set_min_new_tokens(value); }});
  }
  for (const int bytes : {0, 1025, 1 << 20}) {
    cases->push_back({"stopping.stop[1]", absl::StrCat(bytes, " bytes"), [bytes](R r) {
                        r->mutable_stopping()->add_stop("good");
                        r->mutable_stopping()->add_stop(std::string(bytes, 's'));
                      }});
  }
  for (const int count : {17, 10000}) {
    cases->push_back({"stopping.stop", absl::StrCat(count), [count](R r) {
                        for (int i = 0; i < count; ++i) r->mutable_stopping()->add_stop("s");
                      }});
  }
  cases->push_back({"stopping.stop_token_ids", "1025",
                    [](R r) { r->mutable_stopping()->mutable_stop_token_ids()->Resize(1025, 5); }});
  for (const int value : {-1, 21, 1000}) {
    cases->push_back({"response.top_logprobs", absl::StrCat(value),
                      [value](R r) { r->mutable_response()->set_top_logprobs(value); }});
  }
  for (const int value : {-101, 101, std::numeric_limits<int>::max()}) {
    cases->push_back({"priority", absl::StrCat(value), [value](R r) { r->set_priority(value); }});
  }
  for (const int bytes : {129, 1 << 20}) {
    cases->push_back({"request_id", absl::StrCat(bytes, " bytes"),
                      [bytes](R r) { r->set_request_id(std::string(bytes, 'i')); }});
  }
  for (const char byte : {'\n', '\t', '\0', '\x7F', '\x1B'}) {
    cases->push_back({"request_id", absl::StrCat("byte ", static_cast<int>(byte), " at 2"),
                      [byte](R r) { r->set_request_id(std::string("ab") + byte); }});
  }
  cases->push_back({"request_id", "byte 195 at 0", [](R r) { r->set_request_id("\xC3\xA9"); }});
}

v1::GenerateRequest GoodRequest() { return SimpleGenerateRequest(5); }

TEST(BadRequestsTest, EachIsInvalidArgumentThatNamesFieldValueAndLimit) {
  std::vector<BadRequestCase> cases;
  AddPromptCases(&cases);
  AddTokenCases(&cases);
  AddFusionCases(&cases);
  AddSamplingCases(&cases);
  AddOtherCases(&cases);
  ASSERT_GE(cases.size(), 200u);
  TestServer test;
  const std::string expected = test.Ask(GoodRequest()).finish().text();
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(absl::StrCat("case ", i, ": ", cases[i].field, " ", cases[i].value));
    v1::GenerateRequest request = GoodRequest();
    cases[i].change(&request);
    const TestServer::Answer answer = test.Ask(request);
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << answer.status.error_message();
    EXPECT_TRUE(answer.events.empty());
    google::rpc::Status details;
    google::rpc::BadRequest bad_request;
    ASSERT_TRUE(details.ParseFromString(answer.status.error_details()));
    ASSERT_EQ(details.details_size(), 1);
    ASSERT_TRUE(details.details(0).UnpackTo(&bad_request));
    EXPECT_EQ(bad_request.field_violations(0).field(), cases[i].field);
    const std::string& description = bad_request.field_violations(0).description();
    EXPECT_THAT(description, testing::HasSubstr(cases[i].value));
    EXPECT_THAT(description, testing::HasSubstr(" is not valid: "));
    if (i % 20 != 0) continue;
    EXPECT_EQ(test.Ask(GoodRequest()).finish().text(), expected);
  }
  EXPECT_EQ(test.Ask(GoodRequest()).finish().text(), expected);
  EXPECT_EQ(test.Metric("chorus_requests_rejected_total"), cases.size());
  EXPECT_EQ(test.Metric("chorus_requests_accepted_total"),
            test.Metric("chorus_requests_finished_total"));
}

TEST(BadRequestsTest, BadUnaryRequestsAreNamedToo) {
  TestServer test;
  v1::DetokenizeRequest detokenize;
  detokenize.add_token_ids(5);
  detokenize.add_token_ids(300);
  v1::DetokenizeResponse text;
  grpc::ClientContext context;
  const grpc::Status status = test.stub().Detokenize(&context, detokenize, &text);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), testing::HasSubstr("token_ids[1]: 300"));
  v1::TokenizeRequest tokenize;
  tokenize.set_text(std::string((16 << 20) + 1, 'x'));
  v1::TokenizeResponse ids;
  grpc::ClientContext second;
  const grpc::Status too_long = test.stub().Tokenize(&second, tokenize, &ids);
  EXPECT_EQ(too_long.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(too_long.error_message(), testing::HasSubstr("text: 16777217 bytes"));
}

// Messages that are no protobuf, or hold strings that are no UTF-8: refused by gRPC's own layer.
TEST(BadRequestsTest, BytesThatAreNoMessageEndTheirCallOnly) {
  TestServer test;
  const std::string expected = test.Ask(GoodRequest()).finish().text();
  std::string bad_utf8 = GoodRequest().SerializeAsString();
  bad_utf8[bad_utf8.find("Norway")] = '\xFF';
  std::mt19937 random(20261123);
  for (int i = 0; i < 200; ++i) {
    std::string message = bad_utf8;
    if (i > 0) {
      message = GoodRequest().SerializeAsString();
      for (int change = 0; change < 8; ++change) {
        message[random() % message.size()] = static_cast<char>(random());
      }
      message.resize(random() % (message.size() + 1));
    }
    RawCall call(test.channel(), "/chorus.v1.Inference/Generate");
    call.Write(message);
    while (call.Read().has_value()) {
    }
    const grpc::Status status = call.Finish();
    EXPECT_TRUE(i > 0 || !status.ok());
  }
  EXPECT_EQ(test.Ask(GoodRequest()).finish().text(), expected);
}

void SendBytes(int port, const std::string& bytes) {
  const int socket_fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(connect(socket_fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t count = send(socket_fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count <= 0) break;  // the server has closed: fine
    sent += count;
  }
  close(socket_fd);
}

TEST(BadRequestsTest, GarbageOnTheSocketHurtsNobodyElse) {
  TestServer test({}, [](ServerConfig* config) { config->network.metrics_listen = "127.0.0.1:0"; });
  const std::string expected = test.Ask(GoodRequest()).finish().text();
  const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  const std::string settings("\0\0\0\4\0\0\0\0\0", 9);
  std::mt19937 random(4711);
  for (int i = 0; i < 100; ++i) {
    std::string garbage(random() % 4000, '\0');
    for (char& byte : garbage) byte = static_cast<char>(random());
    const std::string head = i % 3 == 0 ? "" : i % 3 == 1 ? preface : preface + settings;
    SendBytes(test.server().grpc_port(), head + garbage);
    SendBytes(test.server().metrics_port(), garbage);
  }
  SendBytes(test.server().grpc_port(), "GET / HTTP/1.1\r\n\r\n");
  SendBytes(test.server().grpc_port(), "");
  EXPECT_EQ(test.Ask(GoodRequest()).finish().text(), expected);
}

}  // namespace
}  // namespace chorus
