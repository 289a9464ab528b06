#include "core/kernels/cuda/launch.cuh"
#include "core/kernels/cuda/prefill_attention.h"
#include "core/kernels/cuda/span_attention.h"

namespace chorus::device {

template struct KernelStart<PrefillAttention<BFloat16, 64>>;
template struct KernelStart<PrefillAttention<BFloat16, 128>>;
template struct KernelStart<PrefillAttention<Float16, 64>>;
template struct KernelStart<PrefillAttention<Float16, 128>>;
template struct KernelStart<SpanAttention<BFloat16, 64>>;
template struct KernelStart<SpanAttention<BFloat16, 128>>;
template struct KernelStart<SpanAttention<Float16, 64>>;
template struct KernelStart<SpanAttention<Float16, 128>>;
template struct KernelStart<MergeSpans<BFloat16, 64>>;
template struct KernelStart<MergeSpans<BFloat16, 128>>;
template struct KernelStart<MergeSpans<Float16, 64>>;
template struct KernelStart<MergeSpans<Float16, 128>>;

}  // namespace chorus::device
