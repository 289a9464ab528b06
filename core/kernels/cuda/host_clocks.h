#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace chorus::device {

// Which events in a simulated block happened before which: vector clocks (Mattern, 1989) on one
// clock of the block. An event of an agent is known to a thread once it was released and the thread
// acquired what it was released to. Agents: the threads; the copies that each thread started and
// did not wait for; and units that copy on their own, into what the async proxy sees.
class HostClocks {
 public:
  using Time = int32_t;
  using Knowledge = std::vector<Time>;  // by agent: its events up to then

  HostClocks(int num_threads, int num_copy_units)
      : num_threads_(num_threads), num_agents_(2 * num_threads + num_copy_units) {}

  int CopiesOf(int thread) const { return num_threads_ + thread; }
  int CopyUnit(int index) const { return 2 * num_threads_ + index; }
  bool IsCopyUnit(int agent) const { return agent >= 2 * num_threads_; }
  std::string NameOf(int agent) const;  // "thread 3"

  int num_threads() const { return num_threads_; }
  Time now() const { return now_; }
  bool Knows(int thread, int agent, Time time) const;
  // Whether all threads have met since.
  bool IsKnownToAll(Time time) const { return time <= everybody_; }

  // All threads meet: everything so far is known to all.
  void MeetAll() { everybody_ = now_++; }
  // What the thread knows, its own events included; later ones are not in it. Nor are copies that
  // it started, unless asked for.
  Knowledge Release(int thread, bool has_copies = false);
  // The same of a copy unit, which knows nothing but what it wrote.
  Knowledge ReleaseCopyUnit(int agent);
  void Acquire(int thread, const Knowledge& knowledge);
  // What the thread knows by now is also seen by the units that it starts (the async proxy). So is
  // what an agent itself did before its own last fence, to those that know of that fence.
  void Fence(int thread);
  bool KnowsFenced(int thread, int agent, Time time) const;
  static void Join(Knowledge& into, const Knowledge& other);

 private:
  struct LastFence {
    Time at = 0, everybody = 0;
    Knowledge known;
  };

  const int num_threads_, num_agents_;
  Time now_ = 1;
  Time everybody_ = 0;             // events up to then are known to all
  std::vector<Knowledge> known_;   // by thread; empty: nothing beyond `everybody_`
  std::vector<LastFence> fences_;  // by thread; empty: none
};

}  // namespace chorus::device
