#include "core/kernels/cuda/host_wgmma.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"

#include "core/kernels/cuda/host_block.h"

namespace chorus::device {
namespace {

constexpr int kDepth = 16;  // of one wgmma
constexpr int kPieceBytes = 16;
constexpr int kPieceElements = 8;
constexpr int kRowBytes = 128;  // of a swizzled atom: 8 rows, 1024 bytes

const WgmmaCall& CallOf(std::span<void* const> calls, int lane) {
  return *static_cast<const WgmmaCall*>(calls[lane]);
}

// A matrix descriptor of the PTX ISA, taken apart. Offsets in bytes.
struct Descriptor {
  explicit Descriptor(uint64_t bits)
      : start((bits & 0x3FFF) << 4),
        leading((bits >> 16 & 0x3FFF) << 4),
        stride((bits >> 32 & 0x3FFF) << 4) {
    if (bits >> 62 != 1) throw HostFault{"a matrix descriptor is not of the 128-byte swizzle"};
    if ((bits >> 49 & 7) != 0) throw HostFault{"a matrix descriptor has a base offset"};
    constexpr uint64_t kUsed = 0x3FFF | 0x3FFFull << 16 | 0x3FFFull << 32 | 3ull << 62;
    if ((bits & ~kUsed) != 0) throw HostFault{"a matrix descriptor has bits of no meaning"};
  }
  SharedAddress start, leading, stride;
};

// The swizzle works on the address: bits 4 to 6 by bits 7 to 9.
SharedAddress Swizzled(SharedAddress address) { return address ^ (address >> 3 & 0x70); }

}  // namespace

void HostWgmma::CheckCalls(std::span<void* const> calls) const {
  const WgmmaCall& first = CallOf(calls, 0);
  for (int lane = 0; lane < kWarpgroupSize; ++lane) {
    const WgmmaCall& call = CallOf(calls, lane);
    if (call.a_matrix != first.a_matrix || call.b_matrix != first.b_matrix ||
        call.num_columns != first.num_columns || call.is_added != first.is_added) {
      throw HostFault{"threads of one warpgroup give different operands to a wgmma"};
    }
    const Thread& thread = threads_[lane];
    if (!thread.is_fenced) throw HostFault{"a wgmma without a fence since the last wait"};
    if (thread.num_committed != threads_[0].num_committed) {
      throw HostFault{"threads of one warpgroup committed different numbers of wgmma groups"};
    }
  }
}

// Rows of A, or columns of B, with their 16 elements along K. As the canonical layouts have it, in
// pieces of 16 bytes, before the swizzle:
//   K-major: row r's pieces 0 and 1 at (r / 8) stride + (r % 8) 128 + 16 piece
//   MN-major: rows [8 p, 8 p + 8) of element k at (p / 8) leading + (p % 8) 16 + (k / 8) stride +
//             (k % 8) 128
HostWgmma::Matrix HostWgmma::ReadMatrix(const WgmmaCall& call, uint64_t descriptor, int num_rows,
                                        bool is_transposed, int first_thread,
                                        Flight& flight) const {
  const Descriptor matrix(descriptor);
  HostSharedMemory& shared = HostBlock::Current().shared();
  Matrix out(num_rows);
  const auto read = [&](SharedAddress offset, auto store) {
    const SharedAddress at = Swizzled(matrix.start + offset);
    uint16_t elements[kPieceElements];
    shared.BeginRead(at, elements, kPieceBytes, first_thread);
    flight.pieces.push_back(at);
    for (int i = 0; i < kPieceElements; ++i) store(i, call.to_float(elements[i]));
  };
  if (is_transposed) {
    for (int p = 0; p < num_rows / kPieceElements; ++p) {
      for (int k = 0; k < kDepth; ++k) {
        read(p / 8 * matrix.leading + p % 8 * kPieceBytes + k / 8 * matrix.stride +
                 k % 8 * kRowBytes,
             [&](int i, float value) { out[p * kPieceElements + i][k] = value; });
      }
    }
    return out;
  }
  for (int row = 0; row < num_rows; ++row) {
    for (int p = 0; p < kDepth / kPieceElements; ++p) {
      read(row / 8 * matrix.stride + row % 8 * kRowBytes + p * kPieceBytes,
           [&](int i, float value) { out[row][p * kPieceElements + i] = value; });
    }
  }
  return out;
}

// The thread's fragment: rows g and g + 8 of its warp's 16, columns 2 t and 2 t + 1 of every 8.
// Products of 16-bit floats are exact in float32; the hardware's order of the sum is not
// documented.
void HostWgmma::Multiply(const WgmmaCall& call, const Matrix& a, const Matrix& b, int lane) {
  Thread& thread = threads_[lane];
  const int size = call.num_columns / 2;
  auto found = std::find_if(thread.accumulators.begin(), thread.accumulators.end(),
                            [&](const Accumulator& each) { return each.d == call.d; });
  if (found == thread.accumulators.end()) {
    found = thread.accumulators.insert(found, {call.d, {call.d, call.d + size}, 0});
  }
  found->group = thread.num_committed;
  const int row = lane / kWarpSize * 16 + lane % kWarpSize / 4;
  for (int i = 0; i < size; ++i) {
    const std::array<float, kDepth>& a_row = a[row + i % 4 / 2 * 8];
    const std::array<float, kDepth>& b_column = b[i / 4 * 8 + 2 * (lane % 4) + i % 2];
    float sum = 0.0f;
    for (int k = 0; k < kDepth; ++k) sum += a_row[k] * b_column[k];
    found->values[i] = call.is_added ? found->values[i] + sum : sum;
  }
  std::fill_n(call.d, size, std::numeric_limits<float>::quiet_NaN());
}

void HostWgmma::Issue(std::span<void* const> calls, int first_thread) {
  CheckCalls(calls);
  const WgmmaCall& first = CallOf(calls, 0);
  Flight flight{.pieces = {}, .group = threads_[0].num_committed};
  Matrix a(64);
  if (first.a == nullptr) {
    a = ReadMatrix(first, first.a_matrix, 64, false, first_thread, flight);
  } else {
    for (int lane = 0; lane < kWarpgroupSize; ++lane) {
      const uint32_t* registers = CallOf(calls, lane).a;
      const int row = lane / kWarpSize * 16 + lane % kWarpSize / 4, column = 2 * (lane % 4);
      for (int i = 0; i < 4; ++i) {
        float* to = &a[row + i % 2 * 8][column + i / 2 * 8];
        to[0] = first.to_float(static_cast<uint16_t>(registers[i]));
        to[1] = first.to_float(static_cast<uint16_t>(registers[i] >> 16));
      }
      Registers kept{registers, {}, threads_[lane].num_committed};
      std::copy_n(registers, 4, kept.values.begin());
      threads_[lane].registers.push_back(kept);
    }
  }
  const Matrix b = ReadMatrix(first, first.b_matrix, first.num_columns, first.is_b_transposed,
                              first_thread, flight);
  for (int lane = 0; lane < kWarpgroupSize; ++lane) Multiply(CallOf(calls, lane), a, b, lane);
  flights_.push_back(std::move(flight));
}

void HostWgmma::Wait(int lane, int num_pending, int thread_index) {
  Thread& thread = threads_[lane];
  thread.is_fenced = false;
  const int64_t num_ended = thread.num_committed - num_pending;
  std::erase_if(thread.accumulators, [&](const Accumulator& each) {
    if (each.group >= num_ended) return false;
    std::copy(each.values.begin(), each.values.end(), each.d);
    return true;
  });
  std::erase_if(thread.registers, [&](const Registers& each) {
    if (!std::equal(each.values.begin(), each.values.end(), each.at)) {
      throw HostFault{"changed a register that a wgmma under way reads"};
    }
    return each.group < num_ended;
  });
  if (lane % kWarpSize == 0) EndFlights(lane, num_ended, thread_index);
}

void HostWgmma::EndFlights(int lane, int64_t num_ended, int thread) {
  HostSharedMemory& shared = HostBlock::Current().shared();
  std::erase_if(flights_, [&](Flight& flight) {
    bool& has_waited = flight.has_waited[lane / kWarpSize];
    if (flight.group >= num_ended || has_waited) return false;
    has_waited = true;
    const bool is_last = std::all_of(flight.has_waited.begin(), flight.has_waited.end(),
                                     [](bool has) { return has; });
    for (SharedAddress piece : flight.pieces) {
      shared.ExtendRead(piece, kPieceBytes, thread);
      if (is_last) shared.EndRead(piece, kPieceBytes);
    }
    return is_last;
  });
}

void HostWgmma::CheckResult(int lane, const float* d) const {
  for (const Accumulator& each : threads_[lane].accumulators) {
    if (each.d == d) throw HostFault{"uses the result of a wgmma that it has not waited for"};
  }
}

void HostWgmma::CheckEnd() const {
  if (!flights_.empty()) throw HostFault{"a thread ended before its wgmma"};
}

}  // namespace chorus::device
