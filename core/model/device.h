#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "core/kernels/cuda/device_kernels.h"

namespace chorus {

// Rows of a step by what they see. Matrix products and attention have a way of their own for each,
// so that a row is computed in the same way, to the same bits, whatever shares its batch.
enum class RowKind {
  kOwn,    // of prefixes and segments: many at once, once
  kFused,  // they see everything, suffix and generated: few at once, every step
};

// y = x W^T. Both of `type`, sums in float32.
struct DeviceLinearArgs {
  RowKind kind = RowKind::kOwn;
  DeviceType type = DeviceType::kBFloat16;
  const void* x = nullptr;       // [num_rows, in_size]
  const void* weight = nullptr;  // [out_size, in_size]
  void* y = nullptr;             // [num_rows, out_size], of `type`, or float32
  int32_t num_rows = 0;
  int32_t in_size = 0;   // a multiple of 8
  int32_t out_size = 0;  // a multiple of 8 unless y is float32
  bool is_output_float32 = false;
};

// Work that was recorded once and can be done again: the same kernels on the same pointers. Its
// contents are read when it runs.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
};

// A queue of work on a device, done in order. Used by one thread. An error of work may come from
// any later call.
class DeviceStream {
 public:
  virtual ~DeviceStream() = default;

  virtual DeviceKernels& kernels() = 0;

  // A row of y depends on its row of x, the weight and the kind only, bit for bit.
  virtual absl::Status Linear(const DeviceLinearArgs& args) = 0;

  // Host memory to device memory. `from` may be reused at once. Not to be recorded.
  virtual absl::Status Upload(void* to, const void* from, int64_t num_bytes) = 0;
  // Device memory to host memory; waits until all work before it is done and `to` is filled.
  virtual absl::Status Download(void* to, const void* from, int64_t num_bytes) = 0;
  // UNAVAILABLE: the device is lost, nothing can be done on it any more; said every time.
  virtual absl::Status Wait() = 0;

  // Between the two calls work is recorded, not done. It must have been done once before, and
  // meanwhile this thread allocates and frees no device memory, copies nothing and does not wait.
  virtual absl::Status BeginRecording() = 0;
  virtual absl::StatusOr<std::unique_ptr<DeviceGraph>> EndRecording() = 0;
  virtual absl::Status Launch(DeviceGraph& graph) = 0;
};

// Memory on a device, freed with it; then no work that uses it may be under way.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  virtual void* data() const = 0;  // a multiple of 256
};

// A device that models run on: its memory, and streams of work. Thread-safe; outlives what it gave.
class Device {
 public:
  virtual ~Device() = default;

  virtual std::string name() const = 0;  // "cuda:0"
  // Bytes that could be allocated now.
  virtual absl::StatusOr<int64_t> FreeBytes() const = 0;
  // Contents are undefined. RESOURCE_EXHAUSTED, saying how much was wanted and is free.
  virtual absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(int64_t num_bytes) = 0;
  virtual absl::StatusOr<std::unique_ptr<DeviceStream>> CreateStream() = 0;
};

}  // namespace chorus
