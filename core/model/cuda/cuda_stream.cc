#include "core/model/cuda/cuda_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"

namespace chorus {
namespace {

// Large enough that a copy's start-up time does not matter, small beside the host's memory.
constexpr int64_t kUploadBytes = 16 << 20;
constexpr int64_t kDownloadBytes = 4 << 20;
constexpr int64_t kUploadAlignment = 256;

class CudaGraph : public DeviceGraph {
 public:
  explicit CudaGraph(cudaGraphExec_t graph) : graph_(graph) {}
  ~CudaGraph() override { cudaGraphExecDestroy(graph_); }

  cudaGraphExec_t get() const { return graph_; }

 private:
  const cudaGraphExec_t graph_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PinnedMemory>> PinnedMemory::Allocate(int64_t num_bytes) {
  void* data = nullptr;
  CHORUS_RETURN_IF_ERROR(
      CudaStatus(cudaHostAlloc(&data, static_cast<size_t>(num_bytes), cudaHostAllocDefault),
                 "allocating page-locked host memory"));
  return std::unique_ptr<PinnedMemory>(new PinnedMemory(static_cast<char*>(data)));
}

PinnedMemory::~PinnedMemory() { cudaFreeHost(data_); }

absl::StatusOr<std::unique_ptr<UploadBuffers>> UploadBuffers::Create() {
  std::unique_ptr<UploadBuffers> uploads(new UploadBuffers());
  for (Buffer& buffer : uploads->buffers_) {
    CHORUS_ASSIGN_OR_RETURN(buffer.memory, PinnedMemory::Allocate(kUploadBytes));
    CHORUS_RETURN_IF_ERROR(CudaStatus(
        cudaEventCreateWithFlags(&buffer.read, cudaEventDisableTiming), "cudaEventCreate"));
  }
  return uploads;
}

UploadBuffers::~UploadBuffers() {
  for (const Buffer& buffer : buffers_) {
    if (buffer.read != nullptr) cudaEventDestroy(buffer.read);
  }
}

absl::Status UploadBuffers::TakeOther(cudaStream_t stream) {
  CHORUS_RETURN_IF_ERROR(
      CudaStatus(cudaEventRecord(buffers_[current_].read, stream), "cudaEventRecord"));
  current_ = 1 - current_;
  used_bytes_ = 0;
  // An event that was never recorded is not waited for.
  return CudaStatus(cudaEventSynchronize(buffers_[current_].read), "cudaEventSynchronize");
}

absl::Status UploadBuffers::Upload(void* to, const void* from, int64_t num_bytes,
                                   cudaStream_t stream) {
  auto* target = static_cast<char*>(to);
  const auto* source = static_cast<const char*>(from);
  while (num_bytes > 0) {
    if (used_bytes_ >= kUploadBytes) CHORUS_RETURN_IF_ERROR(TakeOther(stream));
    const int64_t piece = std::min(num_bytes, kUploadBytes - used_bytes_);
    char* const staged = buffers_[current_].memory->data() + used_bytes_;
    std::memcpy(staged, source, static_cast<size_t>(piece));
    CHORUS_RETURN_IF_ERROR(CudaStatus(
        cudaMemcpyAsync(target, staged, static_cast<size_t>(piece), cudaMemcpyHostToDevice, stream),
        "a copy to the device"));
    used_bytes_ += (piece + kUploadAlignment - 1) / kUploadAlignment * kUploadAlignment;
    target += piece;
    source += piece;
    num_bytes -= piece;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<CudaStream>> CudaStream::Create(
    int32_t device_index, LinearAlgorithms* algorithms, std::unique_ptr<DeviceMemory> workspace) {
  CHORUS_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device_index), "cudaSetDevice"));
  CudaAttentionKind kind = CudaAttentionKind::kAmpere;
  CHORUS_RETURN_IF_ERROR(
      CudaStatus(FindCudaAttentionKind(device_index, kind), "asking for the compute capability"));
  // It does not wait for the legacy default stream, on which torch's own work would go.
  cudaStream_t cuda_stream = nullptr;
  CHORUS_RETURN_IF_ERROR(CudaStatus(cudaStreamCreateWithFlags(&cuda_stream, cudaStreamNonBlocking),
                                    "cudaStreamCreate"));
  void* const workspace_data = workspace->data();
  std::unique_ptr<CudaStream> stream(
      new CudaStream(device_index, kind, cuda_stream, std::move(workspace)));
  CHORUS_ASSIGN_OR_RETURN(stream->linear_,
                          CudaLinear::Create(algorithms, cuda_stream, workspace_data));
  CHORUS_ASSIGN_OR_RETURN(stream->uploads_, UploadBuffers::Create());
  CHORUS_ASSIGN_OR_RETURN(stream->downloads_, PinnedMemory::Allocate(kDownloadBytes));
  return stream;
}

CudaStream::~CudaStream() {
  cudaSetDevice(device_index_);
  if (is_recording_) {
    cudaGraph_t unwanted = nullptr;
    cudaStreamEndCapture(stream_, &unwanted);
    if (unwanted != nullptr) cudaGraphDestroy(unwanted);
  }
  cudaStreamSynchronize(stream_);
  linear_.reset();
  cudaStreamDestroy(stream_);
}

absl::Status CudaStream::MakeCurrent() const {
  return CudaStatus(cudaSetDevice(device_index_), "cudaSetDevice");
}

absl::Status CudaStream::CheckNotRecording(const char* what) const {
  if (!is_recording_) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, " while work is recorded"));
}

absl::Status CudaStream::Linear(const DeviceLinearArgs& args) {
  CHORUS_RETURN_IF_ERROR(MakeCurrent());
  return linear_->Run(args);
}

absl::Status CudaStream::Upload(void* to, const void* from, int64_t num_bytes) {
  CHORUS_RETURN_IF_ERROR(CheckNotRecording("an upload"));
  CHORUS_RETURN_IF_ERROR(MakeCurrent());
  return uploads_->Upload(to, from, num_bytes, stream_);
}

absl::Status CudaStream::Download(void* to, const void* from, int64_t num_bytes) {
  CHORUS_RETURN_IF_ERROR(CheckNotRecording("a download"));
  CHORUS_RETURN_IF_ERROR(MakeCurrent());
  if (num_bytes == 0) return Wait();
  auto* target = static_cast<char*>(to);
  const auto* source = static_cast<const char*>(from);
  for (int64_t first = 0; first < num_bytes; first += kDownloadBytes) {
    const auto piece = static_cast<size_t>(std::min(kDownloadBytes, num_bytes - first));
    CHORUS_RETURN_IF_ERROR(CudaStatus(
        cudaMemcpyAsync(downloads_->data(), source + first, piece, cudaMemcpyDeviceToHost, stream_),
        "a copy from the device"));
    CHORUS_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream_), "work on the device"));
    std::memcpy(target + first, downloads_->data(), piece);
  }
  return absl::OkStatus();
}

absl::Status CudaStream::Wait() {
  CHORUS_RETURN_IF_ERROR(CheckNotRecording("waiting"));
  CHORUS_RETURN_IF_ERROR(MakeCurrent());
  return CudaStatus(cudaStreamSynchronize(stream_), "work on the device");
}

absl::Status CudaStream::BeginRecording() {
  CHORUS_RETURN_IF_ERROR(CheckNotRecording("recording"));
  CHORUS_RETURN_IF_ERROR(MakeCurrent());
  // Other threads, with streams of their own, may allocate and wait meanwhile.
  CHORUS_RETURN_IF_ERROR(CudaStatus(
      cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture"));
  is_recording_ = true;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<DeviceGraph>> CudaStream::EndRecording() {
  if (!is_recording_) return absl::InternalError("the end of a recording that was not begun");
  is_recording_ = false;
  CHORUS_RETURN_IF_ERROR(MakeCurrent());
  cudaGraph_t recorded = nullptr;
  CHORUS_RETURN_IF_ERROR(
      CudaStatus(cudaStreamEndCapture(stream_, &recorded), "cudaStreamEndCapture"));
  cudaGraphExec_t graph = nullptr;
  const cudaError_t instantiated = cudaGraphInstantiate(&graph, recorded, 0);
  cudaGraphDestroy(recorded);
  CHORUS_RETURN_IF_ERROR(CudaStatus(instantiated, "cudaGraphInstantiate"));
  return std::make_unique<CudaGraph>(graph);
}

absl::Status CudaStream::Launch(DeviceGraph& graph) {
  CHORUS_RETURN_IF_ERROR(CheckNotRecording("a graph's launch"));
  CHORUS_RETURN_IF_ERROR(MakeCurrent());
  return CudaStatus(cudaGraphLaunch(static_cast<CudaGraph&>(graph).get(), stream_),
                    "cudaGraphLaunch");
}

}  // namespace chorus
