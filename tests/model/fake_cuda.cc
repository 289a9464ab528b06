#include "tests/model/fake_cuda.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "core/kernels/bfloat16.h"
#include "core/kernels/cuda/attention_probes_cuda.h"
#include "core/kernels/cuda/elementwise_cuda.h"
#include "core/kernels/cuda/sampling_cuda.h"
#include "core/kernels/cuda/segment_attention_cuda.h"

namespace chorus {
namespace fake_cuda {
namespace {

struct State {
  std::vector<Algorithm> algorithms;
  std::vector<Product> products;
  std::deque<std::function<void()>> work;  // of the one stream, not done yet
  int64_t num_queued = 0;                  // ever
  std::map<void*, int64_t> pinned;
  bool is_capturing = false;
};

State& Global() {
  static State state;
  return state;
}

void Queue(std::function<void()> work) {
  Global().work.push_back(std::move(work));
  ++Global().num_queued;
}

// All work but the last `num_left`.
void DoWork(int64_t num_left) {
  std::deque<std::function<void()>>& work = Global().work;
  while (static_cast<int64_t>(work.size()) > num_left) {
    work.front()();
    work.pop_front();
  }
}

}  // namespace

void Reset(std::vector<Algorithm> algorithms) {
  Global() = {};
  Global().algorithms = std::move(algorithms);
}

const std::vector<Product>& Products() { return Global().products; }

int64_t PinnedBytes() {
  int64_t bytes = 0;
  for (const auto& [data, num_bytes] : Global().pinned) bytes += num_bytes;
  return bytes;
}

}  // namespace fake_cuda

using fake_cuda::Global;

// Kernels are not tested here.
bool CudaAttentionTakes(const AttentionShape&) { return true; }
cudaError_t FindCudaAttentionKind(int, CudaAttentionKind&) { return cudaSuccess; }
TileShape CudaOwnTileShape(const AttentionShape&, CudaAttentionKind) { return {}; }
TileShape CudaFusedTileShape(const AttentionShape&) { return {}; }
int64_t AttentionWorkspaceFloats(const AttentionShape&, int32_t) { return 0; }
cudaError_t LaunchSegmentAttention(const DeviceAttentionArgs&, CudaAttentionKind, cudaStream_t) {
  return cudaSuccess;
}
bool CudaPlainAttentionTakes(const AttentionShape&) { return true; }
TileShape CudaPlainTileShape() { return {}; }
cudaError_t LaunchPlainAttention(const DeviceAttentionArgs&, const DeviceTiles&, cudaStream_t) {
  return cudaSuccess;
}
cudaError_t LaunchReduceProbes(const DeviceProbes&, int32_t, cudaStream_t) { return cudaSuccess; }
cudaError_t LaunchMeanProbes(const DeviceProbes&, cudaStream_t) { return cudaSuccess; }
int64_t CudaSamplingWorkspaceBytes(int32_t, int32_t, int32_t, int32_t) { return 0; }
cudaError_t LaunchSampling(const DeviceSamplingArgs&, cudaStream_t) { return cudaSuccess; }
cudaError_t LaunchEmbed(DeviceType, const int32_t*, int32_t, const void*, int32_t, float*,
                        cudaStream_t) {
  return cudaSuccess;
}
cudaError_t LaunchAddBias(DeviceType, void*, const float*, int32_t, int32_t, cudaStream_t) {
  return cudaSuccess;
}
cudaError_t LaunchGatherRows(DeviceType, const void*, const int32_t*, int32_t, int32_t, void*,
                             cudaStream_t) {
  return cudaSuccess;
}
cudaError_t LaunchGatherFloatRows(const float*, const int32_t*, int32_t, int32_t, float*,
                                  cudaStream_t) {
  return cudaSuccess;
}
cudaError_t LaunchAddRmsNorm(DeviceType, float*, const void*, const float*, int32_t, int32_t, float,
                             void*, cudaStream_t) {
  return cudaSuccess;
}
cudaError_t LaunchRopeAndWriteKv(DeviceType, const DeviceRopeArgs&, cudaStream_t) {
  return cudaSuccess;
}
cudaError_t LaunchMoveKv(DeviceType, const DeviceRopeArgs&, const KvMove*, int32_t, cudaStream_t) {
  return cudaSuccess;
}
cudaError_t LaunchSiluMultiply(DeviceType, const void*, int32_t, int32_t, void*, cudaStream_t) {
  return cudaErrorInvalidConfiguration;
}

}  // namespace chorus

using chorus::fake_cuda::DoWork;
using chorus::fake_cuda::Global;
using chorus::fake_cuda::Queue;

extern "C" {

cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t) { return "cudaErrorName"; }
const char* cudaGetErrorString(cudaError_t) { return "its text"; }

cudaError_t cudaHostAlloc(void** data, size_t num_bytes, unsigned) {
  *data = std::malloc(num_bytes);
  Global().pinned[*data] = static_cast<int64_t>(num_bytes);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* data) {
  Global().pinned.erase(data);
  std::free(data);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new int64_t(0));  // the work that stood before it
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete reinterpret_cast<int64_t*>(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  *reinterpret_cast<int64_t*>(event) = Global().num_queued;
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  DoWork(Global().num_queued - *reinterpret_cast<int64_t*>(event));
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  if (Global().is_capturing) return cudaErrorStreamCaptureUnsupported;
  DoWork(0);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t num_bytes, cudaMemcpyKind,
                            cudaStream_t) {
  Queue([=] { std::memcpy(to, from, num_bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  Global().is_capturing = true;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  Global().is_capturing = false;
  *graph = nullptr;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* graph, cudaGraph_t, unsigned long long) {
  *graph = nullptr;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = nullptr;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }
const char* cublasLtGetStatusString(cublasStatus_t) { return "not supported"; }

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t product, size_t,
                                               cublasComputeType_t compute, cudaDataType_t scale) {
  product->data[0] = CUBLAS_OP_N;
  return compute == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS
                                                              : CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t) {
  if (attribute != CUBLASLT_MATMUL_DESC_TRANSA) return CUBLAS_STATUS_INVALID_VALUE;
  product->data[0] = *static_cast<const cublasOperation_t*>(value);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, size_t,
                                                 cudaDataType type, uint64_t rows, uint64_t columns,
                                                 int64_t leading) {
  layout->data[0] = type;
  layout->data[1] = rows;
  layout->data[2] = columns;
  layout->data[3] = static_cast<uint64_t>(leading);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t, size_t) {
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                    cublasLtMatmulPreferenceAttributes_t,
                                                    const void*, size_t) {
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t x,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t, int,
                                              cublasLtMatmulHeuristicResult_t* results,
                                              int* num_results) {
  const auto num_rows = static_cast<int32_t>(x->data[2]);
  *num_results = 0;
  for (size_t i = 0; i < Global().algorithms.size(); ++i) {
    const auto& takes = Global().algorithms[i];
    if (num_rows < takes.min_rows || num_rows > takes.max_rows) continue;
    cublasLtMatmulHeuristicResult_t& result = results[(*num_results)++];
    result = {};
    result.algo.data[0] = i;
  }
  return *num_results > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t,
                                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t x,
                                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                       const cublasLtMatmulAlgo_t* algorithm,
                                       cublasLtMatmulHeuristicResult_t* result) {
  const auto& takes = Global().algorithms.at(algorithm->data[0]);
  const auto num_rows = static_cast<int32_t>(x->data[2]);
  *result = {};
  if (num_rows > takes.max_rows) result->workspaceSize = size_t{1} << 40;
  return num_rows >= takes.min_rows ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

// D = op(A) B, stored by columns; A and B of bfloat16.
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t product, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t of_a, const void* b,
                              cublasLtMatrixLayout_t of_b, const void* beta, const void*,
                              cublasLtMatrixLayout_t, void* d, cublasLtMatrixLayout_t of_d,
                              const cublasLtMatmulAlgo_t* algorithm, void*, size_t, cudaStream_t) {
  using chorus::FloatFromBFloat16;
  const bool is_transposed = product->data[0] == CUBLAS_OP_T;
  const uint64_t sum_size = of_a->data[is_transposed ? 1 : 2];
  if (*static_cast<const float*>(alpha) != 1.0f || *static_cast<const float*>(beta) != 0.0f ||
      of_a->data[is_transposed ? 2 : 1] != of_d->data[1] || of_b->data[1] != sum_size ||
      of_b->data[2] != of_d->data[2] || of_a->data[0] != CUDA_R_16BF) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const auto& does = Global().algorithms.at(algorithm->data[0]);
  if (does.fails) return CUBLAS_STATUS_EXECUTION_FAILED;
  const bool splits = static_cast<int32_t>(of_d->data[2]) >= does.splits_from;
  const uint64_t middle = splits ? sum_size / 2 : sum_size;
  const auto at = [](const void* matrix, cublasLtMatrixLayout_t of, uint64_t row, uint64_t column) {
    return FloatFromBFloat16(static_cast<const uint16_t*>(matrix)[column * of->data[3] + row]);
  };
  DoWork(0);
  for (uint64_t column = 0; column < of_d->data[2]; ++column) {
    for (uint64_t row = 0; row < of_d->data[1]; ++row) {
      float sums[2] = {0.0f, 0.0f};
      for (uint64_t k = 0; k < sum_size; ++k) {
        sums[k < middle ? 0 : 1] +=
            (is_transposed ? at(a, of_a, k, row) : at(a, of_a, row, k)) * at(b, of_b, k, column);
      }
      const float sum = sums[0] + sums[1];
      const uint64_t index = column * of_d->data[3] + row;
      if (of_d->data[0] == CUDA_R_32F) {
        static_cast<float*>(d)[index] = sum;
      } else {
        static_cast<uint16_t*>(d)[index] = chorus::BFloat16FromFloat(sum);
      }
    }
  }
  Global().products.push_back({algorithm->data[0], static_cast<int32_t>(of_d->data[2])});
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
