#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/random/random.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "chorus/v1/inference.pb.h"

#include "core/engine/engine_observer.h"
#include "core/engine/request.h"
#include "server/parse_request.h"
#include "server/task_pool.h"

namespace chorus {

// Texts up to this size are tokenised within a reaction: well under a millisecond.
inline constexpr size_t kInlineTextBytes = 4096;

// Runs `work`; an exception (out of memory in a library, say) becomes INTERNAL.
absl::Status Guarded(const std::function<absl::Status()>& work);

// Makes the engine's requests of the contract's: id and seed drawn where the caller gave none,
// short texts tokenised at once, long ones on the pool. Thread-safe.
class RequestIntake {
 public:
  // All outlive the intake. `observer` is told of requests that cannot be parsed.
  RequestIntake(const RequestParser* parser, EngineObserver* observer, TaskPool* pool)
      : parser_(*parser), observer_(*observer), pool_(*pool) {}

  // What is called with the prompt of every request that could be parsed, and the request's id.
  // Before the first Parse.
  using OnParsed = std::function<void(const v1::Prompt& prompt, const std::string& id)>;
  void SetOnParsed(OnParsed on_parsed) { on_parsed_ = std::move(on_parsed); }

  using Done = std::function<void(absl::StatusOr<Request>)>;
  // Calls `done` once, here or on a thread of the pool, which then works on a copy of `proto`. The
  // request gets `deadline`. False, and `done` is never called, if the text is long and the pool
  // has no place.
  // `Proto`: v1::GenerateRequest or v1::ScoreRequest.
  template <typename Proto>
  bool Parse(const Proto& proto, absl::Time deadline, const Done& done);

 private:
  template <typename Proto>
  absl::StatusOr<Request> ParseNow(const Proto& proto, absl::Time deadline);
  RequestDefaults DrawDefaults();

  const RequestParser& parser_;
  EngineObserver& observer_;
  TaskPool& pool_;
  OnParsed on_parsed_;  // may be null

  absl::Mutex random_mutex_;
  absl::BitGen random_ ABSL_GUARDED_BY(random_mutex_);
};

}  // namespace chorus
