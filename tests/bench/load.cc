#include "tests/bench/load.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <semaphore>
#include <utility>
#include <vector>

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <sys/resource.h>

#include "absl/synchronization/blocking_counter.h"
#include "absl/time/clock.h"
#include "chorus/v1/inference.grpc.pb.h"

namespace chorus {
namespace {

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "server_bench: %s\n", what.c_str());
  std::exit(1);
}

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Clocks that run from construction to Stop.
class Stopwatch {
 public:
  Stopwatch() : cpu_(CpuSeconds()), wall_(absl::Now()) {}
  void Stop(LoadResult* result) const {
    result->wall_seconds = absl::ToDoubleSeconds(absl::Now() - wall_);
    result->cpu_seconds = CpuSeconds() - cpu_;
  }

 private:
  const double cpu_;
  const absl::Time wall_;
};

// What has arrived of one answer. One thread at a time.
class AnswerCheck {
 public:
  template <typename Ids>
  void Add(const std::string& text, const Ids& token_ids) {
    arrivals_.push_back({absl::Now(), static_cast<int64_t>(token_ids.size())});
    text_ += text;
    token_ids_.insert(token_ids_.end(), token_ids.begin(), token_ids.end());
  }

  // The answer is complete: compares, and adds to `result`.
  template <typename Ids>
  void Finish(const std::string& text, const Ids& token_ids, int32_t wanted, LoadResult* result) {
    if (text != text_ || static_cast<int32_t>(token_ids_.size()) != wanted ||
        !std::equal(token_ids.begin(), token_ids.end(), token_ids_.begin(), token_ids_.end())) {
      Die("an answer is not what was streamed");
    }
    result->num_tokens += static_cast<int64_t>(token_ids_.size());
    result->num_messages += static_cast<int64_t>(arrivals_.size());
    result->text_bytes += static_cast<int64_t>(text_.size());
    result->answers.push_back(std::exchange(arrivals_, {}));
    text_.clear();
    token_ids_.clear();
  }

 private:
  std::string text_;
  std::vector<int32_t> token_ids_;
  std::vector<Arrival> arrivals_;
};

LoadResult Sum(const std::vector<LoadResult>& parts) {
  LoadResult sum;
  for (const LoadResult& part : parts) {
    sum.num_tokens += part.num_tokens;
    sum.num_messages += part.num_messages;
    sum.text_bytes += part.text_bytes;
    sum.answers.insert(sum.answers.end(), part.answers.begin(), part.answers.end());
  }
  return sum;
}

// ---- The engine

class EngineSink final : public TokenSink {
 public:
  EngineSink(int32_t wanted, LoadResult* result, std::counting_semaphore<>* free_streams)
      : wanted_(wanted), result_(*result), free_streams_(*free_streams) {}

  void OnStart(const PromptSummary&) override {}
  void OnToken(TokenEvent event) override { check_.Add(event.text, event.token_ids); }
  void OnFinish(const absl::Status& status, FinishSummary summary) override {
    if (!status.ok()) Die(status.ToString());
    check_.Finish(summary.answer.text, summary.answer.token_ids, wanted_, &result_);
    free_streams_.release();
  }

 private:
  const int32_t wanted_;
  LoadResult& result_;
  std::counting_semaphore<>& free_streams_;
  AnswerCheck check_;
};

// ---- Generate

// One Generate call after another: the requests first, first + step, ... of the workload. gRPC's
// threads call it, one at a time.
class GenerateLane final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  GenerateLane(const Workload& workload, v1::Inference::Stub* stub, int32_t first,
               absl::BlockingCounter* running)
      : workload_(workload), stub_(*stub), running_(*running), index_(first) {}

  // False, and nothing is started, if there is no request left.
  bool Next() {
    if (index_ >= workload_.num_requests) return false;
    request_ = MakeRequest(workload_, index_);
    index_ += workload_.num_streams;
    context_ = std::make_unique<grpc::ClientContext>();
    stub_.async()->Generate(context_.get(), &request_, this);
    StartRead(&event_);
    StartCall();
    return true;
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (event_.has_chunk()) check_.Add(event_.chunk().text(), event_.chunk().token_ids());
    if (event_.has_finish()) {
      check_.Finish(event_.finish().text(), event_.finish().token_ids(), workload_.max_new_tokens,
                    &result_);
    }
    StartRead(&event_);
  }

  void OnDone(const grpc::Status& status) override {
    if (!status.ok()) Die(status.error_message());
    if (!Next()) running_.DecrementCount();
  }

  const LoadResult& result() const { return result_; }

 private:
  const Workload& workload_;
  v1::Inference::Stub& stub_;
  absl::BlockingCounter& running_;
  int32_t index_;
  v1::GenerateRequest request_;
  std::unique_ptr<grpc::ClientContext> context_;
  v1::GenerateResponse event_;
  AnswerCheck check_;
  LoadResult result_;
};

std::vector<std::unique_ptr<v1::Inference::Stub>> Connect(const std::string& target,
                                                          int32_t num_channels) {
  std::vector<std::unique_ptr<v1::Inference::Stub>> stubs;
  for (int32_t i = 0; i < num_channels; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt("chorus.connection", i);  // channels of equal arguments share a connection
    const auto channel =
        grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
    if (!channel->WaitForConnected(absl::ToChronoTime(absl::Now() + absl::Seconds(5)))) {
      Die("no server answers at " + target);
    }
    stubs.push_back(v1::Inference::NewStub(channel));
  }
  return stubs;
}

// ---- GenerateMany

// One GenerateMany call: the requests first, first + step, ... of the workload. gRPC's threads call
// it, writes and reads at a time.
class ManyLane final
    : public grpc::ClientBidiReactor<v1::GenerateManyRequest, v1::GenerateManyResponse> {
 public:
  ManyLane(const Workload& workload, v1::Inference::Stub* stub, int32_t first, int32_t step,
           absl::BlockingCounter* running)
      : workload_(workload), step_(step), running_(*running), index_(first) {
    checks_.resize(workload.num_requests);
    stub->async()->GenerateMany(&context_, this);
    WriteNext();
    StartRead(&event_);
    StartCall();
  }

  void OnWriteDone(bool ok) override {
    if (ok) WriteNext();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (event_.has_error()) Die(event_.error().message());
    AnswerCheck& check = checks_[std::stoi(event_.request_id())];
    const v1::GenerateResponse& response = event_.response();
    if (response.has_chunk()) check.Add(response.chunk().text(), response.chunk().token_ids());
    if (response.has_finish()) {
      check.Finish(response.finish().text(), response.finish().token_ids(),
                   workload_.max_new_tokens, &result_);
    }
    StartRead(&event_);
  }

  void OnDone(const grpc::Status& status) override {
    if (!status.ok()) Die(status.error_message());
    running_.DecrementCount();
  }

  const LoadResult& result() const { return result_; }

 private:
  void WriteNext() {
    if (index_ >= workload_.num_requests) return StartWritesDone();
    request_.set_request_id(std::to_string(index_));
    *request_.mutable_request() = MakeRequest(workload_, index_);
    index_ += step_;
    StartWrite(&request_);
  }

  const Workload& workload_;
  const int32_t step_;
  absl::BlockingCounter& running_;
  int32_t index_;
  grpc::ClientContext context_;
  v1::GenerateManyRequest request_;
  v1::GenerateManyResponse event_;
  std::vector<AnswerCheck> checks_;  // by index
  LoadResult result_;
};

}  // namespace

double DecodeTokensPerSecond(const LoadResult& result) {
  absl::Time begin = absl::InfinitePast(), end = absl::InfiniteFuture();
  for (const std::vector<Arrival>& answer : result.answers) {
    begin = std::max(begin, answer.front().time);
    end = std::min(end, answer.back().time);
  }
  if (end <= begin) return 0.0;
  int64_t num_tokens = 0;
  for (const std::vector<Arrival>& answer : result.answers) {
    for (const Arrival& arrival : answer) {
      if (arrival.time > begin && arrival.time <= end) num_tokens += arrival.num_tokens;
    }
  }
  return static_cast<double>(num_tokens) / absl::ToDoubleSeconds(end - begin);
}

v1::GenerateRequest MakeRequest(const Workload& workload, int32_t index) {
  std::seed_seq seed = {workload.seed, static_cast<uint64_t>(index)};
  std::minstd_rand random(seed);
  std::uniform_int_distribution<int32_t> token_id(0, workload.vocab_size - 1);
  v1::GenerateRequest request;
  for (int32_t i = 0; i < workload.num_prompts; ++i) {
    v1::TokenSegment& segment = *request.mutable_prompt()->mutable_tokens()->add_segments();
    for (int32_t j = 0; j < workload.prompt_tokens; ++j) segment.add_token_ids(token_id(random));
  }
  request.mutable_fusion()->set_method(workload.method);
  request.mutable_stopping()->set_max_new_tokens(workload.max_new_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_sampling()->set_seed(1);
  return request;
}

LoadResult RunEngineLoad(const Workload& workload, const RequestParser& parser, Engine& engine) {
  std::counting_semaphore<> free_streams(workload.num_streams);
  std::vector<LoadResult> results(workload.num_requests);
  const Stopwatch stopwatch;
  for (int32_t i = 0; i < workload.num_requests; ++i) {
    absl::StatusOr<Request> request =
        parser.Parse(MakeRequest(workload, i), RequestDefaults{"", 1});
    if (!request.ok()) Die(request.status().ToString());
    free_streams.acquire();
    const auto handle = engine.Submit(
        *std::move(request),
        std::make_shared<EngineSink>(workload.max_new_tokens, &results[i], &free_streams));
    if (!handle.ok()) Die(handle.status().ToString());
  }
  for (int32_t i = 0; i < workload.num_streams; ++i) free_streams.acquire();
  LoadResult sum = Sum(results);
  stopwatch.Stop(&sum);
  return sum;
}

LoadResult RunGenerateLoad(const Workload& workload, const std::string& target,
                           int32_t num_channels) {
  const auto stubs = Connect(target, num_channels);
  const int32_t num_lanes = std::min(workload.num_streams, workload.num_requests);
  absl::BlockingCounter running(num_lanes);
  std::vector<std::unique_ptr<GenerateLane>> lanes;
  const Stopwatch stopwatch;
  for (int32_t i = 0; i < num_lanes; ++i) {
    lanes.push_back(
        std::make_unique<GenerateLane>(workload, stubs[i % stubs.size()].get(), i, &running));
    lanes.back()->Next();
  }
  running.Wait();
  std::vector<LoadResult> results;
  for (const auto& lane : lanes) results.push_back(lane->result());
  LoadResult sum = Sum(results);
  stopwatch.Stop(&sum);
  return sum;
}

LoadResult RunManyLoad(const Workload& workload, const std::string& target, int32_t num_channels) {
  const auto stubs = Connect(target, num_channels);
  absl::BlockingCounter running(num_channels);
  std::vector<std::unique_ptr<ManyLane>> lanes;
  const Stopwatch stopwatch;
  for (int32_t i = 0; i < num_channels; ++i) {
    lanes.push_back(
        std::make_unique<ManyLane>(workload, stubs[i].get(), i, num_channels, &running));
  }
  running.Wait();
  std::vector<LoadResult> results;
  for (const auto& lane : lanes) results.push_back(lane->result());
  LoadResult sum = Sum(results);
  stopwatch.Stop(&sum);
  if (sum.num_tokens != int64_t{workload.num_requests} * workload.max_new_tokens) {
    Die("a request was not answered");
  }
  return sum;
}

}  // namespace chorus
