#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "absl/time/time.h"

#include "client/chorus_client.h"
#include "client/load_call.h"
#include "client/load_options.h"
#include "client/load_result.h"
#include "client/load_stall_probe.h"
#include "client/load_workload.h"
#include "client/timer_queue.h"

namespace chorus {

// How a run stands, warm-up and all.
struct LoadSnapshot {
  absl::Duration elapsed;
  bool is_warming_up = false;
  int64_t num_done = 0;  // ended, in whatever way
  int64_t num_errors = 0;
  int64_t num_in_flight = 0;
  int64_t num_not_sent = 0;
  int64_t num_tokens = 0;             // generated
  double ttft_p50 = 0, ttft_p99 = 0;  // seconds; of the last thousand
};

// What the runner calls about five times a second, on the thread of Run.
struct LoadHooks {
  std::function<bool()> is_interrupted;  // true ends the run: what runs is cancelled
  std::function<void(const LoadSnapshot& snapshot)> on_tick;
};

// Sends the requests of a workload, in a closed or an open loop, and measures them.
//
// Everything here belongs to the thread of Run, which waits in a TimerQueue. gRPC's threads write
// the record of their own call and post its end there. A call's memory is all that a request costs:
// thousands can run at a time.
class LoadRunner {
 public:
  // All of them outlive the runner; `clients` are the connections, taken in turn.
  LoadRunner(const LoadOptions& options, const Workload& workload,
             std::vector<ChorusClient>& clients, LoadHooks hooks);

  // Returns when every request has ended. Once.
  LoadResult Run();

 private:
  struct Call {
    uint64_t index = 0;  // of the request in the workload
    int64_t caller = 0;  // of a closed loop; of an open one each request has its own
    bool is_measured = false;
    bool is_probe = false;
    LoadCall call;
  };

  void Tick();
  void ScheduleArrival(absl::Time when);
  void Arrive();
  void SendNext(int64_t caller);
  void BeginMeasuring(absl::Time now);
  void SendProbe();
  void Start(std::unique_ptr<Call> call, const v1::GenerateRequest& request, absl::Duration pause);
  void ScheduleCancel(uint64_t id);
  void OnFirstToken(double seconds);
  void OnDone(uint64_t id);
  void AddMeasured(const Call& call);
  void Stop() { is_stopping_ = true; }

  bool IsWarmingUp() const;
  bool IsSlow(int64_t caller) const;
  LoadSnapshot Snapshot() const;

  const LoadOptions& options_;
  const Workload& workload_;
  std::vector<ChorusClient>& clients_;
  const LoadHooks hooks_;

  TimerQueue timers_;
  std::map<uint64_t, std::unique_ptr<Call>> running_;  // by id, in order of sending
  std::atomic<int64_t> num_tokens_ = 0;                // gRPC's threads count along
  std::mt19937_64 generator_;                          // arrivals and cancellations

  absl::Time started_at_;
  std::optional<absl::Time> measuring_since_;
  bool is_stopping_ = false;  // nothing more is sent
  uint64_t next_id_ = 0;
  uint64_t num_requests_ = 0;  // sent, warm-up and all, but the probe
  int64_t num_done_ = 0;
  int64_t num_errors_ = 0;
  std::deque<float> recent_ttft_;
  LoadResult result_;
  std::optional<StallProbe> probe_;
};

}  // namespace chorus
