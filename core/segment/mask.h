#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/segment/segment_layout.h"

namespace chorus {

// One row of an attention matrix: query `query` of batch entry `batch`, in head `head`. Rules that
// do not look at the batch or the head ignore them.
struct MaskRow {
  int32_t batch = 0;
  int32_t head = 0;
  int32_t query = 0;
};

// What a mask is made of: a small value that answers for one pair, and for a whole row.
//
//   bool Allows(const MaskRow& row, int32_t key) const;
//     May the row attend to `key`? row.query, key >= 0.
//
//   void AppendKeys(const MaskRow& row, TokenRange window, std::vector<TokenRange>* keys) const;
//     Appends the keys in `window` that Allows says yes to, as ranges: ascending, none empty, no
//     two touching. The time is that of the ranges, never that of the keys (but for CustomMask), so
//     that compiling a mask costs O(rows + ranges). 0 <= window.begin <= window.end.
template <typename Rule>
concept MaskRule = requires(const Rule& rule, const MaskRow& row, int32_t key, TokenRange window,
                            std::vector<TokenRange>* keys) {
  { rule.Allows(row, key) } -> std::same_as<bool>;
  { rule.AppendKeys(row, window, keys) } -> std::same_as<void>;
};

// Any rule of the mask algebra, as one type: an immutable value, cheap to copy, usable from any
// thread. Masks compose:
//
//   Mask mask = AndMask({SlidingWindowMask(512), PaddingMask::Create(2, 600, valid).value()});
//   const MaskShape shape = {.batch = 2, .num_queries = 600, .num_keys = 600};
//   std::vector<MaskRows> rows = CompileBatch(mask, shape);
//
// The serving path does not go through here: RowIntervals::FromLayout makes the one mask it has.
class Mask {
 public:
  template <MaskRule Rule>
  requires(!std::same_as<Rule, Mask>) Mask(Rule rule)
      : rule_(std::make_shared<const Held<Rule>>(std::move(rule))) {}

  bool Allows(const MaskRow& row, int32_t key) const { return rule_->Allows(row, key); }
  void AppendKeys(const MaskRow& row, TokenRange window, std::vector<TokenRange>* keys) const {
    rule_->AppendKeys(row, window, keys);
  }

 private:
  struct Interface {
    virtual ~Interface() = default;
    virtual bool Allows(const MaskRow& row, int32_t key) const = 0;
    virtual void AppendKeys(const MaskRow& row, TokenRange window,
                            std::vector<TokenRange>* keys) const = 0;
  };
  template <typename Rule>
  struct Held final : Interface {
    explicit Held(Rule held) : rule(std::move(held)) {}
    bool Allows(const MaskRow& row, int32_t key) const override { return rule.Allows(row, key); }
    void AppendKeys(const MaskRow& row, TokenRange window,
                    std::vector<TokenRange>* keys) const override {
      rule.AppendKeys(row, window, keys);
    }
    const Rule rule;
  };

  std::shared_ptr<const Interface> rule_;
};

}  // namespace chorus
