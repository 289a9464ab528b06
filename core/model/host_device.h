#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "core/kernels/cuda/device_host.h"
#include "core/model/device.h"

namespace chorus {

// A device made of the processor, for tests: memory that begins as NaN and has a limit, kernels on
// simulated thread blocks, products in plain C++. A recorded call keeps its arguments by value and
// is made when its graph is launched, so that a value of the host that was captured by mistake
// shows.
class HostDevice : public Device {
 public:
  explicit HostDevice(int64_t memory_limit = std::numeric_limits<int64_t>::max())
      : memory_limit_(memory_limit) {}

  std::string name() const override { return "host:0"; }
  absl::StatusOr<int64_t> FreeBytes() const override;
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(int64_t num_bytes) override;
  absl::StatusOr<std::unique_ptr<DeviceStream>> CreateStream() override;

  // From here on all work fails, as on a GPU after a fault of its own.
  void Lose() { is_lost_ = true; }
  bool is_lost() const { return is_lost_; }

  // From here on at most so many bytes may be allocated; what is there stays.
  void SetMemoryLimit(int64_t num_bytes);
  // The blocks that are allocated now.
  std::vector<device::HostArray> Arrays() const;

 private:
  class Memory;
  void Forget(const void* data);

  std::atomic<bool> is_lost_{false};
  mutable absl::Mutex mutex_;
  int64_t memory_limit_ ABSL_GUARDED_BY(mutex_);
  int64_t used_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<device::HostArray> arrays_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace chorus
