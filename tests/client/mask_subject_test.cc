// A prompt of `chorus mask --model` is tokenised and laid out as the server does it.
#include "client/mask_subject.h"

#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

#include "server/parse_request.h"

namespace chorus {
namespace {

using ::testing::SizeIs;

constexpr const char* kModel = "tests/golden/models/tiny_mha";

struct PromptCase {
  const char* name;
  std::vector<std::string> flags;
};

class MaskPromptTest : public ::testing::TestWithParam<PromptCase> {};

TEST_P(MaskPromptTest, HasTheServersTokensAndLayout) {
  std::vector<std::string> arguments = {"Who wrote it?", absl::StrCat("--model=", kModel),
                                        "--paraphrase=Name the author.",
                                        "--paraphrase=Whose <|im_start|> is it?", "--generated=3"};
  arguments.insert(arguments.end(), GetParam().flags.begin(), GetParam().flags.end());
  MaskOptions options;
  ASSERT_TRUE(MakeMaskParser(options).Parse(arguments).ok());
  options.question = "Who wrote it?";
  ASSERT_TRUE(FinishMaskOptions(options).ok());
  const absl::StatusOr<MaskSubject> subject = MakeMaskSubject(options);
  ASSERT_TRUE(subject.ok()) << subject.status();

  const auto tokenizer = Tokenizer::Load(absl::StrCat(kModel, "/tokenizer.json"));
  ASSERT_TRUE(tokenizer.ok());
  const RequestParser parser(tokenizer->get(), LoadTextConfig(kModel, **tokenizer).value(),
                             ParseLimits{(*tokenizer)->vocab_size(), 1000});
  const Request request =
      parser.Parse(MakeGenerateRequest(options.ask, v1::FUSION_METHOD_ATTENTION), {"request-id", 1})
          .value();

  std::vector<int32_t> ids = request.prefix;
  std::vector<TokenRange> segments;
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    if (i > 0) ids.insert(ids.end(), request.separator.begin(), request.separator.end());
    const bool is_attached = request.fusion.separators == SeparatorPolicy::kAttached;
    if (i > 0 && is_attached) segments.back().end = static_cast<int32_t>(ids.size());
    const auto begin = static_cast<int32_t>(ids.size());
    ids.insert(ids.end(), request.prompts[i].begin(), request.prompts[i].end());
    segments.push_back({begin, static_cast<int32_t>(ids.size())});
  }
  const auto original_length = static_cast<int32_t>(ids.size());
  ids.insert(ids.end(), request.suffix.begin(), request.suffix.end());

  EXPECT_EQ(subject->token_ids, ids);
  EXPECT_EQ(subject->layout.prefix_length(), static_cast<int32_t>(request.prefix.size()));
  EXPECT_EQ(subject->layout.segments(), segments);
  EXPECT_EQ(subject->layout.original_length(), original_length);
  EXPECT_EQ(subject->length, static_cast<int32_t>(ids.size()) + 3);
  EXPECT_THAT(subject->token_texts, SizeIs(ids.size()));
}

INSTANTIATE_TEST_SUITE_P(
    Prompts, MaskPromptTest,
    ::testing::Values(PromptCase{"Plain", {}}, PromptCase{"ChatMl", {"--template=chatml"}},
                      PromptCase{"ChatMlWithSystem", {"--template=chatml", "--system=Be brief."}},
                      PromptCase{"Llama3WithOwnSuffix", {"--template=llama3", "--suffix=A:"}},
                      PromptCase{"PrefixAndSuffix", {"--prefix=Q: A\\n", "--suffix=\\nA:"}},
                      PromptCase{"Separators", {"--separator=;;"}},
                      PromptCase{"AttachedSeparators", {"--separator=;;", "--separators=attached"}},
                      PromptCase{"Prototype", {"--preset=prototype"}}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(MaskSubjectTest, APromptWithoutTokensIsNamed) {
  MaskOptions options = {.model = kModel, .question = "Why?"};
  options.ask.paraphrases = {"How?", ""};
  ASSERT_TRUE(FinishMaskOptions(options).ok());
  EXPECT_EQ(MakeMaskSubject(options).status().message(),
            "--paraphrase number 2: 0 bytes is not valid: must hold at least one token of the "
            "model's vocabulary");
}

}  // namespace
}  // namespace chorus
