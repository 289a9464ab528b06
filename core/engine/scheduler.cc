#include "core/engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"

namespace chorus {
namespace {

// The prompt rows of one step as they are handed out. What one request has had computed of a shared
// segment, the next one finds there: rows of a step may see each other.
class PromptWork {
 public:
  explicit PromptWork(std::vector<StepWork>* works) : works_(*works) {}

  // Adds up to `budget` rows of the request; returns how many.
  int64_t Add(RunningRequest* request, int64_t budget) {
    const int64_t before = num_rows_;
    for (int32_t i = 0; i < request->num_generations(); ++i) {
      const Generation& generation = request->generation(i);
      if (generation.finished()) continue;
      if (generation.reading()) {
        if (!AddSegments(request, generation, budget - (num_rows_ - before))) break;
        if (!AddOwn(request, i, budget - (num_rows_ - before))) break;
      }
      if (generation.scoring() == nullptr) continue;
      if (!AddContinuations(request, i, budget - (num_rows_ - before))) break;
    }
    return num_rows_ - before;
  }

 private:
  template <typename Visit>  // visit(segment) -> go on?
  static void ForEachUnfilled(const RunningRequest& request, const Generation& generation,
                              const Visit& visit) {
    for (int32_t index : generation.plan().sequence_indexes) {
      const Sequence& sequence = request.sequence(index);
      for (size_t i = 0; i < sequence.plan().uses.size(); ++i) {
        CachedSegment* const segment = sequence.segment(i);
        if (segment == nullptr || segment->filled()) continue;
        if (!visit(*segment)) return;
      }
    }
  }

  // One past its last token that is filled or part of this step.
  int32_t EndOf(const CachedSegment& segment) const {
    const auto planned = planned_ends_.find(&segment);
    return planned == planned_ends_.end() ? segment.num_filled() : planned->second;
  }

  // True if all that the generation's sequences use is filled or part of this step.
  bool AddSegments(RunningRequest* request, const Generation& generation, int64_t budget) {
    bool complete = true;
    ForEachUnfilled(*request, generation, [&](CachedSegment& segment) {
      const int32_t begin = EndOf(segment);
      const int32_t length = static_cast<int32_t>(
          std::min<int64_t>(segment.num_tokens() - begin, std::max<int64_t>(budget, 0)));
      if (length > 0) {
        works_.push_back({.kind = StepWork::Kind::kSegment,
                          .request = request,
                          .segment = &segment,
                          .segment_rows = {begin, begin + length}});
        planned_ends_[&segment] = begin + length;
        budget -= length;
        num_rows_ += length;
      }
      complete = begin + length == segment.num_tokens();
      return complete;
    });
    return complete;
  }

  // True if the generation has nothing more to read after this step. In a second turn it goes on
  // where the first has left it.
  bool AddOwn(RunningRequest* request, int32_t generation_index, int64_t budget) {
    const Generation& generation = request->generation(generation_index);
    StepWork next = {.kind = StepWork::Kind::kOwn,
                     .request = request,
                     .generation_index = generation_index};
    const auto place = own_.find(&generation);
    if (place != own_.end()) next = works_[place->second];
    if (next.num_final_rows > 0) return true;
    const int64_t num_before = next.num_rows();
    const int64_t left = generation.num_early_rows_left() - next.num_early_rows;
    const int64_t early = std::clamp<int64_t>(budget, 0, left);
    next.num_early_rows += early;
    const int64_t num_final = generation.num_final_rows();
    const bool nothing_yet = num_rows_ == 0 && early == 0;
    if (early == left && (num_final <= budget - early || nothing_yet)) {
      next.num_final_rows = num_final;
    }
    const int64_t num_added = next.num_rows() - num_before;
    num_rows_ += num_added;
    if (place != own_.end()) {
      works_[place->second] = next;
    } else if (num_added > 0) {
      own_.emplace(&generation, works_.size());
      works_.push_back(next);
    }
    return early == left && next.num_final_rows == num_final;
  }

  // True if nothing is left of the continuations after this step. As AddOwn, it goes on in a second
  // turn.
  bool AddContinuations(RunningRequest* request, int32_t generation_index, int64_t budget) {
    const Scoring& scoring = *request->generation(generation_index).scoring();
    for (int32_t i = 0; i < scoring.num_continuations(); ++i) {
      TokenRange rows = scoring.RowsLeft(i);
      const auto place = continuations_.find({&scoring, i});
      if (place != continuations_.end()) rows.begin = works_[place->second].continuation_rows.end;
      if (rows.length() == 0) continue;
      StepWork next = {.kind = StepWork::Kind::kScore,
                       .request = request,
                       .generation_index = generation_index,
                       .continuation = i,
                       .continuation_rows = {rows.begin, rows.begin + 1}};
      const int64_t width = next.num_rows();  // of one token
      const bool nothing_yet = num_rows_ == 0;
      const int64_t fitting = std::max<int64_t>(budget / width, nothing_yet ? 1 : 0);
      const auto length = static_cast<int32_t>(std::min<int64_t>(rows.length(), fitting));
      if (length == 0) return false;
      budget -= length * width;
      num_rows_ += length * width;
      next.continuation_rows.end = rows.begin + length;
      if (place != continuations_.end()) {
        works_[place->second].continuation_rows.end = next.continuation_rows.end;
      } else {
        continuations_[{&scoring, i}] = works_.size();
        works_.push_back(next);
      }
      if (length < rows.length()) return false;
    }
    return true;
  }

  std::vector<StepWork>& works_;
  absl::flat_hash_map<const CachedSegment*, int32_t> planned_ends_;
  absl::flat_hash_map<const Generation*, size_t> own_;  // index in works_
  absl::flat_hash_map<std::pair<const Scoring*, int32_t>, size_t> continuations_;  // likewise
  int64_t num_rows_ = 0;
};

bool Reads(const RunningRequest& request) {
  for (int32_t i = 0; i < request.num_generations(); ++i) {
    const Generation& generation = request.generation(i);
    if (!generation.finished() && !generation.decodes()) return true;
  }
  return false;
}

void AddPromptWork(const std::vector<RunningRequest*>& readers, int64_t budget,
                   std::vector<StepWork>* works) {
  PromptWork prompt_work(works);
  int64_t left = budget;
  for (size_t i = 0; i < readers.size() && left > 0; ++i) {
    const bool is_last = i + 1 == readers.size();
    left -= prompt_work.Add(readers[i], is_last ? left : (left + 1) / 2);
  }
  for (size_t i = 0; i < readers.size() && left > 0; ++i) {
    left -= prompt_work.Add(readers[i], left);
  }
}

}  // namespace

int64_t StepWork::num_rows() const {
  switch (kind) {
    case Kind::kSegment:
      return segment_rows.length();
    case Kind::kOwn:
      return num_early_rows + num_final_rows;
    case Kind::kDecode:
    case Kind::kScore:
      const GenerationPlan& plan = request->generation(generation_index).plan();
      const auto num_sequences = static_cast<int64_t>(plan.sequence_indexes.size());
      return kind == Kind::kDecode ? num_sequences : num_sequences * continuation_rows.length();
  }
  return 0;
}

int32_t StepWork::num_choices() const {
  switch (kind) {
    case Kind::kSegment:
      return 0;
    case Kind::kOwn:
      return num_final_rows > 0 ? 1 : 0;
    case Kind::kDecode:
      return 1;
    case Kind::kScore:
      return continuation_rows.length();
  }
  return 0;
}

int64_t Scheduler::AddDecodeWork(absl::Span<RunningRequest* const> requests,
                                 std::vector<StepWork>* works) {
  std::vector<StepWork> ready;
  int64_t num_ready_rows = 0;
  for (RunningRequest* request : requests) {
    for (int32_t i = 0; i < request->num_generations(); ++i) {
      const Generation& generation = request->generation(i);
      if (!generation.decodes()) continue;
      ready.push_back(
          {.kind = StepWork::Kind::kDecode, .request = request, .generation_index = i});
      num_ready_rows += ready.back().num_rows();
    }
  }
  if (num_ready_rows <= options_.max_step_rows) {
    *works = std::move(ready);
    return num_ready_rows;
  }
  int64_t num_rows = 0;
  for (size_t taken = 0; taken < ready.size(); ++taken) {
    const StepWork& work = ready[next_turn_ % ready.size()];
    if (num_rows > 0 && num_rows + work.num_rows() > options_.max_step_rows) break;
    num_rows += work.num_rows();
    works->push_back(work);
    ++next_turn_;
  }
  return num_rows;
}

std::vector<StepWork> Scheduler::PlanStep(absl::Span<RunningRequest* const> requests) {
  std::vector<StepWork> works;
  const int64_t num_decode_rows = AddDecodeWork(requests, &works);
  std::vector<RunningRequest*> readers;
  for (RunningRequest* request : requests) {
    if (Reads(*request)) readers.push_back(request);
  }
  int64_t budget = options_.max_step_rows;
  if (num_decode_rows > 0) {
    const int64_t share = int64_t{options_.prompt_share_rows} *
                          static_cast<int64_t>(readers.size());
    // At least one row, so that decoding never stops reading.
    budget = std::min(std::max<int64_t>(budget - num_decode_rows, 1), share);
  }
  AddPromptWork(readers, budget, &works);
  return works;
}

}  // namespace chorus
