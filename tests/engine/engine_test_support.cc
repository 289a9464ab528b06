#include "tests/engine/engine_test_support.h"

#include <algorithm>
#include <utility>

#include "gtest/gtest.h"

#include "core/base/check.h"

namespace chorus {

const Tokenizer& TestTokenizer() {
  static const Tokenizer* const tokenizer = [] {
    auto loaded = Tokenizer::Load("tests/golden/models/tiny_gqa/tokenizer.json");
    CHECK(loaded.ok());
    return loaded->release();
  }();
  return *tokenizer;
}

void RecordingSink::OnStart(const PromptSummary& summary) {
  absl::MutexLock lock(&mutex_);
  CHECK(num_finishes_ == 0 && events_.empty());
  ++num_starts_;
  prompt_ = summary;
}

void RecordingSink::OnToken(TokenEvent event) {
  absl::MutexLock lock(&mutex_);
  CHECK(num_starts_ == 1 && num_finishes_ == 0);
  events_.push_back(std::move(event));
}

void RecordingSink::OnFinish(const absl::Status& status, FinishSummary summary) {
  if (on_finish) on_finish();
  absl::MutexLock lock(&mutex_);
  CHECK(num_finishes_++ == 0);
  status_ = status;
  summary_ = std::move(summary);
}

void RecordingSink::Await() const {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(+[](const int* num) { return *num > 0; }, &num_finishes_));
}

void RecordingSink::AwaitTokens(size_t num_events) const {
  const auto enough = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return events_.size() >= num_events || num_finishes_ > 0;
  };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&enough));
}

bool RecordingSink::ended() const {
  absl::MutexLock lock(&mutex_);
  return num_finishes_ > 0;
}
int RecordingSink::num_starts() const {
  absl::MutexLock lock(&mutex_);
  return num_starts_;
}
absl::Status RecordingSink::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}
FinishSummary RecordingSink::summary() const {
  absl::MutexLock lock(&mutex_);
  return summary_;
}
PromptSummary RecordingSink::prompt() const {
  absl::MutexLock lock(&mutex_);
  return prompt_;
}
std::vector<TokenEvent> RecordingSink::events() const {
  absl::MutexLock lock(&mutex_);
  return events_;
}

std::string RecordingSink::StreamedText(int32_t prompt_index) const {
  std::string text;
  for (const TokenEvent& event : events()) {
    if (event.prompt_index == prompt_index) text += event.text;
  }
  return text;
}

std::vector<int32_t> RecordingSink::StreamedIds(int32_t prompt_index) const {
  std::vector<int32_t> ids;
  for (const TokenEvent& event : events()) {
    if (event.prompt_index != prompt_index) continue;
    ids.insert(ids.end(), event.token_ids.begin(), event.token_ids.end());
  }
  return ids;
}

void CountingObserver::OnRejected(RejectReason reason) {
  absl::MutexLock lock(&mutex_);
  ++counts_.rejected[reason];
}
void CountingObserver::OnAccepted(const Request& request) {
  absl::MutexLock lock(&mutex_);
  ++counts_.accepted;
}
void CountingObserver::OnStarted(const Request& request, const PromptSummary&, absl::Duration) {
  absl::MutexLock lock(&mutex_);
  ++counts_.started;
  counts_.start_order.push_back(request.id);
}
void CountingObserver::OnFirstToken(const Request&, absl::Duration) {
  absl::MutexLock lock(&mutex_);
  ++counts_.first_tokens;
}
void CountingObserver::OnInterToken(absl::Duration) {
  absl::MutexLock lock(&mutex_);
  ++counts_.inter_tokens;
}
void CountingObserver::OnFinished(const Request& request, Outcome outcome, const FinishSummary&) {
  absl::MutexLock lock(&mutex_);
  ++counts_.finished;
  ++counts_.outcomes[outcome];
  counts_.finish_order.push_back(request.id);
}
void CountingObserver::OnStep(const StepStats& stats) {
  absl::MutexLock lock(&mutex_);
  ++counts_.steps;
  counts_.rows += stats.num_rows;
  counts_.last_kv_slots_used = stats.kv_slots_used;
  counts_.prefill_rows += stats.num_prefill_rows;
  counts_.max_step_rows = std::max(counts_.max_step_rows, stats.num_rows);
  counts_.max_kv_slots_used = std::max(counts_.max_kv_slots_used, stats.kv_slots_used);
}
void CountingObserver::OnKvUse(int32_t worker, int32_t num_used, int32_t num_slots) {
  absl::MutexLock lock(&mutex_);
  counts_.reported_kv_slots_used = num_used;
}
void CountingObserver::OnSegmentLookup(int32_t num_hits, int32_t num_misses,
                                       int64_t num_evictions) {
  absl::MutexLock lock(&mutex_);
  counts_.segment_hits += num_hits;
  counts_.segment_misses += num_misses;
  counts_.evictions += num_evictions;
}
void CountingObserver::OnPreempted(const Request&) {
  absl::MutexLock lock(&mutex_);
  ++counts_.preemptions;
}
void CountingObserver::OnHeartbeat(int32_t, absl::Time) {
  absl::MutexLock lock(&mutex_);
  ++counts_.heartbeats;
}
CountingObserver::Counts CountingObserver::counts() const {
  absl::MutexLock lock(&mutex_);
  return counts_;
}

TestEngine::TestEngine(FakeModelOptions model, EngineOptions options, int num_workers) {
  std::vector<std::unique_ptr<ModelRunner>> runners;
  for (int i = 0; i < num_workers; ++i) runners.push_back(std::make_unique<FakeModelRunner>(model));
  auto created =
      Engine::Create(std::move(options), std::move(runners), &TestTokenizer(), &observer, &clock);
  CHECK(created.ok());
  engine = *std::move(created);
}

std::shared_ptr<RecordingSink> TestEngine::Submit(Request request, RequestHandle* handle) {
  auto sink = std::make_shared<RecordingSink>();
  auto submitted = engine->Submit(std::move(request), sink);
  EXPECT_TRUE(submitted.ok()) << submitted.status();
  if (submitted.ok() && handle != nullptr) *handle = *submitted;
  return sink;
}

std::shared_ptr<RecordingSink> TestEngine::Run(Request request) {
  auto sink = Submit(std::move(request));
  sink->Await();
  return sink;
}

void Gate::Pass() {
  absl::MutexLock lock(&mutex_);
  ++num_arrived_;
  mutex_.Await(absl::Condition(+[](int64_t* num) { return *num > 0; }, &num_open_));
  --num_open_;
}

void Gate::Open(int num_steps) {
  absl::MutexLock lock(&mutex_);
  num_open_ += num_steps;
}

void Gate::OpenForGood() { Open(1 << 30); }

void Gate::AwaitArrivals(int num_steps) {
  const auto arrived = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return num_arrived_ >= num_steps;
  };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&arrived));
}

std::function<absl::Status(const StepPlan&, int64_t)> Gate::Hook() {
  return [this](const StepPlan&, int64_t) {
    Pass();
    return absl::OkStatus();
  };
}

std::vector<int32_t> RandomTokens(std::mt19937& random, int32_t length) {
  std::vector<int32_t> tokens(length);
  for (int32_t& token : tokens) token = static_cast<int32_t>(4 + random() % 296);
  return tokens;
}

Request SimpleRequest(FusionMethod method, int32_t max_new_tokens) {
  Request request;
  request.id = "simple";
  request.prefix = {10, 11, 12};
  request.prompts = {{20, 21, 22, 23}, {30, 31}, {40, 41, 42}};
  request.suffix = {50, 51};
  request.fusion.method = method;
  request.stopping.max_new_tokens = max_new_tokens;
  request.stopping.ignore_eos = true;
  return request;
}

Request RandomRequest(std::mt19937& random) {
  const auto upto = [&](int32_t n) { return static_cast<int32_t>(random() % (n + 1)); };
  Request request;
  request.fusion.method = static_cast<FusionMethod>(1 + upto(6));
  request.prefix = RandomTokens(random, upto(1) * upto(9));
  const int32_t num_prompts = 1 + upto(5);
  for (int32_t i = 0; i < num_prompts; ++i) {
    const bool repeat = i > 0 && upto(7) == 0;
    request.prompts.push_back(repeat ? request.prompts[0] : RandomTokens(random, 1 + upto(12)));
  }
  request.suffix = RandomTokens(random, upto(1) * upto(5));
  request.separator = RandomTokens(random, upto(1) * upto(3));
  FusionParams& fusion = request.fusion;
  fusion.positions = upto(1) ? PositionMode::kOverlapping : PositionMode::kSequential;
  fusion.separators = upto(1) ? SeparatorPolicy::kIsolated : SeparatorPolicy::kAttached;
  fusion.first_token = upto(3) ? FirstToken::kFuseFirst : FirstToken::kLastSegment;
  if (upto(3) == 0) fusion.scaling = SegmentScaling{0.9f, 0.8f, -0.5f};
  const bool weighted = fusion.method == FusionMethod::kLogitMean ||
                        fusion.method == FusionMethod::kProbMean ||
                        (fusion.method == FusionMethod::kAttention && request.suffix.empty() &&
                         fusion.first_token == FirstToken::kFuseFirst);
  if (weighted && upto(1)) {
    for (int32_t i = 0; i < num_prompts; ++i) fusion.weights.push_back(0.5f + upto(4));
  }
  if (upto(1)) request.sampling.temperature = 0.7f;
  if (upto(3) == 0) request.sampling.repetition_penalty = 1.5f;
  if (upto(3) == 0) request.sampling.frequency_penalty = 0.5f;
  request.sampling.seed = random();
  request.stopping.max_new_tokens = 1 + upto(14);
  request.stopping.min_new_tokens = upto(request.stopping.max_new_tokens);
  request.stopping.ignore_eos = upto(2) == 0;
  // Many stop tokens, so that sequences end at every length.
  if (upto(2) == 0) request.stopping.stop_token_ids = RandomTokens(random, 30);
  request.response.top_logprobs = upto(3) == 0 ? 3 : 0;
  return request;
}

}  // namespace chorus
