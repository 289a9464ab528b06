#include "core/segment/layer_masks.h"

#include <random>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/segment/composed_mask.h"
#include "core/segment/custom_mask.h"
#include "core/segment/mask_validation.h"
#include "core/segment/shared_prefix_mask.h"
#include "tests/segment/mask_support.h"

namespace chorus {
namespace {

using testing::HasSubstr;

const MaskConfig kNoConfig;

// Random padding, packing and overlays over a cache that may have forgotten its oldest tokens; with
// what they mean, pair by pair, in tokens.
struct RandomPass {
  MaskInputs inputs;
  std::vector<uint8_t> valid;  // [batch, tokens]; empty: no padding
  std::vector<int32_t> ids;    // the same; empty: not packed
  bool has_prefix = false, has_even_keys = false;
  int32_t prefix_length = 0;

  int32_t num_tokens() const { return inputs.cache_position + inputs.num_queries; }

  bool Allows(bool base, int32_t b, int32_t key) const {
    const size_t i = size_t(b) * num_tokens() + key;
    bool allows = base;
    if (has_prefix) allows |= key < prefix_length;
    if (has_even_keys) allows &= key % 2 == 0;
    return allows && (valid.empty() || valid[i] != 0);
  }
  bool SameSequence(int32_t b, int32_t q, int32_t k) const {
    const size_t begin = size_t(b) * num_tokens();
    return ids.empty() || ids[begin + q] == ids[begin + k];
  }
};

RandomPass MakePass(std::mt19937& random) {
  RandomPass pass;
  MaskInputs& inputs = pass.inputs;
  inputs.batch = 1 + Below(random, 3);
  inputs.num_queries = 1 + Below(random, 9);
  inputs.cache_position = Below(random, 2) * Below(random, 9);
  inputs.cached_length =
      Below(random, 2) ? inputs.cache_position : Below(random, inputs.cache_position + 1);
  const int32_t size = inputs.batch * pass.num_tokens();
  if (Below(random, 2)) {
    for (int32_t i = 0; i < size; ++i) pass.valid.push_back(Below(random, 6) > 0);
    inputs.padding = PaddingMask::Create(inputs.batch, pass.num_tokens(), pass.valid).value();
  }
  if (Below(random, 4) == 0) {
    for (int32_t i = 0; i < size; ++i) pass.ids.push_back(Below(random, 2));
    inputs.packed = PackedMask::FromSequenceIds(inputs.batch, pass.num_tokens(), pass.ids).value();
  }
  pass.has_prefix = Below(random, 4) == 0;
  pass.prefix_length = Below(random, 4);
  if (pass.has_prefix) inputs.or_mask = SharedPrefixMask(pass.prefix_length);
  pass.has_even_keys = Below(random, 4) == 0;
  if (pass.has_even_keys) {
    inputs.and_mask = CustomMask([](const MaskRow&, int32_t key) { return key % 2 == 0; });
  }
  return pass;
}

// The layer's matrix equals the pass's definition over `base` of tokens; where no mask is made, the
// definition is plainly causal.
template <typename Base>
void ExpectLayer(const absl::StatusOr<LayerMask>& layer, const RandomPass& pass, const Base& base) {
  ASSERT_TRUE(layer.ok()) << layer.status();
  const MaskInputs& inputs = pass.inputs;
  const int32_t first_key = inputs.cache_position - inputs.cached_length;
  const int32_t num_keys = inputs.cached_length + inputs.num_queries;
  ASSERT_EQ(layer->shape.num_keys, num_keys);
  const auto allows = [&](int32_t b, int32_t q, int32_t k) {
    const int32_t query = q + inputs.cache_position, key = k + first_key;
    return pass.Allows(base(query, key) && pass.SameSequence(b, query, key), b, key);
  };
  const Matrix expected = Tabulate(inputs.batch, inputs.num_queries, num_keys, allows);
  if (layer->mask.has_value()) {
    ASSERT_EQ(Tabulate(*layer->mask, inputs.batch, inputs.num_queries, num_keys), expected);
  } else {
    ASSERT_EQ(expected, Tabulate(inputs.batch, inputs.num_queries, num_keys,
                                 [&](int32_t, int32_t q, int32_t k) {
                                   return k <= q + num_keys - inputs.num_queries;
                                 }));
  }
}

TEST(LayerMasksTest, EveryKindIsItsDefinitionUnderPaddingPackingOverlaysAndCaches) {
  for (uint32_t seed = 1; seed <= 2000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const RandomPass pass = MakePass(random);
    const int32_t window = 1 + Below(random, 12), chunk = 1 + Below(random, 12);
    const MaskConfig config = {.sliding_window = window, .chunk_length = chunk};
    ExpectLayer(CreateCausalMask(pass.inputs), pass, [](int32_t q, int32_t k) { return k <= q; });
    ExpectLayer(CreateSlidingWindowCausalMask(config, pass.inputs), pass,
                [&](int32_t q, int32_t k) { return k <= q && q - k < window; });
    ExpectLayer(CreateChunkedCausalMask(config, pass.inputs), pass,
                [&](int32_t q, int32_t k) { return k <= q && q / chunk == k / chunk; });
    if (HasFatalFailure()) return;
  }
}

TEST(LayerMasksTest, NoMaskIsMadeExactlyWhereThePassIsPlainlyCausal) {
  int made = 0, skipped = 0;
  for (int32_t cache_position : {0, 3, 8}) {
    for (int32_t cached_length = 0; cached_length <= cache_position; ++cached_length) {
      for (int32_t size = 1; size <= 14; ++size) {
        const MaskInputs inputs = {
            .num_queries = 4, .cache_position = cache_position, .cached_length = cached_length};
        const MaskConfig config = {.sliding_window = size, .chunk_length = size};
        EXPECT_FALSE(CreateCausalMask(inputs)->mask.has_value());
        const int32_t num_keys = cached_length + 4;
        EXPECT_EQ(CreateSlidingWindowCausalMask(config, inputs)->mask.has_value(), num_keys > size);
        const LayerMask chunked = CreateChunkedCausalMask(config, inputs).value();
        chunked.mask.has_value() ? ++made : ++skipped;
        if (!chunked.mask.has_value()) continue;
        EXPECT_FALSE(IsPlainlyCausal(
            MaskRows::Compile(*chunked.mask, {.num_queries = 4, .num_keys = num_keys})));
      }
    }
  }
  EXPECT_GT(made, 20);
  EXPECT_GT(skipped, 20);
  const std::vector<uint8_t> all_valid(4, 1);
  MaskInputs padded = {.num_queries = 4};
  padded.padding = PaddingMask::Create(1, 4, all_valid).value();
  EXPECT_FALSE(CreateCausalMask(padded)->mask.has_value());
}

TEST(LayerMasksTest, GenerationHasOneMaskForEachKindOfLayer) {
  const MaskConfig config = {.layer_kinds = {AttentionWindow::Kind::kSliding, AttentionWindow::Kind::kFull,
                                             AttentionWindow::Kind::kSliding, AttentionWindow::Kind::kFull},
                             .sliding_window = 3};
  const auto masks =
      CreateMasksForGeneration(config, {.num_queries = 2, .cache_position = 7, .cached_length = 7})
          .value();
  ASSERT_EQ(masks.size(), 2u);
  EXPECT_FALSE(masks.at(AttentionWindow::Kind::kFull).mask.has_value());
  const LayerMask& sliding = masks.at(AttentionWindow::Kind::kSliding);
  ASSERT_TRUE(sliding.mask.has_value());
  const MaskRows rows = CompileBatch(*sliding.mask, sliding.shape).front();
  EXPECT_TRUE(ValidateSlidingWindow(rows, 3, sliding.offsets).ok());
  EXPECT_EQ(rows.CountAllowed(), 6);
}

TEST(LayerMasksTest, BadInputIsRefusedByName) {
  const auto message = [](const auto& result) { return std::string(result.status().message()); };
  EXPECT_THAT(message(CreateCausalMask({.num_queries = -1})), HasSubstr("num_queries: -1"));
  EXPECT_THAT(
      message(CreateCausalMask({.num_queries = 1, .cache_position = 2, .cached_length = 3})),
      HasSubstr("cached_length: 3 is not valid: must be at most cache_position 2"));
  MaskInputs inputs = {.num_queries = 4};
  inputs.padding = PaddingMask::Create(1, 3, {1, 1, 0}).value();
  EXPECT_THAT(message(CreateCausalMask(inputs)),
              HasSubstr("padding: [1, 3] is not valid: must be [batch, cache_position + "
                        "num_queries] = [1, 4]"));
  EXPECT_THAT(message(CreateSlidingWindowCausalMask(kNoConfig, {.num_queries = 4})),
              HasSubstr("sliding_window: nothing"));
  EXPECT_THAT(message(CreateChunkedCausalMask({.chunk_length = 0}, {.num_queries = 4})),
              HasSubstr("chunk_length: 0 is not valid: must be at least 1"));
  EXPECT_FALSE(
      CreateMasksForGeneration({.layer_kinds = {AttentionWindow::Kind::kChunked}}, {.num_queries = 4})
          .ok());
}

}  // namespace
}  // namespace chorus
