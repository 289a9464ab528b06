#include "core/kernels/cuda/host_shared_memory.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace chorus::device {
namespace {

std::string NameOf(int writer, const HostClocks& clocks) {
  return writer < 0 ? "several threads" : clocks.NameOf(writer);
}

}  // namespace

HostSharedMemory::HostSharedMemory(int32_t size, const HostClocks& clocks)
    : clocks_(clocks),
      num_warps_(clocks.num_threads() / kWarpSize),
      bytes_(size, 0xFF),
      words_((size + kWordBytes - 1) / kWordBytes),
      last_reads_(words_.size() * num_warps_) {}

void HostSharedMemory::CheckRange(SharedAddress at, int32_t size) const {
  if (at % std::min(size, 16) != 0) {
    throw HostFault{absl::StrCat("shared address ", at, " is not aligned to ", size, " bytes")};
  }
  if (at + int64_t{size} > static_cast<int64_t>(bytes_.size())) {
    throw HostFault{absl::StrCat("shared address ", at, " + ", size, " is outside the block's ",
                                 bytes_.size(), " bytes")};
  }
}

bool HostSharedMemory::KnowsWrite(const Word& word, int thread) const {
  if (word.writer == kAdders) return clocks_.IsKnownToAll(word.write_time);
  return clocks_.Knows(thread, word.writer, word.write_time);
}

void HostSharedMemory::CheckRead(int64_t i, int thread) const {
  const Word& word = words_[i];
  if (word.is_in_flight) {
    throw HostFault{absl::StrCat("reads shared word ", i, ", to which a copy is under way")};
  }
  if (!word.is_written) throw HostFault{absl::StrCat("reads shared word ", i, ", never written")};
  if (!KnowsWrite(word, thread)) {
    throw HostFault{absl::StrCat("reads shared word ", i, ", which ", NameOf(word.writer, clocks_),
                                 " wrote since the last barrier")};
  }
}

void HostSharedMemory::CheckFence(int64_t i, int thread) const {
  const Word& word = words_[i];
  if (clocks_.IsCopyUnit(word.writer)) return;
  if (word.writer == kAdders || !clocks_.KnowsFenced(thread, word.writer, word.write_time)) {
    throw HostFault{absl::StrCat("a wgmma reads shared word ", i, ", and there is no proxy fence ",
                                 "since ", NameOf(word.writer, clocks_), " wrote it")};
  }
}

bool HostSharedMemory::KnowsReads(int64_t i, int thread) const {
  for (int warp = 0; warp < num_warps_; ++warp) {
    const LastRead& read = last_reads_[i * num_warps_ + warp];
    if (read.reader != kMany) {
      if (!clocks_.Knows(thread, read.reader, read.time)) return false;
      continue;
    }
    const auto& times = reads_of_lanes_.at(i * num_warps_ + warp);
    for (int lane = 0; lane < kWarpSize; ++lane) {
      if (!clocks_.Knows(thread, warp * kWarpSize + lane, times[lane])) return false;
    }
  }
  return true;
}

void HostSharedMemory::CheckWrite(int64_t i, int thread) const {
  const Word& word = words_[i];
  if (!KnowsReads(i, thread)) {
    throw HostFault{
        absl::StrCat("writes shared word ", i, ", which others read since the last barrier")};
  }
  if (word.num_reads_under_way > 0) {
    throw HostFault{absl::StrCat("writes shared word ", i, ", which a wgmma under way reads")};
  }
  if (word.is_in_flight) {
    throw HostFault{absl::StrCat("writes shared word ", i, ", to which a copy is under way")};
  }
  if (word.is_written && !KnowsWrite(word, thread)) {
    throw HostFault{absl::StrCat("writes shared word ", i, ", which ", NameOf(word.writer, clocks_),
                                 " wrote since the last barrier")};
  }
}

// Of what the word held before a write that happened after them.
void HostSharedMemory::ForgetReads(int64_t i) {
  for (int64_t index = i * num_warps_; index < (i + 1) * num_warps_; ++index) {
    if (last_reads_[index].reader == kMany) reads_of_lanes_.erase(index);
    last_reads_[index] = {};
  }
}

void HostSharedMemory::NoteRead(int64_t i, int thread) {
  const int64_t index = i * num_warps_ + thread / kWarpSize;
  LastRead& read = last_reads_[index];
  const int lane = thread % kWarpSize;
  if (read.reader == kMany) {
    reads_of_lanes_[index][lane] = clocks_.now();
  } else if (read.reader == thread || clocks_.Knows(thread, read.reader, read.time)) {
    read = {thread, clocks_.now()};
  } else {
    auto& times = reads_of_lanes_[index];
    times[read.reader % kWarpSize] = read.time;
    times[lane] = clocks_.now();
    read.reader = kMany;
  }
}

void HostSharedMemory::Read(SharedAddress from, void* to, int32_t size, int thread) {
  ForWords(from, size, [&](int64_t i) {
    CheckRead(i, thread);
    NoteRead(i, thread);
  });
  std::memcpy(to, bytes_.data() + from, size);
}

void HostSharedMemory::Write(SharedAddress to, const void* from, int32_t size, int thread) {
  BeginCopy(to, size, thread, thread);
  EndCopy(to, from, size, thread);
}

bool HostSharedMemory::AreReadsKnownToAll(int64_t i) const {
  for (int warp = 0; warp < num_warps_; ++warp) {
    const LastRead& read = last_reads_[i * num_warps_ + warp];
    if (read.reader != kMany) {
      if (read.reader != kNobody && !clocks_.IsKnownToAll(read.time)) return false;
      continue;
    }
    for (const HostClocks::Time time : reads_of_lanes_.at(i * num_warps_ + warp)) {
      if (!clocks_.IsKnownToAll(time)) return false;
    }
  }
  return true;
}

uint64_t HostSharedMemory::Add(SharedAddress to, uint64_t value, int32_t size) {
  ForWords(to, size, [&](int64_t i) {
    Word& word = words_[i];
    if (!word.is_written || word.is_in_flight) {
      throw HostFault{absl::StrCat("adds to shared word ", i, ", which holds no value yet")};
    }
    const bool was_added = word.writer == kAdders;
    if (!AreReadsKnownToAll(i) || (!was_added && !clocks_.IsKnownToAll(word.write_time))) {
      throw HostFault{
          absl::StrCat("adds to shared word ", i, ", read or written since the last barrier")};
    }
    ForgetReads(i);
    word.writer = kAdders;
    word.write_time = clocks_.now();
  });
  uint64_t before = 0;  // the machine is little-endian, as the device
  std::memcpy(&before, bytes_.data() + to, size);
  const uint64_t after = before + value;
  std::memcpy(bytes_.data() + to, &after, size);
  return before;
}

void HostSharedMemory::BeginCopy(SharedAddress to, int32_t size, int thread, int agent) {
  ForWords(to, size, [&](int64_t i) {
    CheckWrite(i, thread);
    ForgetReads(i);
    Word& word = words_[i];
    word.writer = agent;
    word.write_time = clocks_.now();
    word.is_written = word.is_in_flight = true;
  });
  std::memset(bytes_.data() + to, 0xFF, size);
}

void HostSharedMemory::EndCopy(SharedAddress to, const void* from, int32_t size, int waited) {
  ForWords(to, size, [&](int64_t i) {
    Word& word = words_[i];
    word.is_in_flight = false;
    if (waited == kNobody) return;
    word.writer = waited;
    word.write_time = clocks_.now();
  });
  std::memcpy(bytes_.data() + to, from, size);
}

void HostSharedMemory::BeginRead(SharedAddress from, void* to, int32_t size, int first_thread) {
  ForWords(from, size, [&](int64_t i) {
    for (int warp = 0; warp < 4; ++warp) {
      CheckRead(i, first_thread + warp * kWarpSize);
      CheckFence(i, first_thread + warp * kWarpSize);
      NoteRead(i, first_thread + warp * kWarpSize);
    }
    ++words_[i].num_reads_under_way;
  });
  std::memcpy(to, bytes_.data() + from, size);
}

void HostSharedMemory::ExtendRead(SharedAddress from, int32_t size, int thread) {
  ForWords(from, size, [&](int64_t i) { NoteRead(i, thread); });
}

void HostSharedMemory::EndRead(SharedAddress from, int32_t size) {
  ForWords(from, size, [&](int64_t i) { --words_[i].num_reads_under_way; });
}

}  // namespace chorus::device
