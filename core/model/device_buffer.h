#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"

#include "core/model/device.h"

namespace chorus {

// Memory on a device that grows to the largest size asked for, by half at least where there is
// room: an allocation takes a hundred times as long as a launch.
class DeviceBuffer {
 public:
  explicit DeviceBuffer(Device& device) : device_(device) {}

  // Makes room for so many bytes; contents are lost. RESOURCE_EXHAUSTED: it then has none.
  // REQUIRES: no work that uses it is under way.
  absl::Status Reserve(int64_t num_bytes) {
    if (num_bytes <= size_) return absl::OkStatus();
    const int64_t roomy_bytes = std::max(num_bytes, size_ + size_ / 2);
    memory_.reset();  // first, so that both never stand side by side
    size_ = 0;
    if (roomy_bytes > num_bytes && Allocate(roomy_bytes).ok()) return absl::OkStatus();
    return Allocate(num_bytes);
  }

  char* data() const { return memory_ == nullptr ? nullptr : static_cast<char*>(memory_->data()); }
  int64_t size() const { return size_; }

 private:
  absl::Status Allocate(int64_t num_bytes) {
    absl::StatusOr<std::unique_ptr<DeviceMemory>> memory = device_.Allocate(num_bytes);
    if (!memory.ok()) return memory.status();
    memory_ = *std::move(memory);
    size_ = num_bytes;
    return absl::OkStatus();
  }

  Device& device_;
  std::unique_ptr<DeviceMemory> memory_;
  int64_t size_ = 0;
};

// Hands out pieces of a block, each at a multiple of 256 bytes from its begin.
class BlockPlacer {
 public:
  static constexpr int64_t kAlignment = 256;

  // Where a piece of so many bytes begins.
  int64_t Place(int64_t num_bytes) {
    const int64_t begin = size_;
    size_ += (num_bytes + kAlignment - 1) / kAlignment * kAlignment;
    return begin;
  }
  int64_t size() const { return size_; }

 private:
  int64_t size_ = 0;
};

}  // namespace chorus
