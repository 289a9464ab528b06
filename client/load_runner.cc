#include "client/load_runner.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace chorus {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(200);
constexpr size_t kRecent = 1000;
constexpr absl::Duration kDefaultErrorPause = absl::Milliseconds(100);
constexpr absl::Duration kDefaultCancelWithin = absl::Seconds(1);
constexpr absl::Duration kDefaultSlowRead = absl::Milliseconds(100);
constexpr absl::Duration kDefaultProbeAfter = absl::Seconds(5);

}  // namespace

LoadRunner::LoadRunner(const LoadOptions& options, const Workload& workload,
                       std::vector<ChorusClient>& clients, LoadHooks hooks)
    : options_(options),
      workload_(workload),
      clients_(clients),
      hooks_(std::move(hooks)),
      generator_(options.random_seed) {
  if (options.stall_probe) probe_.emplace(*options.stall_probe);
}

LoadResult LoadRunner::Run() {
  started_at_ = SteadyNow();
  if (options_.is_open_loop()) {
    ScheduleArrival(started_at_);
  } else {
    for (int caller = 0; caller < options_.num_clients(); ++caller) SendNext(caller);
  }
  Tick();
  while (!is_stopping_ || !running_.empty()) timers_.RunNext();
  if (probe_) result_.stall_probe = probe_->Result();
  return std::move(result_);
}

void LoadRunner::Tick() {
  if (!is_stopping_ && hooks_.is_interrupted()) Stop();
  if (hooks_.is_interrupted()) {
    for (const auto& [id, call] : running_) call->call.Cancel();
  }
  hooks_.on_tick(Snapshot());
  timers_.Add(SteadyNow() + kTick, [this] { Tick(); });
}

// Poisson arrivals: the times between them are exponentially distributed. They are counted from one
// another, not from when they ran, so that a late one does not delay the rest.
void LoadRunner::ScheduleArrival(absl::Time when) {
  timers_.Add(when, [this, when] {
    if (is_stopping_) return;
    Arrive();
    std::exponential_distribution<double> gap(*options_.rate);
    ScheduleArrival(when + absl::Seconds(gap(generator_)));
  });
}

void LoadRunner::Arrive() {
  if (static_cast<int>(running_.size()) < options_.most_in_flight()) {
    SendNext(/*caller=*/static_cast<int64_t>(num_requests_));
  } else if (!IsWarmingUp()) {
    ++result_.num_not_sent;
  }
}

void LoadRunner::SendNext(int64_t caller) {
  if (is_stopping_) return;
  auto call = std::make_unique<Call>();
  call->is_measured = !IsWarmingUp();
  call->index = num_requests_++;
  call->caller = caller;
  if (call->is_measured) {
    if (!measuring_since_) BeginMeasuring(SteadyNow());
    if (++result_.num_sent == options_.requests) Stop();
  }
  const v1::GenerateRequest request = workload_.MakeRequest(call->index);
  const absl::Duration pause =
      IsSlow(caller) ? options_.slow_read.value_or(kDefaultSlowRead) : absl::ZeroDuration();
  const uint64_t id = next_id_;
  Start(std::move(call), request, pause);
  if (options_.cancel) ScheduleCancel(id);
}

void LoadRunner::BeginMeasuring(absl::Time now) {
  measuring_since_ = now;
  if (options_.duration) timers_.Add(now + *options_.duration, [this] { Stop(); });
  if (probe_) {
    timers_.Add(now + options_.stall_probe_after.value_or(kDefaultProbeAfter),
                [this] { SendProbe(); });
  }
}

void LoadRunner::SendProbe() {
  if (is_stopping_) return;
  auto call = std::make_unique<Call>();
  call->is_probe = true;
  const v1::GenerateRequest request = workload_.MakeStallProbe();
  probe_->OnSent(SteadyNow());
  Start(std::move(call), request, absl::ZeroDuration());
}

void LoadRunner::Start(std::unique_ptr<Call> call, const v1::GenerateRequest& request,
                       absl::Duration pause) {
  const uint64_t id = next_id_++;
  LoadCall& started = running_.emplace(id, std::move(call)).first->second->call;
  LoadCall::Listener listener = {
      .on_first_token =
          [this](double seconds) {
            timers_.Add(SteadyNow(), [this, seconds] { OnFirstToken(seconds); });
          },
      .on_done = [this, id] { timers_.Add(SteadyNow(), [this, id] { OnDone(id); }); },
      .num_tokens = &num_tokens_};
  started.Start(clients_[id % clients_.size()], request, pause, std::move(listener));
}

void LoadRunner::ScheduleCancel(uint64_t id) {
  std::uniform_real_distribution<double> draw(0, 1);
  if (draw(generator_) >= *options_.cancel) return;
  const absl::Duration after =
      draw(generator_) * options_.cancel_within.value_or(kDefaultCancelWithin);
  timers_.Add(SteadyNow() + after, [this, id] {
    if (const auto found = running_.find(id); found != running_.end()) found->second->call.Cancel();
  });
}

void LoadRunner::OnFirstToken(double seconds) {
  recent_ttft_.push_back(static_cast<float>(seconds));
  if (recent_ttft_.size() > kRecent) recent_ttft_.pop_front();
}

void LoadRunner::OnDone(uint64_t id) {
  const std::unique_ptr<Call> call = std::move(running_.extract(id).mapped());
  const CallRecord& record = call->call.record();
  if (call->is_probe) {
    probe_->OnDone(record);
    return;
  }
  ++num_done_;
  if (record.is_error()) ++num_errors_;
  if (call->is_measured) AddMeasured(*call);
  if (options_.is_open_loop()) return;
  if (!record.is_error()) {
    SendNext(call->caller);
    return;
  }
  // A server that refuses at once would otherwise be asked as fast as this machine can.
  timers_.Add(SteadyNow() + options_.error_pause.value_or(kDefaultErrorPause),
              [this, caller = call->caller] { SendNext(caller); });
}

void LoadRunner::AddMeasured(const Call& call) {
  const CallRecord& record = call.call.record();
  result_.Add(record, workload_.answers(call.index));
  const absl::Time end = record.sent_at + absl::Seconds(record.seconds);
  result_.seconds = std::max(result_.seconds, absl::ToDoubleSeconds(end - *measuring_since_));
  if (!probe_) return;
  for (const TokenGap& gap : TokenGaps(record)) probe_->AddGap(gap);
}

bool LoadRunner::IsWarmingUp() const {
  if (measuring_since_) return false;
  return static_cast<int64_t>(num_requests_) < options_.warmup.num_requests ||
         SteadyNow() - started_at_ < options_.warmup.duration;
}

// Spreads the share evenly: with 0.25 it is every fourth caller.
bool LoadRunner::IsSlow(int64_t caller) const {
  const double share = options_.slow_readers.value_or(0);
  return std::floor(static_cast<double>(caller + 1) * share) >
         std::floor(static_cast<double>(caller) * share);
}

LoadSnapshot LoadRunner::Snapshot() const {
  std::vector<float> recent(recent_ttft_.begin(), recent_ttft_.end());
  return {.elapsed = SteadyNow() - started_at_,
          .is_warming_up = !measuring_since_.has_value(),
          .num_done = num_done_,
          .num_errors = num_errors_,
          .num_in_flight = static_cast<int64_t>(running_.size()),
          .num_not_sent = result_.num_not_sent,
          .num_tokens = num_tokens_.load(std::memory_order_relaxed),
          .ttft_p50 = NearestRank(recent, 0.5),
          .ttft_p99 = NearestRank(recent, 0.99)};
}

}  // namespace chorus
