#include "core/model/host_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/kernels/bfloat16.h"
#include "core/kernels/cuda/host_kernels.h"

namespace chorus {
namespace {

constexpr int64_t kAlignment = 256;

class HostGraph : public DeviceGraph {
 public:
  explicit HostGraph(std::vector<HostKernels::Work> work) : work_(std::move(work)) {}
  const std::vector<HostKernels::Work>& work() const { return work_; }

 private:
  const std::vector<HostKernels::Work> work_;
};

// Sums of the two kinds of rows are in different orders, as a device's may be.
float Dot(RowKind kind, const uint16_t* x, const uint16_t* w, int32_t size) {
  const int num_chunks = kind == RowKind::kOwn ? 1 : 4;
  float total = 0.0f;
  for (int chunk = 0; chunk < num_chunks; ++chunk) {
    float sum = 0.0f;
    for (int32_t i = size * chunk / num_chunks; i < size * (chunk + 1) / num_chunks; ++i) {
      sum += FloatFromBFloat16(x[i]) * FloatFromBFloat16(w[i]);
    }
    total += sum;
  }
  return total;
}

absl::Status RunLinear(const DeviceLinearArgs& args) {
  if (args.type != DeviceType::kBFloat16) return absl::UnimplementedError("bfloat16 products only");
  const auto* x = static_cast<const uint16_t*>(args.x);
  const auto* weight = static_cast<const uint16_t*>(args.weight);
  for (int64_t row = 0; row < args.num_rows; ++row) {
    for (int64_t i = 0; i < args.out_size; ++i) {
      const float sum =
          Dot(args.kind, x + row * args.in_size, weight + i * args.in_size, args.in_size);
      const int64_t at = row * args.out_size + i;
      if (args.is_output_float32) {
        static_cast<float*>(args.y)[at] = sum;
      } else {
        static_cast<uint16_t*>(args.y)[at] = BFloat16FromFloat(sum);
      }
    }
  }
  return absl::OkStatus();
}

class HostStream : public DeviceStream {
 public:
  explicit HostStream(const HostDevice& device)
      : device_(device),
        kernels_([this](HostKernels::Work work) { return Submit(std::move(work)); },
                 [&device] { return device.Arrays(); }) {}

  DeviceKernels& kernels() override { return kernels_; }

  absl::Status Linear(const DeviceLinearArgs& args) override {
    return Submit([args] { return RunLinear(args); });
  }
  absl::Status Upload(void* to, const void* from, int64_t num_bytes) override {
    return Copy(to, from, num_bytes);
  }
  absl::Status Download(void* to, const void* from, int64_t num_bytes) override {
    return Copy(to, from, num_bytes);
  }
  absl::Status Wait() override {
    if (device_.is_lost()) return absl::UnavailableError("the device is lost");
    return is_recording_ ? absl::InternalError("waits while recording") : absl::OkStatus();
  }

  absl::Status BeginRecording() override {
    is_recording_ = true;
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<DeviceGraph>> EndRecording() override {
    is_recording_ = false;
    return std::make_unique<HostGraph>(std::exchange(recorded_, {}));
  }
  absl::Status Launch(DeviceGraph& graph) override {
    for (const HostKernels::Work& work : static_cast<HostGraph&>(graph).work()) {
      CHORUS_RETURN_IF_ERROR(work());
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Submit(HostKernels::Work work) {
    if (device_.is_lost()) return absl::InternalError("a call after the device was lost");
    if (!is_recording_) return work();
    recorded_.push_back(std::move(work));
    return absl::OkStatus();
  }
  absl::Status Copy(void* to, const void* from, int64_t num_bytes) {
    if (is_recording_) return absl::InternalError("copies while recording");
    if (num_bytes > 0) std::memcpy(to, from, num_bytes);
    return absl::OkStatus();
  }

  const HostDevice& device_;
  HostKernels kernels_;
  bool is_recording_ = false;
  std::vector<HostKernels::Work> recorded_;
};

}  // namespace

class HostDevice::Memory : public DeviceMemory {
 public:
  Memory(HostDevice* device, void* data) : device_(device), data_(data) {}
  ~Memory() override {
    device_->Forget(data_);
    std::free(data_);
  }
  void* data() const override { return data_; }

 private:
  HostDevice* const device_;
  void* const data_;
};

absl::StatusOr<int64_t> HostDevice::FreeBytes() const {
  absl::MutexLock lock(&mutex_);
  return std::max<int64_t>(0, memory_limit_ - used_bytes_);
}

absl::StatusOr<std::unique_ptr<DeviceMemory>> HostDevice::Allocate(int64_t num_bytes) {
  absl::MutexLock lock(&mutex_);
  if (num_bytes > memory_limit_ - used_bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        name(), ": ", num_bytes, " bytes are wanted and ", memory_limit_ - used_bytes_, " free"));
  }
  const int64_t rounded = (std::max<int64_t>(1, num_bytes) + kAlignment - 1) / kAlignment;
  void* const data = std::aligned_alloc(kAlignment, rounded * kAlignment);
  if (data == nullptr) return absl::ResourceExhaustedError(absl::StrCat(name(), ": out of memory"));
  std::memset(data, 0xFF, rounded * kAlignment);  // NaN in every type
  arrays_.push_back({data, num_bytes, /*is_writable=*/true});
  used_bytes_ += num_bytes;
  return std::make_unique<Memory>(this, data);
}

absl::StatusOr<std::unique_ptr<DeviceStream>> HostDevice::CreateStream() {
  return std::make_unique<HostStream>(*this);
}

void HostDevice::SetMemoryLimit(int64_t num_bytes) {
  absl::MutexLock lock(&mutex_);
  memory_limit_ = num_bytes;
}

std::vector<device::HostArray> HostDevice::Arrays() const {
  absl::MutexLock lock(&mutex_);
  return arrays_;
}

void HostDevice::Forget(const void* data) {
  absl::MutexLock lock(&mutex_);
  const auto at = std::find_if(arrays_.begin(), arrays_.end(),
                               [&](const device::HostArray& array) { return array.data == data; });
  used_bytes_ -= at->size;
  arrays_.erase(at);
}

}  // namespace chorus
