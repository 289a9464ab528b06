#include "core/engine/step_plan_builder.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"

#include "core/base/check.h"

namespace chorus {
namespace {

class Builder {
 public:
  void Add(const StepWork& work);
  StepPlan Take() { return std::move(plan_); }

 private:
  using LogitRow = GenerationPlan::LogitRow;

  // Rows of a sequence that were just added, and the first one's row in the step.
  struct Placed {
    SequenceRows piece;
    int32_t row_begin = 0;
  };

  void AddSegment(const StepWork& work);
  void AddOwn(const StepWork& work);
  void AddDecode(const StepWork& work);
  void AddScore(const StepWork& work);
  static std::vector<int32_t> StepRows(const std::vector<Placed>& placed,
                                       const std::vector<LogitRow>& rows);
  void AddChoice(const Generation& generation, TokenChoice choice);
  void AddMoves(const Sequence& sequence);
  // What rows are read of: a sequence, or a branch that has tokens of its own behind its prompt.
  struct Source {
    const Sequence& sequence;
    absl::Span<const int32_t> branch_token_ids;
    absl::Span<const int32_t> branch_slots;
    const void* owner() const;
  };
  // Returns the step's row of rows.begin.
  int32_t AddRows(const Source& source, TokenRange rows);
  void AddRun(const Source& source, TokenRange rows, const RowIntervals::Run& run);
  void AddToken(const Source& source, int32_t index);
  using Keys = absl::Span<const KeyInterval>;
  // Adds a run's intervals and, if the model has windows, the windowed ones.
  void AddIntervals(Keys keys, const std::optional<Keys>& windowed_keys, int32_t query_end,
                    AttentionRun& run);
  void AddInterval(KeyInterval keys, int32_t query_end);
  int32_t TableBegin(const void* owner, absl::Span<const int32_t> first,
                     absl::Span<const int32_t> second);

  StepPlan plan_;
  absl::flat_hash_map<const void*, int32_t> table_begins_;  // by sequence, branch or segment
  int32_t scaling_ = -1;                                    // of the present work
};

void Builder::Add(const StepWork& work) {
  if (work.kind == StepWork::Kind::kSegment) return AddSegment(work);
  scaling_ = -1;
  if (work.request->plan().sequences.front().scales_segments) {
    scaling_ = static_cast<int32_t>(plan_.attention.scalings.size());
    plan_.attention.scalings.push_back(*work.request->request().fusion.scaling);
  }
  switch (work.kind) {
    case StepWork::Kind::kSegment:
    case StepWork::Kind::kOwn:
      return AddOwn(work);
    case StepWork::Kind::kDecode:
      return AddDecode(work);
    case StepWork::Kind::kScore:
      return AddScore(work);
  }
}

// A segment's tokens see its prefix and themselves, as two intervals: so it gets the same bits
// wherever it is used.
void Builder::AddSegment(const StepWork& work) {
  const CachedSegment& segment = *work.segment;
  const TokenRange rows = work.segment_rows;
  const CachedSegment* const prefix = segment.prefix();
  const int32_t prefix_length = prefix == nullptr ? 0 : prefix->num_tokens();
  AttentionPlan& attention = plan_.attention;
  AttentionRun added;
  added.row_begin = plan_.num_rows();
  added.row_end = added.row_begin + rows.length();
  added.query_begin = prefix_length + rows.begin;
  added.table_begin = TableBegin(
      &segment, prefix == nullptr ? absl::Span<const int32_t>() : prefix->slots(), segment.slots());
  added.position_begin = segment.begin_position() + rows.begin;
  const KeyInterval keys[] = {
      {0, prefix_length},
      {prefix_length, prefix_length + segment.num_tokens(), /*is_segment=*/false,
       /*position_shift=*/segment.begin_position() - prefix_length}};
  const bool has_windows = work.request->plan().has_windows;
  AddIntervals(keys, has_windows ? std::optional<Keys>(keys) : std::nullopt,
               prefix_length + rows.end, added);
  attention.runs.push_back(added);
  for (int32_t i = rows.begin; i < rows.end; ++i) {
    plan_.token_ids.push_back(segment.token_ids()[i]);
    plan_.positions.push_back(segment.begin_position() + i);
    plan_.slots.push_back(segment.slots()[i]);
  }
}

void Builder::AddDecode(const StepWork& work) {
  const Generation& generation = work.request->generation(work.generation_index);
  const GenerationPlan& plan = generation.plan();
  TokenChoice choice = generation.NextChoice();
  std::vector<int32_t> rows;
  for (int32_t index : plan.sequence_indexes) {
    const Sequence& sequence = work.request->sequence(index);
    const int32_t last = sequence.num_tokens() - 1;
    rows.push_back(AddRows({sequence}, {last, last + 1}));
  }
  const auto companions = rows.begin() + plan.num_combined();
  choice.rows.assign(rows.begin(), companions);
  if (!plan.first_compared_rows.empty()) {
    choice.compared_rows.assign(plan.num_companions > 0 ? companions : rows.begin(), rows.end());
  }
  AddChoice(generation, std::move(choice));
}

void Builder::AddScore(const StepWork& work) {
  const Generation& generation = work.request->generation(work.generation_index);
  const GenerationPlan& plan = generation.plan();
  const Scoring& scoring = *generation.scoring();
  const TokenRange of = work.continuation_rows;
  std::vector<int32_t> row_begins;  // by sequence
  for (size_t i = 0; i < plan.sequence_indexes.size(); ++i) {
    const Sequence& sequence = work.request->sequence(plan.sequence_indexes[i]);
    const int32_t begin = sequence.prompt_length();
    row_begins.push_back(AddRows({.sequence = sequence,
                                  .branch_token_ids = scoring.token_ids(work.continuation),
                                  .branch_slots = scoring.slots(work.continuation, i)},
                                 {begin + of.begin, begin + of.end}));
  }
  for (int32_t k = 0; k < of.length(); ++k) {
    TokenChoice choice = generation.ScoringChoice(work.continuation, of.begin + k + 1);
    std::vector<int32_t> rows;
    for (const int32_t begin : row_begins) rows.push_back(begin + k);
    const auto companions = rows.begin() + plan.num_combined();
    choice.rows.assign(rows.begin(), companions);
    if (!plan.first_compared_rows.empty()) {
      choice.target_rows.assign(plan.num_companions > 0 ? companions : rows.begin(), rows.end());
    }
    AddChoice(generation, std::move(choice));
  }
}

void Builder::AddOwn(const StepWork& work) {
  const Generation& generation = work.request->generation(work.generation_index);
  for (int32_t index : generation.plan().sequence_indexes) AddMoves(work.request->sequence(index));
  int64_t skip = generation.num_early_rows_done();
  int64_t left = work.num_early_rows;
  for (const SequenceRows& piece : generation.early_rows()) {
    const int64_t skipped = std::min<int64_t>(skip, piece.rows.length());
    skip -= skipped;
    const int64_t taken = std::min<int64_t>(left, piece.rows.length() - skipped);
    left -= taken;
    const int32_t begin = piece.rows.begin + static_cast<int32_t>(skipped);
    AddRows({work.request->sequence(piece.sequence_index)},
            {begin, begin + static_cast<int32_t>(taken)});
  }
  CHECK(left == 0);
  if (work.num_final_rows == 0) return;

  std::vector<Placed> placed;
  for (const SequenceRows& piece : generation.plan().final_rows) {
    placed.push_back({piece, AddRows({work.request->sequence(piece.sequence_index)}, piece.rows)});
  }
  TokenChoice choice = generation.NextChoice();
  choice.rows = StepRows(placed, generation.plan().first_rows);
  (generation.scoring() != nullptr ? choice.target_rows : choice.compared_rows) =
      StepRows(placed, generation.plan().first_compared_rows);
  AddChoice(generation, std::move(choice));
}

// Rows of the step, each of which is one of `placed`.
std::vector<int32_t> Builder::StepRows(const std::vector<Placed>& placed,
                                       const std::vector<LogitRow>& rows) {
  std::vector<int32_t> step_rows;
  for (const LogitRow& wanted : rows) {
    const auto holds = [&](const Placed& p) {
      return p.piece.sequence_index == wanted.sequence_index && wanted.row >= p.piece.rows.begin &&
             wanted.row < p.piece.rows.end;
    };
    const auto found = std::find_if(placed.begin(), placed.end(), holds);
    CHECK(found != placed.end());
    step_rows.push_back(found->row_begin + wanted.row - found->piece.rows.begin);
  }
  return step_rows;
}

void Builder::AddChoice(const Generation& generation, TokenChoice choice) {
  if (generation.num_probes() > 0) {
    for (int32_t row : choice.rows) plan_.probes.push_back(generation.NextProbe(row));
  }
  plan_.choices.push_back(std::move(choice));
}

void Builder::AddMoves(const Sequence& sequence) {
  if (!sequence.needs_moves()) return;
  for (size_t i = 0; i < sequence.plan().uses.size(); ++i) {
    const SegmentUse& use = sequence.plan().uses[i];
    if (use.moved_by == 0) continue;
    const std::vector<int32_t>& from = sequence.segment(i)->slots();
    for (int32_t k = 0; k < use.tokens.length(); ++k) {
      plan_.attention.moves.push_back(
          {from[k], sequence.SlotAt(use.tokens.begin + k), use.moved_by});
    }
  }
}

// Runs are cut where the key intervals change and where the
// fused rows begin, as scaling applies from there.
int32_t Builder::AddRows(const Source& source, TokenRange rows) {
  const Sequence& sequence = source.sequence;
  const int32_t row_begin = plan_.num_rows();
  const int32_t original_length = sequence.plan().layout.original_length();
  for (int32_t begin = rows.begin; begin < rows.end;) {
    const RowIntervals::Run& run = sequence.row_intervals().RunOf(begin);
    int32_t end = std::min(rows.end, run.rows.end);
    if (begin < original_length) end = std::min(end, original_length);
    AddRun(source, {begin, end}, run);
    begin = end;
  }
  return row_begin;
}

void Builder::AddRun(const Source& source, TokenRange rows, const RowIntervals::Run& run) {
  const Sequence& sequence = source.sequence;
  AttentionPlan& attention = plan_.attention;
  AttentionRun added;
  added.row_begin = plan_.num_rows();
  added.row_end = added.row_begin + rows.length();
  added.query_begin = rows.begin;
  added.table_begin = TableBegin(source.owner(), sequence.slots(), source.branch_slots);
  added.position_begin = sequence.PositionAt(rows.begin);
  const RowIntervals* const windowed = sequence.windowed_intervals();
  std::optional<Keys> windowed_keys;
  if (windowed != nullptr) windowed_keys = windowed->RunOf(rows.begin).keys;
  AddIntervals(run.keys, windowed_keys, rows.end, added);
  added.is_fused = rows.begin >= sequence.plan().layout.original_length();
  if (added.is_fused && sequence.plan().scales_segments) added.scaling = scaling_;
  attention.runs.push_back(added);
  for (int32_t index = rows.begin; index < rows.end; ++index) AddToken(source, index);
}

void Builder::AddToken(const Source& source, int32_t index) {
  const Sequence& sequence = source.sequence;
  plan_.positions.push_back(sequence.PositionAt(index));
  if (source.branch_slots.empty()) {
    plan_.token_ids.push_back(sequence.TokenAt(index));
    plan_.slots.push_back(sequence.SlotAt(index));
  } else {
    plan_.token_ids.push_back(source.branch_token_ids[index - sequence.prompt_length()]);
    plan_.slots.push_back(source.branch_slots[index - sequence.prompt_length()]);
  }
}

const void* Builder::Source::owner() const {
  return branch_slots.empty() ? static_cast<const void*>(&sequence) : branch_slots.data();
}

void Builder::AddIntervals(Keys keys, const std::optional<Keys>& windowed_keys, int32_t query_end,
                           AttentionRun& run) {
  const std::vector<KeyInterval>& intervals = plan_.attention.intervals;
  // Keys that no position jump cuts need no list of their own.
  const bool is_shared = windowed_keys.has_value() && windowed_keys->size() == keys.size();
  run.interval_begin = static_cast<int32_t>(intervals.size());
  for (const KeyInterval& each : is_shared ? *windowed_keys : keys) AddInterval(each, query_end);
  run.interval_end = static_cast<int32_t>(intervals.size());
  if (!windowed_keys.has_value()) return;
  run.windowed_begin = is_shared ? run.interval_begin : run.interval_end;
  if (!is_shared) {
    for (const KeyInterval& each : *windowed_keys) AddInterval(each, query_end);
  }
  run.windowed_end = static_cast<int32_t>(intervals.size());
}

// Clipped to what the run's last row sees.
void Builder::AddInterval(KeyInterval keys, int32_t query_end) {
  keys.end = std::min(keys.end, query_end);
  if (keys.begin < keys.end) plan_.attention.intervals.push_back(keys);
}

int32_t Builder::TableBegin(const void* owner, absl::Span<const int32_t> first,
                            absl::Span<const int32_t> second) {
  std::vector<int32_t>& table = plan_.attention.slot_table;
  const auto [it, inserted] = table_begins_.try_emplace(owner, static_cast<int32_t>(table.size()));
  if (inserted) {
    table.insert(table.end(), first.begin(), first.end());
    table.insert(table.end(), second.begin(), second.end());
  }
  return it->second;
}

}  // namespace

StepPlan BuildStepPlan(absl::Span<const StepWork> works) {
  Builder builder;
  for (const StepWork& work : works) builder.Add(work);
  return builder.Take();
}

}  // namespace chorus
