#include "tests/server/server_test_support.h"

#include <utility>

#include <grpcpp/create_channel.h>
#include <prometheus/registry.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

#include "core/base/check.h"

namespace chorus {
namespace {

constexpr char kTinyModel[] = "tests/golden/models/tiny_mha";

grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::string FromBuffer(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  CHECK(buffer.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

LogConfig Quiet() {
  LogConfig config;
  config.level = "off";
  return config;
}

}  // namespace

const Tokenizer& TinyTokenizer() {
  static const auto* const kTokenizer = new absl::StatusOr<std::unique_ptr<const Tokenizer>>(
      Tokenizer::Load(absl::StrCat(kTinyModel, "/tokenizer.json")));
  CHECK(kTokenizer->ok());
  return ***kTokenizer;
}

TextConfig TinyTextConfig() {
  absl::StatusOr<TextConfig> config = LoadTextConfig(kTinyModel, TinyTokenizer());
  CHECK(config.ok());
  return *std::move(config);
}

TestServer::TestServer(FakeModelOptions model, const std::function<void(ServerConfig*)>& change)
    : logger_(Quiet()) {
  ServerConfig config;
  config.network.listen = "127.0.0.1:0";
  config.network.metrics_listen = "";  // the page's HTTP server takes two seconds to stop
  if (change) change(&config);
  std::vector<std::unique_ptr<ModelRunner>> runners;
  for (int32_t worker = 0; worker < config.model.workers; ++worker) {
    runners.push_back(std::make_unique<FakeModelRunner>(model));
  }
  auto server =
      Server::Start(config, &TinyTokenizer(), TinyTextConfig(), std::move(runners), &logger_);
  CHECK(server.ok());
  server_ = *std::move(server);
  grpc::ChannelArguments arguments;
  arguments.SetMaxSendMessageSize(-1);
  // Keeps HTTP/2 windows at 64 KiB, so that a reader that does not read is felt soon.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  channel_ = grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server_->grpc_port()),
                                       grpc::InsecureChannelCredentials(), arguments);
  stub_ = v1::Inference::NewStub(channel_);
}

TestServer::Answer TestServer::Ask(const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, request);
  Answer answer;
  v1::GenerateResponse event;
  while (reader->Read(&event)) answer.events.push_back(event);
  answer.status = reader->Finish();
  return answer;
}

double TestServer::Metric(const std::string& name, const std::string& label) {
  double sum = 0;
  for (const auto& family : server_->metrics().registry()->Collect()) {
    if (family.name != name) continue;
    for (const auto& metric : family.metric) {
      bool matches = label.empty();
      for (const auto& pair : metric.label) {
        matches = matches || label == absl::StrCat(pair.name, "=", pair.value);
      }
      if (!matches) continue;
      sum += metric.counter.value + metric.gauge.value + metric.histogram.sample_count;
    }
  }
  return sum;
}

RawCall::RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method)
    : stub_(channel), call_(stub_.PrepareCall(&context_, method, &queue_)) {
  call_->StartCall(this);
  Next();
}

RawCall::~RawCall() {
  context_.TryCancel();
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

bool RawCall::Next() {
  void* tag = nullptr;
  bool ok = false;
  return queue_.Next(&tag, &ok) && ok;
}

void RawCall::Write(const std::string& message) {
  call_->Write(ToBuffer(message), this);
  Next();
}

std::optional<std::string> RawCall::Read() {
  grpc::ByteBuffer buffer;
  call_->Read(&buffer, this);
  if (!Next()) return std::nullopt;
  return FromBuffer(buffer);
}

grpc::Status RawCall::Finish() {
  grpc::Status status;
  call_->Finish(&status, this);
  Next();
  return status;
}

v1::GenerateRequest SimpleGenerateRequest(int max_new_tokens) {
  v1::GenerateRequest request;
  v1::TextPrompt* const text = request.mutable_prompt()->mutable_text();
  text->set_question("What is the capital of Norway?");
  text->add_paraphrases("Name the capital of Norway.");
  text->add_paraphrases("Which town is Norway governed from?");
  request.mutable_stopping()->set_max_new_tokens(max_new_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  return request;
}

std::string FieldOf(const grpc::Status& status) {
  google::rpc::Status details;
  google::rpc::BadRequest bad;
  if (!details.ParseFromString(status.error_details()) || details.details_size() != 1 ||
      !details.details(0).UnpackTo(&bad) || bad.field_violations_size() != 1) {
    return "";
  }
  return bad.field_violations(0).field();
}

void WaitUntil(const std::function<bool()>& condition) {
  while (!condition()) absl::SleepFor(absl::Milliseconds(2));
}

void WaitUntilAtRest(const std::atomic<int64_t>& num_steps) {
  int64_t seen = -1;
  WaitUntil([&] {
    absl::SleepFor(absl::Milliseconds(300));
    return num_steps > 0 && std::exchange(seen, num_steps.load()) == num_steps.load();
  });
}

}  // namespace chorus
