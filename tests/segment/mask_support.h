#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "core/segment/mask.h"
#include "core/segment/segment_layout.h"

namespace chorus {

// A matrix of answers, [batch][query][key]: what a test asks of masks pair by pair.
using Matrix = std::vector<std::vector<std::vector<bool>>>;

template <typename Predicate>
Matrix Tabulate(int32_t batch, int32_t num_queries, int32_t num_keys, const Predicate& allows) {
  Matrix matrix(batch);
  for (int32_t b = 0; b < batch; ++b) {
    for (int32_t q = 0; q < num_queries; ++q) {
      std::vector<bool>& row = matrix[b].emplace_back();
      for (int32_t k = 0; k < num_keys; ++k) row.push_back(allows(b, q, k));
    }
  }
  return matrix;
}

inline Matrix Tabulate(const Mask& mask, int32_t batch, int32_t num_queries, int32_t num_keys) {
  return Tabulate(batch, num_queries, num_keys, [&](int32_t b, int32_t q, int32_t k) {
    return mask.Allows({.batch = b, .query = q}, k);
  });
}

// A number of 0 to limit - 1.
inline int32_t Below(std::mt19937& random, int32_t limit) {
  return static_cast<int32_t>(random() % static_cast<uint32_t>(limit));
}

// Segments of one or a few tokens, touching or with gaps, with and without prefix and suffix.
SegmentLayout RandomLayout(std::mt19937& random);

// A rule or a composition of rules, at most `depth` compositions deep, for `batch` entries.
Mask RandomMask(std::mt19937& random, int32_t batch, int32_t depth);

}  // namespace chorus
