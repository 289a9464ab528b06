#include "core/model/kv_storage.h"

#include "core/base/check.h"

namespace chorus {

KvStorage::KvStorage(const ModelConfig& config, KvType type, int32_t num_slots)
    : type_(type), num_slots_(num_slots) {
  CHECK(num_slots >= 1);
  const auto element = type == KvType::kFloat32 ? at::kFloat : at::kBFloat16;
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    k_.push_back(at::empty({num_slots, config.num_kv_heads, config.head_dim}, element));
    v_.push_back(at::empty({num_slots, config.num_kv_heads, config.head_dim}, element));
  }
}

KvView KvStorage::Layer(int32_t layer) const {
  return {
      .type = type_, .k = k_[layer].data_ptr(), .v = v_[layer].data_ptr(), .num_slots = num_slots_};
}

int64_t KvStorage::BytesPerToken(const ModelConfig& config, KvType type) {
  const int64_t element_bytes = type == KvType::kFloat32 ? 4 : 2;
  return 2 * int64_t{config.num_layers} * config.kv_size() * element_bytes;
}

}  // namespace chorus
