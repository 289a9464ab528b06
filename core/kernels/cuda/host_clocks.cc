#include "core/kernels/cuda/host_clocks.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace chorus::device {

std::string HostClocks::NameOf(int agent) const {
  if (IsCopyUnit(agent)) return "a box copy";
  if (agent >= num_threads_) return absl::StrCat("a copy of thread ", agent - num_threads_);
  return absl::StrCat("thread ", agent);
}

bool HostClocks::Knows(int thread, int agent, Time time) const {
  if (time <= everybody_ || agent == thread) return true;
  return !known_.empty() && !known_[thread].empty() && known_[thread][agent] >= time;
}

void HostClocks::Fence(int thread) {
  fences_.resize(num_threads_);
  fences_[thread] = {now_++, everybody_, known_.empty() ? Knowledge() : known_[thread]};
}

bool HostClocks::KnowsFenced(int thread, int agent, Time time) const {
  if (fences_.empty()) return false;
  const LastFence& own = fences_[thread];
  if (time <= own.everybody || (agent == thread && time <= own.at)) return true;
  if (!own.known.empty() && own.known[agent] >= time) return true;
  return agent < num_threads_ && time <= fences_[agent].at &&
         Knows(thread, agent, fences_[agent].at);
}

void HostClocks::Join(Knowledge& into, const Knowledge& other) {
  if (into.size() < other.size()) into.resize(other.size());
  for (size_t i = 0; i < other.size(); ++i) into[i] = std::max(into[i], other[i]);
}

HostClocks::Knowledge HostClocks::Release(int thread, bool has_copies) {
  Knowledge knowledge = known_.empty() ? Knowledge() : known_[thread];
  knowledge.resize(num_agents_);
  if (has_copies) knowledge[CopiesOf(thread)] = now_;
  knowledge[thread] = now_++;
  return knowledge;
}

HostClocks::Knowledge HostClocks::ReleaseCopyUnit(int agent) {
  Knowledge knowledge(num_agents_);
  knowledge[agent] = now_++;
  return knowledge;
}

void HostClocks::Acquire(int thread, const Knowledge& knowledge) {
  if (known_.empty()) known_.resize(num_threads_);
  Join(known_[thread], knowledge);
}

}  // namespace chorus::device
