// The rate of at::linear at the shapes of kernels_bench, to compare PackedLinear with: run the two
// one after the other. Prints JSON. With one thread the clock is that thread's own processor time.
//
//   torch_linear_bench [num_threads = 2]

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <time.h>

namespace {

double Seconds(int num_threads) {
  timespec now;
  clock_gettime(num_threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void BenchShape(at::ScalarType type, int64_t in_features, int64_t out_features, int num_threads,
                bool& is_first) {
  // As in kernels_bench: for few rows, copies of the weights that no cache holds together.
  const int64_t bytes = in_features * out_features * (type == at::kFloat ? 4 : 2);
  const int64_t num_copies = std::max<int64_t>(1, (int64_t{300} << 20) / bytes);
  std::vector<at::Tensor> weights;
  for (int64_t i = 0; i < num_copies; ++i) {
    weights.push_back(at::rand({out_features, in_features}, type));
  }
  for (int64_t num_rows : {1, 6, 32, 103, 228, 512}) {
    const at::Tensor x = at::rand({num_rows, in_features}, type);
    double best = INFINITY, total = 0.0;
    for (int i = 0; i < 5 || total < 0.2; ++i) {
      const double start = Seconds(num_threads);
      const at::Tensor y = at::linear(x, weights[num_rows < 32 ? i % num_copies : 0]);
      const double seconds = Seconds(num_threads) - start;
      best = std::min(best, seconds);
      total += seconds;
    }
    const double flops = 2.0 * num_rows * in_features * out_features / best;
    std::printf(
        "%s\n {\"type\": \"%s\", \"in_features\": %ld, \"out_features\": %ld, "
        "\"num_rows\": %ld, \"microseconds\": %.1f, \"gflops\": %.1f, "
        "\"weight_gb_per_second\": %.2f}",
        is_first ? "" : ",", type == at::kFloat ? "float32" : "bfloat16", in_features, out_features,
        num_rows, best * 1e6, flops * 1e-9, bytes / best * 1e-9);
    is_first = false;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int num_threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 2;
  at::set_num_threads(num_threads);
  const c10::InferenceMode inference_mode;
  constexpr int64_t kShapes[][2] = {{576, 960}, {576, 576}, {576, 3072}, {1536, 576}, {576, 49152}};
  bool is_first = true;
  std::printf("{\"threads\": %d, \"linear\": [", num_threads);
  for (at::ScalarType type : {at::kBFloat16, at::kFloat}) {
    for (const auto& shape : kShapes) {
      BenchShape(type, shape[0], shape[1], num_threads, is_first);
    }
  }
  std::printf("\n]}\n");
}
