#include "core/model/cuda/cuda_linear.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"

namespace chorus {
namespace {

constexpr int32_t kOwnRows = 2048;  // a step full of prompts
constexpr int32_t kFusedRows = 64;  // a batch of answers
constexpr int kMaxCandidates = 32;

absl::Status LtStatus(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string text = absl::StrCat(what, " failed: ", cublasLtGetStatusString(status));
  return status == CUBLAS_STATUS_ALLOC_FAILED ? absl::ResourceExhaustedError(text)
                                              : absl::InternalError(text);
}

cudaDataType_t InputType(const LinearShape& shape) {
  return shape.type == DeviceType::kBFloat16 ? CUDA_R_16BF : CUDA_R_16F;
}

cudaDataType_t OutputType(const LinearShape& shape) {
  return shape.is_output_float32 ? CUDA_R_32F : InputType(shape);
}

// What cuBLASLt is told of a product. It stores by columns, so it sees our row-major weight
// [out, in] as a matrix [in, out], x as [in, rows] and y as [out, rows]: y = weight^T x.
struct Descriptors {
  cublasLtMatmulDescOpaque_t product;
  cublasLtMatrixLayoutOpaque_t weight;
  cublasLtMatrixLayoutOpaque_t x;
  cublasLtMatrixLayoutOpaque_t y;

  absl::Status Init(const LinearShape& shape, int32_t num_rows) {
    const auto in_size = static_cast<uint64_t>(shape.in_size);
    const auto out_size = static_cast<uint64_t>(shape.out_size);
    const auto rows = static_cast<uint64_t>(num_rows);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    CHORUS_RETURN_IF_ERROR(
        LtStatus(cublasLtMatmulDescInit(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                 "cublasLtMatmulDescInit"));
    CHORUS_RETURN_IF_ERROR(
        LtStatus(cublasLtMatmulDescSetAttribute(&product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                                sizeof(transposed)),
                 "cublasLtMatmulDescSetAttribute"));
    CHORUS_RETURN_IF_ERROR(LtStatus(
        cublasLtMatrixLayoutInit(&weight, InputType(shape), in_size, out_size, shape.in_size),
        "cublasLtMatrixLayoutInit"));
    CHORUS_RETURN_IF_ERROR(
        LtStatus(cublasLtMatrixLayoutInit(&x, InputType(shape), in_size, rows, shape.in_size),
                 "cublasLtMatrixLayoutInit"));
    return LtStatus(cublasLtMatrixLayoutInit(&y, OutputType(shape), out_size, rows, shape.out_size),
                    "cublasLtMatrixLayoutInit");
  }
};

// Bytes that begin every row of y at a multiple of theirs.
uint32_t OutputAlignment(const LinearShape& shape) {
  return shape.is_output_float32 && shape.out_size % 4 != 0 ? 4 : 16;
}

template <typename Value>
absl::Status Prefer(cublasLtMatmulPreference_t preference,
                    cublasLtMatmulPreferenceAttributes_t attribute, Value value) {
  return LtStatus(
      cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
      "cublasLtMatmulPreferenceSetAttribute");
}

// Sums of one row may be split among blocks, and are then added in float32 in a fixed order, where
// rows are so few that one block a tile leaves the device idle. Never "in place": its sums are
// rounded to the output's type on the way.
absl::Status InitPreference(const LinearShape& shape,
                            cublasLtMatmulPreferenceOpaque_t* preference) {
  CHORUS_RETURN_IF_ERROR(
      LtStatus(cublasLtMatmulPreferenceInit(preference), "cublasLtMatmulPreferenceInit"));
  const auto workspace_bytes = static_cast<uint64_t>(LinearAlgorithms::kPreferredWorkspaceBytes);
  CHORUS_RETURN_IF_ERROR(
      Prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes));
  const uint32_t reductions = shape.kind == RowKind::kFused ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
                                                            : CUBLASLT_REDUCTION_SCHEME_NONE;
  CHORUS_RETURN_IF_ERROR(
      Prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions));
  // A product may begin at any row of an array.
  const uint32_t kInputAlignment = 16;
  CHORUS_RETURN_IF_ERROR(
      Prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, kInputAlignment));
  CHORUS_RETURN_IF_ERROR(
      Prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, kInputAlignment));
  const uint32_t output_alignment = OutputAlignment(shape);
  CHORUS_RETURN_IF_ERROR(
      Prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, output_alignment));
  return Prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, output_alignment);
}

// Whether the algorithm can compute so many rows at once, in the workspace that there is.
bool Takes(cublasLtHandle_t handle, const LinearShape& shape, int32_t num_rows,
           const cublasLtMatmulAlgo_t& algorithm) {
  Descriptors of;
  if (!of.Init(shape, num_rows).ok()) return false;
  cublasLtMatmulHeuristicResult_t result = {};
  return cublasLtMatmulAlgoCheck(handle, &of.product, &of.weight, &of.x, &of.y, &of.y, &algorithm,
                                 &result) == CUBLAS_STATUS_SUCCESS &&
         result.workspaceSize <= static_cast<size_t>(LinearAlgorithms::kWorkspaceBytes);
}

// What cuBLASLt would use for so many rows, best first.
absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> AskFor(cublasLtHandle_t handle,
                                                         const LinearShape& shape,
                                                         int32_t num_rows) {
  Descriptors of;
  CHORUS_RETURN_IF_ERROR(of.Init(shape, num_rows));
  cublasLtMatmulPreferenceOpaque_t preference;
  CHORUS_RETURN_IF_ERROR(InitPreference(shape, &preference));
  std::vector<cublasLtMatmulHeuristicResult_t> results(kMaxCandidates);
  int num_results = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle, &of.product, &of.weight, &of.x, &of.y, &of.y,
                                     &preference, kMaxCandidates, results.data(), &num_results);
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return algorithms;  // it has none
  CHORUS_RETURN_IF_ERROR(LtStatus(status, "cublasLtMatmulAlgoGetHeuristic"));
  for (int i = 0; i < num_results; ++i) {
    if (results[i].state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(results[i].algo);
  }
  return algorithms;
}

bool IsSame(const cublasLtMatmulAlgo_t& a, const cublasLtMatmulAlgo_t& b) {
  return std::memcmp(a.data, b.data, sizeof(a.data)) == 0;
}

// Best first; all of them take a single row, so any number of rows, piece by piece. Nothing says
// that what is best for many rows takes one, so the best for one come last.
absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> FindCandidates(cublasLtHandle_t handle,
                                                                 const LinearShape& shape) {
  std::vector<cublasLtMatmulAlgo_t> candidates;
  for (const int32_t num_rows : {shape.kind == RowKind::kOwn ? kOwnRows : kFusedRows, 1}) {
    CHORUS_ASSIGN_OR_RETURN(const auto algorithms, AskFor(handle, shape, num_rows));
    for (const cublasLtMatmulAlgo_t& algorithm : algorithms) {
      const bool is_known =
          std::any_of(candidates.begin(), candidates.end(),
                      [&](const auto& candidate) { return IsSame(candidate, algorithm); });
      if (!is_known && Takes(handle, shape, 1, algorithm)) candidates.push_back(algorithm);
    }
  }
  if (candidates.empty()) {
    return absl::InternalError(absl::StrCat("cuBLASLt has no algorithm for a matrix product of ",
                                            shape.out_size, " by ", shape.in_size));
  }
  return candidates;
}

// The algorithm is the same for all pieces of a product, so how it is cut changes no bit.
int32_t FindMaxRows(cublasLtHandle_t handle, const LinearShape& shape, int32_t num_rows,
                    const cublasLtMatmulAlgo_t& algorithm) {
  while (num_rows > 1 && !Takes(handle, shape, num_rows, algorithm)) num_rows = (num_rows + 1) / 2;
  return num_rows;
}

absl::Status Validate(const DeviceLinearArgs& args) {
  if (args.in_size > 0 && args.in_size % 8 == 0 && args.out_size > 0 &&
      (args.is_output_float32 || args.out_size % 8 == 0)) {
    return absl::OkStatus();
  }
  return absl::InternalError(absl::StrCat("a matrix product of ", args.out_size, " by ",
                                          args.in_size, " is not of whole multiples of 8"));
}

}  // namespace

LinearShape ShapeOf(const DeviceLinearArgs& args) {
  return {.kind = args.kind,
          .type = args.type,
          .in_size = args.in_size,
          .out_size = args.out_size,
          .is_output_float32 = args.is_output_float32};
}

absl::StatusOr<LinearPlan> LinearAlgorithms::Plan(cublasLtHandle_t handle, const LinearShape& shape,
                                                  int32_t num_rows) {
  absl::MutexLock lock(&mutex_);
  Choice& choice = choices_[shape];
  if (choice.candidates.empty()) {
    CHORUS_ASSIGN_OR_RETURN(choice.candidates, FindCandidates(handle, shape));
  }
  const cublasLtMatmulAlgo_t& algorithm = choice.candidates[choice.taken];
  auto found = choice.max_rows.find(num_rows);
  if (found == choice.max_rows.end()) {
    found =
        choice.max_rows.emplace(num_rows, FindMaxRows(handle, shape, num_rows, algorithm)).first;
  }
  return LinearPlan{.algorithm = algorithm, .max_rows = found->second};
}

bool LinearAlgorithms::Take(const LinearShape& shape, size_t index) {
  absl::MutexLock lock(&mutex_);
  const auto found = choices_.find(shape);
  if (found == choices_.end() || index >= found->second.candidates.size()) return false;
  Choice& choice = found->second;
  choice.max_rows.clear();
  choice.taken = index;
  return true;
}

absl::StatusOr<std::unique_ptr<CudaLinear>> CudaLinear::Create(LinearAlgorithms* algorithms,
                                                               cudaStream_t stream,
                                                               void* workspace) {
  cublasLtHandle_t handle = nullptr;
  CHORUS_RETURN_IF_ERROR(LtStatus(cublasLtCreate(&handle), "cublasLtCreate"));
  return std::unique_ptr<CudaLinear>(new CudaLinear(algorithms, handle, stream, workspace));
}

CudaLinear::~CudaLinear() { cublasLtDestroy(handle_); }

absl::Status CudaLinear::Run(const DeviceLinearArgs& args) {
  CHORUS_RETURN_IF_ERROR(Validate(args));
  if (args.num_rows == 0) return absl::OkStatus();
  const LinearShape shape = ShapeOf(args);
  CHORUS_ASSIGN_OR_RETURN(const LinearPlan plan, algorithms_->Plan(handle_, shape, args.num_rows));
  constexpr int64_t kInputBytes = 2;
  const int64_t output_bytes = shape.is_output_float32 ? 4 : 2;
  const float one = 1.0f;
  const float zero = 0.0f;
  for (int32_t first = 0; first < args.num_rows; first += plan.max_rows) {
    const int32_t num_rows = std::min(plan.max_rows, args.num_rows - first);
    Descriptors of;
    CHORUS_RETURN_IF_ERROR(of.Init(shape, num_rows));
    const auto* x = static_cast<const std::byte*>(args.x) + kInputBytes * first * args.in_size;
    auto* y = static_cast<std::byte*>(args.y) + output_bytes * first * args.out_size;
    CHORUS_RETURN_IF_ERROR(
        LtStatus(cublasLtMatmul(handle_, &of.product, &one, args.weight, &of.weight, x, &of.x,
                                &zero, y, &of.y, y, &of.y, &plan.algorithm, workspace_,
                                static_cast<size_t>(LinearAlgorithms::kWorkspaceBytes), stream_),
                 "cublasLtMatmul"));
  }
  return absl::OkStatus();
}

}  // namespace chorus
