#include <cstdint>

#include <cuda.h>

#include "core/kernels/cuda/hopper_attention.h"
#include "core/kernels/cuda/launch.cuh"

namespace chorus::device {
namespace {

// The driver's function, found at run time: linking to the driver's library would keep the binary
// from starting where there is none. Null if the driver is too old.
decltype(&cuTensorMapEncodeTiled) FindEncode() {
  constexpr unsigned int kVersion = 12000;  // the first that has it
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                             kVersion, cudaEnableDefault, &result);
  if (error != cudaSuccess || result != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
}

template <class Element>
constexpr CUtensorMapDataType kDataType = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
template <>
constexpr CUtensorMapDataType kDataType<Float16> = CU_TENSOR_MAP_DATA_TYPE_FLOAT16;

// Of k or v, [num_slots, num_kv_heads, head_dim]. A map that cannot be made is an error: without it
// the kernel would be right and much slower, and nobody would know.
template <class Element, int kHeadDim>
cudaError_t MakeMap(const Element* data, int32_t num_slots, int32_t num_kv_heads, TensorMap& map) {
  static const auto encode = FindEncode();
  if (encode == nullptr) return cudaErrorCallRequiresNewerDriver;
  const cuuint64_t head_bytes = kHeadDim * sizeof(Element);
  const cuuint64_t extents[] = {kHeadDim, static_cast<cuuint64_t>(num_kv_heads),
                                static_cast<cuuint64_t>(num_slots)};
  const cuuint64_t strides[] = {head_bytes, head_bytes * num_kv_heads};
  const cuuint32_t box[] = {64, 1, kHopperBoxRows};
  const cuuint32_t steps[] = {1, 1, 1};
  // What the second-level cache fetches: not more than the head's row.
  constexpr auto kPromotion =
      kHeadDim == 64 ? CU_TENSOR_MAP_L2_PROMOTION_L2_128B : CU_TENSOR_MAP_L2_PROMOTION_L2_256B;
  const CUresult result =
      encode(&map, kDataType<Element>, 3, const_cast<Element*>(data), extents, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, kPromotion,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t FindNumProcessors(int& num_processors) {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  return cudaDeviceGetAttribute(&num_processors, cudaDevAttrMultiProcessorCount, device);
}

}  // namespace

template <class Element, int kHeadDim>
cudaError_t HopperStart<Element, kHeadDim>::Start(const AttentionLaunch<Element>& launch,
                                                  const DeviceTiles& tiles, int32_t num_slots,
                                                  cudaStream_t stream) {
  const int32_t num_tiles = tiles.num_tiles;
  if (num_tiles == 0) return cudaSuccess;
  int num_processors = 0;
  if (const cudaError_t error = FindNumProcessors(num_processors); error != cudaSuccess) {
    return error;
  }
  HopperLaunch<Element> hopper;
  static_cast<AttentionLaunch<Element>&>(hopper) = launch;
  hopper.num_tiles = num_tiles;
  const bool is_short = 0 < tiles.longest_span && tiles.longest_span <= kHopperShortKeys;
  hopper.tiles_per_block =
      HopperTilesPerBlock(num_tiles, launch.num_kv_heads, num_processors, is_short);
  cudaError_t error =
      MakeMap<Element, kHeadDim>(launch.k, num_slots, launch.num_kv_heads, hopper.k_map);
  if (error != cudaSuccess) return error;
  error = MakeMap<Element, kHeadDim>(launch.v, num_slots, launch.num_kv_heads, hopper.v_map);
  if (error != cudaSuccess) return error;
  const int32_t num_blocks = (num_tiles + hopper.tiles_per_block - 1) / hopper.tiles_per_block;
  return KernelStart<HopperAttention<Element, kHeadDim>>::Start(hopper, num_blocks,
                                                                launch.num_kv_heads, stream);
}

template struct HopperStart<BFloat16, 64>;
template struct HopperStart<BFloat16, 128>;
template struct HopperStart<Float16, 64>;
template struct HopperStart<Float16, 128>;

}  // namespace chorus::device
