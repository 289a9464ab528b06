#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "core/model/device.h"

namespace chorus {

// The matrix products that share one algorithm.
struct LinearShape {
  RowKind kind = RowKind::kOwn;
  DeviceType type = DeviceType::kBFloat16;
  int32_t in_size = 0;
  int32_t out_size = 0;
  bool is_output_float32 = false;

  auto operator<=>(const LinearShape&) const = default;
};

// How a product of some shape and number of rows is computed: always by the shape's algorithm, at
// most `max_rows` rows at a time.
struct LinearPlan {
  cublasLtMatmulAlgo_t algorithm;
  int32_t max_rows = 0;
};

// The algorithms of one device. cuBLASLt's own choice depends on the number of rows, and with it
// the order of a row's sums, that is its bits. So it is asked once a shape, and its choice is kept
// for every number of rows. Thread-safe.
class LinearAlgorithms {
 public:
  // Memory that an algorithm may use beside its matrices. It is asked for by what NVIDIA recommends
  // for Hopper, 32 MiB; where sums are split among blocks more rows take more, and rows that do not
  // fit read the weight once more.
  static constexpr int64_t kPreferredWorkspaceBytes = 32 << 20;
  static constexpr int64_t kWorkspaceBytes = 128 << 20;

  // INTERNAL: cuBLASLt has no algorithm for the shape.
  absl::StatusOr<LinearPlan> Plan(cublasLtHandle_t handle, const LinearShape& shape,
                                  int32_t num_rows);

  // From now on the shape's algorithm is the one with `index` better ones. False if there are not
  // so many, or Plan was not called for the shape yet: nothing changes then. REQUIRES: no graph
  // holds an algorithm of the shape.
  bool Take(const LinearShape& shape, size_t index);

 private:
  struct Choice {
    std::vector<cublasLtMatmulAlgo_t> candidates;  // best first
    size_t taken = 0;
    std::map<int32_t, int32_t> max_rows;  // by number of rows; at most one entry for each
  };

  absl::Mutex mutex_;
  std::map<LinearShape, Choice> choices_ ABSL_GUARDED_BY(mutex_);
};

// Products on one stream. Used by one thread; algorithms and stream outlive it.
class CudaLinear {
 public:
  // `workspace`: kWorkspaceBytes of device memory that nothing else on the device uses. The
  // stream's device is the thread's current one, here and in Run.
  static absl::StatusOr<std::unique_ptr<CudaLinear>> Create(LinearAlgorithms* algorithms,
                                                            cudaStream_t stream, void* workspace);
  ~CudaLinear();
  CudaLinear(const CudaLinear&) = delete;
  CudaLinear& operator=(const CudaLinear&) = delete;

  // As DeviceStream::Linear.
  absl::Status Run(const DeviceLinearArgs& args);

  LinearAlgorithms& algorithms() { return *algorithms_; }

 private:
  CudaLinear(LinearAlgorithms* algorithms, cublasLtHandle_t handle, cudaStream_t stream,
             void* workspace)
      : algorithms_(algorithms), handle_(handle), stream_(stream), workspace_(workspace) {}

  LinearAlgorithms* const algorithms_;
  const cublasLtHandle_t handle_;
  const cudaStream_t stream_;
  void* const workspace_;
};

// The shape of a product.
LinearShape ShapeOf(const DeviceLinearArgs& args);

}  // namespace chorus
