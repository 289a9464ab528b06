#include "core/engine/worker.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace chorus {
namespace {

// How often a worker without work shows that it lives.
constexpr absl::Duration kIdleWait = absl::Seconds(1);
// How often a worker whose readers are all behind looks whether one has caught up: TokenSink tells
// nobody when WantsMore turns true.
constexpr absl::Duration kPausedWait = absl::Milliseconds(2);

}  // namespace

Worker::Worker(int32_t index, std::unique_ptr<ModelRunner> runner, const WorkerContext& context)
    : index_(index),
      context_(context),
      runner_(std::move(runner)),
      inbox_(context_.options->priority_ageing),
      last_progress_nanos_(absl::ToUnixNanos(context_.clock->Now())) {
  thread_ = std::thread([this] { ThreadMain(); });
}

Worker::~Worker() {
  EndAll(absl::StatusCode::kCancelled);
  stopping_ = true;
  inbox_.queue.Wake();
  thread_.join();
}

void Worker::Enqueue(std::unique_ptr<PendingRequest> pending) {
  // An idle worker's heartbeat may be old: the clock of liveness starts with its work.
  if (inbox_.outstanding_rows == 0) {
    last_progress_nanos_ = absl::ToUnixNanos(context_.clock->Now());
  }
  inbox_.outstanding_rows += pending->plan.num_slots;
  inbox_.queue.Push(std::move(pending));
}

void Worker::EndAll(absl::StatusCode code) {
  ending_code_ = code;
  inbox_.queue.Wake();
}

absl::Status Worker::CheckLive(absl::Time now, absl::Duration limit) const {
  if (is_lost()) return inbox_.Loss();
  if (inbox_.outstanding_rows == 0) return absl::OkStatus();
  const absl::Duration since = now - absl::FromUnixNanos(last_progress_nanos_);
  if (since <= limit) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("it has made no step for ", absl::FormatDuration(since)));
}

void Worker::ThreadMain() {
  Batch batch(index_, runner_.get(), context_, &inbox_);
  while (true) {
    if (!is_lost()) Beat();
    const bool stopping = stopping_;  // before RunOnce, which then ends all there ever was
    const absl::Status ending =
        is_lost() ? inbox_.Loss() : absl::Status(ending_code_, "the server stops");
    const Batch::Progress progress = batch.RunOnce(ending);
    if (stopping) return;
    if (progress == Batch::Progress::kIdle) {
      inbox_.queue.WaitForChange(kIdleWait);
    } else if (progress == Batch::Progress::kPaused) {
      inbox_.queue.WaitForChange(kPausedWait);
    }
  }
}

void Worker::Beat() {
  const absl::Time now = context_.clock->Now();
  last_progress_nanos_ = absl::ToUnixNanos(now);
  context_.observer->OnHeartbeat(index_, now);
}

}  // namespace chorus
