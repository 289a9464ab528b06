#pragma once

// The primitives that the device kernels are written in: mma tile, matrix load, asynchronous copy,
// shuffle, barrier, loads and stores. nvcc compiles a kernel to instructions (device_cuda.h); any
// other compiler runs the same source on a simulated thread block (device_host.h), slowly and
// exactly, with poisoned shared memory and checks for races and bounds.
//
// Names and fragment layouts are those of the PTX ISA: lane = 4 g + t;
//   A [16, 16]  a0 (g, 2t..)   a1 (g + 8, 2t..)   a2 (g, 2t + 8..)   a3 (g + 8, 2t + 8..)
//   B [16, 8]   b0 (2t.., g)   b1 (2t + 8.., g)
//   C [16, 8]   c0, c1 (g, 2t..)   c2, c3 (g + 8, 2t..)
#if defined(__CUDACC__)
#include "core/kernels/cuda/device_cuda.h"
#else
#include "core/kernels/cuda/device_host.h"
#endif
