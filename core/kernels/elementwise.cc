#include "core/kernels/elementwise.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/base/check.h"
#include "core/kernels/bfloat16.h"
#include "core/kernels/elementwise_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/elementwise.cc"
// foreach_target.h comes before the headers that it includes once a target.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace chorus {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using FloatTag = hn::CappedTag<float, 16>;
using FloatVector = hn::Vec<FloatTag>;
constexpr int64_t kLanes = hn::MaxLanes(FloatTag());

// Adds delta (if any) and returns the sum of squares: lane sums over whole vectors, then the tail,
// so the order depends on `size` only.
float AddAndSquare(float* x, const float* delta, int64_t size) {
  const FloatTag d;
  FloatVector sums = hn::Zero(d);
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    FloatVector value = hn::LoadU(d, x + i);
    if (delta != nullptr) {
      value = hn::Add(value, hn::LoadU(d, delta + i));
      hn::StoreU(value, d, x + i);
    }
    sums = hn::MulAdd(value, value, sums);
  }
  float total = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; i < size; ++i) {
    if (delta != nullptr) x[i] += delta[i];
    total += x[i] * x[i];
  }
  return total;
}

void ScaleRow(const float* x, const float* weight, float factor, int64_t size, float* out) {
  const FloatTag d;
  const FloatVector factors = hn::Set(d, factor);
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const FloatVector scaled = hn::Mul(hn::LoadU(d, x + i), factors);
    hn::StoreU(hn::Mul(scaled, hn::LoadU(d, weight + i)), d, out + i);
  }
  for (; i < size; ++i) out[i] = x[i] * factor * weight[i];
}

FloatVector Silu(FloatVector x) {
  const FloatTag d;
  const FloatVector one = hn::Set(d, 1.0f);
  // Of -|x|, as Highway's Exp is garbage, not infinity, where float32 overflows:
  // sigmoid(x) = 1 / (1 + e) for x >= 0 and e / (1 + e) below.
  const FloatVector e = hn::Exp(d, hn::Neg(hn::Abs(x)));
  const FloatVector numerator = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one);
  return hn::Mul(x, hn::Div(numerator, hn::Add(one, e)));
}

// (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin) for the two halves of a head.
void RotateHead(const float* x, const float* cosine, const float* sine, int64_t half, float* out) {
  const FloatTag d;
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const FloatVector x1 = hn::LoadU(d, x + i);
    const FloatVector x2 = hn::LoadU(d, x + half + i);
    const FloatVector cos_i = hn::LoadU(d, cosine + i);
    const FloatVector sin_i = hn::LoadU(d, sine + i);
    hn::StoreU(hn::NegMulAdd(x2, sin_i, hn::Mul(x1, cos_i)), d, out + i);
    hn::StoreU(hn::MulAdd(x1, sin_i, hn::Mul(x2, cos_i)), d, out + half + i);
  }
  for (; i < half; ++i) {
    const float x1 = x[i], x2 = x[half + i];
    out[i] = x1 * cosine[i] - x2 * sine[i];
    out[half + i] = x2 * cosine[i] + x1 * sine[i];
  }
}

// Writes one head into its slot of `base`, at element `offset`.
void StoreKv(const float* values, int64_t size, KvType type, void* base, int64_t offset) {
  if (type == KvType::kFloat32) {
    std::copy_n(values, size, static_cast<float*>(base) + offset);
    return;
  }
  // As BFloat16FromFloat, a vector at a time.
  uint16_t* out = static_cast<uint16_t*>(base) + offset;
  const FloatTag d;
  const hn::Repartition<uint32_t, FloatTag> dw;
  const hn::Repartition<int32_t, FloatTag> di;
  const hn::Rebind<uint16_t, FloatTag> dh;
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const FloatVector value = hn::LoadU(d, values + i);
    const auto bits = hn::BitCast(dw, value);
    const auto upper = hn::ShiftRight<16>(bits);
    const auto is_odd = hn::And(upper, hn::Set(dw, 1u));
    const auto bias = hn::Add(is_odd, hn::Set(dw, 0x7FFFu));
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, bias));
    const auto quiet_nan = hn::Or(upper, hn::Set(dw, 0x0040u));
    const auto is_nan = hn::RebindMask(dw, hn::IsNaN(value));
    const auto words = hn::IfThenElse(is_nan, quiet_nan, rounded);
    hn::StoreU(hn::DemoteTo(dh, hn::BitCast(di, words)), dh, out + i);
  }
  for (; i < size; ++i) out[i] = BFloat16FromFloat(values[i]);
}

// Reads one head from element `offset` of `base` as floats.
void LoadKv(const void* base, KvType type, int64_t offset, int64_t size, float* out) {
  if (type == KvType::kFloat32) {
    std::copy_n(static_cast<const float*>(base) + offset, size, out);
    return;
  }
  const uint16_t* from = static_cast<const uint16_t*>(base) + offset;
  for (int64_t i = 0; i < size; ++i) out[i] = FloatFromBFloat16(from[i]);
}

}  // namespace

void RunNormRows(const NormRows& args, int64_t row_begin, int64_t row_end) {
  for (int64_t r = row_begin; r < row_end; ++r) {
    const int64_t offset = r * args.size;
    const float* x = args.delta != nullptr ? args.residual + offset : args.x + offset;
    // Without a delta AddAndSquare only reads.
    const float sum = AddAndSquare(
        const_cast<float*>(x), args.delta != nullptr ? args.delta + offset : nullptr, args.size);
    const float factor = 1.0f / std::sqrt(sum / static_cast<float>(args.size) + args.epsilon);
    ScaleRow(x, args.weight, factor, args.size, args.out + offset);
  }
}

void RunSiluRows(const SiluRows& args, int64_t row_begin, int64_t row_end) {
  const FloatTag d;
  for (int64_t r = row_begin; r < row_end; ++r) {
    const float* gate = args.gate_up + r * 2 * args.size;
    const float* up = gate + args.size;
    float* out = args.out + r * args.size;
    int64_t i = 0;
    for (; i + kLanes <= args.size; i += kLanes) {
      hn::StoreU(hn::Mul(Silu(hn::LoadU(d, gate + i)), hn::LoadU(d, up + i)), d, out + i);
    }
    if (i == args.size) continue;
    HWY_ALIGN float tail[kLanes] = {};
    std::copy(gate + i, gate + args.size, tail);
    hn::Store(Silu(hn::Load(d, tail)), d, tail);
    for (int64_t j = 0; i < args.size; ++i, ++j) out[i] = tail[j] * up[i];
  }
}

void RunRopeRows(const RopeArgs& args, int64_t row_begin, int64_t row_end) {
  const int64_t head_dim = args.shape.head_dim;
  const int64_t half = head_dim / 2;
  const int64_t num_heads = args.shape.num_heads;
  const int64_t num_kv_heads = args.shape.num_kv_heads;
  float rotated[kMaxHeadDim];
  for (int64_t r = row_begin; r < row_end; ++r) {
    CHECK(args.slots[r] >= 0 && args.slots[r] < args.kv.num_slots);
    const float* q = args.qkv + r * (num_heads + 2 * num_kv_heads) * head_dim;
    const float* k = q + num_heads * head_dim;
    const float* v = k + num_kv_heads * head_dim;
    const float* cosine = args.cosine + args.positions[r] * half;
    const float* sine = args.sine + args.positions[r] * half;
    float* q_out = args.q_out + r * num_heads * head_dim;
    for (int64_t h = 0; h < num_heads; ++h) {
      RotateHead(q + h * head_dim, cosine, sine, half, q_out + h * head_dim);
    }
    const int64_t offset = args.slots[r] * num_kv_heads * head_dim;
    for (int64_t h = 0; h < num_kv_heads; ++h) {
      RotateHead(k + h * head_dim, cosine, sine, half, rotated);
      StoreKv(rotated, head_dim, args.kv.type, args.kv.k, offset + h * head_dim);
    }
    StoreKv(v, num_kv_heads * head_dim, args.kv.type, args.kv.v, offset);
  }
}

void RunMoves(const MoveKvArgs& args, int64_t begin, int64_t end) {
  const int64_t head_dim = args.shape.head_dim;
  const int64_t half = head_dim / 2;
  const int64_t slot_size = args.shape.num_kv_heads * head_dim;
  const int64_t value_bytes = slot_size * (args.kv.type == KvType::kFloat32 ? 4 : 2);
  float key[kMaxHeadDim], turned[kMaxHeadDim];
  for (int64_t i = begin; i < end; ++i) {
    const KvMove& move = args.moves[i];
    CHECK(move.from_slot >= 0 && move.from_slot < args.kv.num_slots);
    CHECK(move.to_slot >= 0 && move.to_slot < args.kv.num_slots);
    for (int64_t h = 0; h < args.shape.num_kv_heads; ++h) {
      LoadKv(args.kv.k, args.kv.type, move.from_slot * slot_size + h * head_dim, head_dim, key);
      RotateHead(key, args.cosine + move.distance * half, args.sine + move.distance * half, half,
                 turned);
      StoreKv(turned, head_dim, args.kv.type, args.kv.k, move.to_slot * slot_size + h * head_dim);
    }
    std::memcpy(static_cast<char*>(args.kv.v) + move.to_slot * value_bytes,
                static_cast<const char*>(args.kv.v) + move.from_slot * value_bytes, value_bytes);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus {
namespace {

HWY_EXPORT(RunMoves);
HWY_EXPORT(RunNormRows);
HWY_EXPORT(RunRopeRows);
HWY_EXPORT(RunSiluRows);

// A parallel region costs about a microsecond, in which one thread handles this many floats.
constexpr int64_t kFloatsPerTask = 8192;

// Calls rows(begin, end) over [0, num_rows), in pieces of about kFloatsPerTask.
template <typename Rows>
void ParallelRows(int64_t num_rows, int64_t floats_per_row, ThreadPool& pool, const Rows& rows) {
  CHECK(num_rows >= 0 && floats_per_row > 0);
  const int64_t rows_per_task = std::max<int64_t>(1, kFloatsPerTask / floats_per_row);
  const int64_t num_tasks = (num_rows + rows_per_task - 1) / rows_per_task;
  pool.ParallelFor(num_tasks, [&](int64_t task) {
    rows(task * rows_per_task, std::min(num_rows, (task + 1) * rows_per_task));
  });
}

void RunNorm(const NormRows& args, int32_t num_rows, ThreadPool& pool) {
  CHECK(args.size > 0);
  ParallelRows(num_rows, args.size, pool, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(RunNormRows)(args, begin, end);
  });
}

}  // namespace

void RmsNorm(const float* x, const float* weight, int32_t num_rows, int32_t size, float epsilon,
             float* out, ThreadPool& pool) {
  NormRows args;
  args.x = x;
  args.weight = weight;
  args.size = size;
  args.epsilon = epsilon;
  args.out = out;
  RunNorm(args, num_rows, pool);
}

void AddRmsNorm(float* residual, const float* delta, const float* weight, int32_t num_rows,
                int32_t size, float epsilon, float* out, ThreadPool& pool) {
  NormRows args;
  args.residual = residual;
  args.delta = delta;
  args.weight = weight;
  args.size = size;
  args.epsilon = epsilon;
  args.out = out;
  RunNorm(args, num_rows, pool);
}

void RopeAndWriteKv(const RopeArgs& args, ThreadPool& pool) {
  const AttentionShape& shape = args.shape;
  CHECK(shape.num_kv_heads > 0 && shape.num_heads % shape.num_kv_heads == 0);
  CHECK(shape.head_dim > 0 && shape.head_dim % 2 == 0 && shape.head_dim <= kMaxHeadDim);
  const int64_t floats_per_row = int64_t{shape.num_heads + 2 * shape.num_kv_heads} * shape.head_dim;
  ParallelRows(args.num_rows, floats_per_row, pool, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(RunRopeRows)(args, begin, end);
  });
}

void MoveKv(const MoveKvArgs& args, ThreadPool& pool) {
  const AttentionShape& shape = args.shape;
  CHECK(shape.num_kv_heads > 0 && shape.head_dim % 2 == 0 && shape.head_dim <= kMaxHeadDim);
  const int64_t floats_per_move = int64_t{2} * shape.num_kv_heads * shape.head_dim;
  ParallelRows(args.num_moves, floats_per_move, pool, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(RunMoves)(args, begin, end);
  });
}

void SiluMultiply(const float* gate_up, int32_t num_rows, int32_t size, float* out,
                  ThreadPool& pool) {
  CHECK(size > 0);
  const SiluRows args{gate_up, size, out};
  ParallelRows(num_rows, 2 * int64_t{size}, pool, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(RunSiluRows)(args, begin, end);
  });
}

}  // namespace chorus
#endif  // HWY_ONCE
