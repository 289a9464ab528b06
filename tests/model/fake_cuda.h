#pragma once

#include <cstdint>
#include <vector>

// CUDA's runtime and cuBLASLt as far as CudaStream calls them, on host memory: for tests of what is
// around them, on machines without a GPU. Linked in place of the libraries. Copies are done as late
// as CUDA may do them, when somebody waits: so what is read or overwritten too early is seen.
// Products are computed from the descriptors alone, as cuBLASLt defines them.
namespace chorus::fake_cuda {

// What is offered for products with numbers of rows in [min_rows, max_rows], best first.
struct Algorithm {
  int32_t min_rows = 1;
  int32_t max_rows = 1 << 20;
  bool fails = false;             // when it is used
  int32_t splits_from = 1 << 30;  // from so many rows on, sums of a row are in another order
};

struct Product {
  uint64_t algorithm = 0;  // index
  int32_t num_rows = 0;
};

// Forgets everything of earlier tests.
void Reset(std::vector<Algorithm> algorithms);
// The products that were computed, in order.
const std::vector<Product>& Products();
// Bytes of page-locked memory that are allocated now.
int64_t PinnedBytes();

}  // namespace chorus::fake_cuda
