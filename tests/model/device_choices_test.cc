// From a step's choices to chosen tokens through the packed form and the kernels on the host back
// end, against the CPU's CombineLogits, SampleToken, Disagreement and AppendLogprobs.
#include "core/model/device_choices.h"

#include <limits>
#include <random>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "tests/kernels/device_sampling_support.h"

namespace chorus {
namespace {

TEST(DeviceChoicesTest, PackedChoicesComeOutAsTheCpuChooses) {
  std::mt19937 random(21);
  int num_near = 0, num_choices = 0;
  for (const int32_t vocab_size : {7, 1000}) {
    const StepLogits logits = RandomLogits(8, vocab_size, 3.0f, true, random);
    std::vector<OwnedChoice> owned;
    for (int i = 0; i < 40; ++i) {
      owned.push_back(RandomChoice(logits, random));
      // Rules whose combined rows have the CPU's bits: nothing but rounding near a draw may differ.
      TokenChoice& choice = owned.back().choice;
      if (choice.rule == CombineRule::kProbMean) choice.rule = CombineRule::kLogitMean;
      if (choice.rule == CombineRule::kProbMax) choice.rule = CombineRule::kLogitMax;
    }
    std::vector<TokenChoice> choices;
    for (const OwnedChoice& each : owned) choices.push_back(each.Borrow());
    const std::vector<ChosenToken> chosen = SampleOnDevice(choices, logits).chosen;
    ASSERT_EQ(chosen.size(), choices.size());
    for (size_t i = 0; i < choices.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "vocabulary of " << vocab_size << ", choice " << i);
      const std::vector<float> combined = CombineOnCpu(choices[i], logits);
      num_near += ExpectSameChoice(chosen[i], choices[i], logits, combined);
      ++num_choices;
      ASSERT_EQ(chosen[i].logits.size(), choices[i].want_logits ? combined.size() : 0);
    }
  }
  EXPECT_LE(num_near, num_choices / 10);
}

TEST(DeviceChoicesTest, FailuresHaveTheStatusOfTheCpu) {
  const float infinity = std::numeric_limits<float>::infinity();
  const StepLogits logits = {{0, 1}, 3, {1.0f, 3e38f, 2.0f, 1.0f, infinity, 2.0f}};
  std::vector<OwnedChoice> owned(4);
  for (OwnedChoice& each : owned) {
    each.choice.rows = {0};
    each.choice.targets = {2};
    each.choice.target_rows = {0, 1};
  }
  owned[0].sampling.allowed_token_ids = {7};    // of another vocabulary
  owned[1].sampling.logit_bias = {{1, 3e38f}};  // no longer finite
  owned[2].choice.rows = {1};
  std::vector<TokenChoice> choices;
  for (const OwnedChoice& each : owned) choices.push_back(each.Borrow());
  const std::vector<ChosenToken> chosen = SampleOnDevice(choices, logits).chosen;
  EXPECT_TRUE(absl::IsInvalidArgument(chosen[0].status));
  EXPECT_TRUE(absl::IsInternal(chosen[1].status));
  EXPECT_TRUE(absl::IsInternal(chosen[2].status));
  EXPECT_TRUE(chosen[3].status.ok());
  for (size_t i = 0; i < choices.size(); ++i) {
    ExpectSameChoice(chosen[i], choices[i], logits, CombineOnCpu(choices[i], logits));
  }
}

TEST(DeviceChoicesTest, KernelsThatNoChoiceNeedsAreNotAskedFor) {
  OwnedChoice owned;
  owned.choice.rows = {4};
  const auto pack = [&] {
    const TokenChoice choice = owned.Borrow();
    return PackChoices({&choice, 1}, {2, 4}, 10);
  };
  PackedChoices packed = pack();
  EXPECT_FALSE(packed.combines() || packed.adjusts() || packed.compares());
  EXPECT_EQ(packed.num_changed_rows(), 0);
  EXPECT_EQ(packed.InputsAt(packed.bytes().data()).row_indices[0], 1);
  owned.banned = {3};
  packed = pack();
  EXPECT_TRUE(packed.adjusts() && !packed.combines());
  EXPECT_EQ(packed.num_changed_rows(), 1);
  owned.choice.rule = CombineRule::kLogitMean;
  owned.choice.compared_rows = {2, 4};
  packed = pack();
  EXPECT_TRUE(packed.combines() && packed.compares());
}

TEST(DeviceChoicesTest, NoChoicesAreAnEmptyStep) {
  const PackedChoices packed = PackChoices({}, {}, 10);
  EXPECT_EQ(packed.num_choices(), 0);
  EXPECT_EQ(packed.output_bytes(), 0);
  EXPECT_TRUE(UnpackChosen({}, packed, nullptr, nullptr, 10).empty());
}

}  // namespace
}  // namespace chorus
