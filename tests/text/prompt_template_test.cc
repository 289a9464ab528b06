#include "core/text/prompt_template.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A model directory of its own for each test.
class PromptTemplateTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    directory_ = std::filesystem::path(testing::TempDir()) /
                 (std::string("chorus_prompt_template_") + info->name());
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void Write(const std::string& name, const std::string& text) {
    std::ofstream(directory_ / name) << text;
  }

  absl::StatusOr<TextConfig> LoadFor(const std::string& tokenizer) {
    auto loaded = Tokenizer::Load("tests/text/data/" + tokenizer + ".json");
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return LoadTextConfig(directory_.string(), **loaded);
  }

  std::string ErrorFor(const std::string& tokenizer) {
    const absl::Status status = LoadFor(tokenizer).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  }

  std::filesystem::path directory_;
};

TEST_F(PromptTemplateTest, AnEmptyDirectoryIsABaseModel) {
  const auto config = LoadFor("gpt2_like");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family, TemplateKind::kNone);
  EXPECT_EQ(config->default_system, "");
  EXPECT_EQ(config->bos_token_id, std::nullopt);
  EXPECT_THAT(config->eos_token_ids, IsEmpty());
}

TEST_F(PromptTemplateTest, AMissingDirectoryIsNotFound) {
  std::filesystem::remove_all(directory_);
  EXPECT_TRUE(absl::IsNotFound(LoadFor("gpt2_like").status()));
}

TEST_F(PromptTemplateTest, ChatMlAndItsDefaultSystemAreReadFromTheTemplate) {
  Write(
      "tokenizer_config.json",
      R"J({"chat_template": "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou\\'re \\\"kind\\\".\\nAlways.<|im_end|>\\n' }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role }}{% endfor %}"})J");
  const auto config = LoadFor("gpt2_like");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family, TemplateKind::kChatMl);
  EXPECT_EQ(config->default_system, "You're \"kind\".\nAlways.");
}

TEST_F(PromptTemplateTest, ATemplateThatBuildsItsSystemTurnNamesNoDefault) {
  Write(
      "tokenizer_config.json",
      R"J({"chat_template": "{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}"})J");
  EXPECT_EQ(LoadFor("gpt2_like")->default_system, "");
}

TEST_F(PromptTemplateTest, TextOutsideLiteralsIsReadToo) {
  Write("chat_template.jinja", "{% if x %}\n<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}");
  const auto config = LoadFor("gpt2_like");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family, TemplateKind::kChatMl);
  EXPECT_EQ(config->default_system, "Be brief.");
}

TEST_F(PromptTemplateTest, TheFileComesBeforeTheMemberAndDefaultBeforeOthers) {
  Write("tokenizer_config.json", R"J({"chat_template": [
      {"name": "tool_use", "template": "<|im_start|>"},
      {"name": "default", "template": "{{ '<|start_header_id|>user<|end_header_id|>' }}"}]})J");
  EXPECT_EQ(LoadFor("gpt2_like")->family, TemplateKind::kLlama3);
  EXPECT_EQ(LoadFor("gpt2_like")->default_system, "");
  Write("chat_template.jinja", "[INST] {{ x }} [/INST]");
  EXPECT_EQ(LoadFor("gpt2_like")->family, TemplateKind::kNone);
}

TEST_F(PromptTemplateTest, BosComesFromThePostProcessorUnlessOverruled) {
  EXPECT_EQ(LoadFor("llama2_like")->bos_token_id, 1);
  Write("tokenizer_config.json", R"({"add_bos_token": true, "bos_token": "<s>"})");
  EXPECT_EQ(LoadFor("llama2_like")->bos_token_id, 1);
  Write("tokenizer_config.json", R"({"add_bos_token": false, "bos_token": "<s>"})");
  EXPECT_EQ(LoadFor("llama2_like")->bos_token_id, std::nullopt);
  Write("tokenizer_config.json", R"({"bos_token": "<|endoftext|>"})");
  EXPECT_EQ(LoadFor("gpt2_like")->bos_token_id, std::nullopt);  // named, but not asked for
  EXPECT_EQ(LoadFor("gpt2_like")->named_bos_token_id, 0);
  Write("tokenizer_config.json",
        R"({"add_bos_token": true, "bos_token": {"content": "<|endoftext|>"}})");
  EXPECT_EQ(LoadFor("gpt2_like")->bos_token_id, 0);
}

TEST_F(PromptTemplateTest, EosComesFromTheFirstFileThatSaysSo) {
  Write("tokenizer_config.json", R"({"eos_token": {"content": "<|endoftext|>"}})");
  EXPECT_THAT(LoadFor("gpt2_like")->eos_token_ids, ElementsAre(0));
  Write("config.json", R"({"eos_token_id": 7})");
  EXPECT_THAT(LoadFor("gpt2_like")->eos_token_ids, ElementsAre(7));
  Write("generation_config.json", R"({"eos_token_id": [9, 8, 9]})");
  EXPECT_THAT(LoadFor("gpt2_like")->eos_token_ids, ElementsAre(9, 8));
  Write("generation_config.json", R"({"eos_token_id": null})");
  EXPECT_THAT(LoadFor("gpt2_like")->eos_token_ids, ElementsAre(7));
}

TEST_F(PromptTemplateTest, MalformedFilesAreNamed) {
  Write("generation_config.json", R"({"eos_token_id": "2"})");
  EXPECT_THAT(ErrorFor("gpt2_like"),
              HasSubstr("generation_config.json: eos_token_id: must be an integer"));
  Write("generation_config.json", R"({"eos_token_id": [2, -1]})");
  EXPECT_THAT(ErrorFor("gpt2_like"),
              HasSubstr("generation_config.json: eos_token_id[1]: is -1, must be in"));
  Write("generation_config.json", "{");
  EXPECT_THAT(ErrorFor("gpt2_like"), HasSubstr("generation_config.json: not valid JSON"));
  Write("tokenizer_config.json", "[]");
  EXPECT_THAT(ErrorFor("gpt2_like"), HasSubstr("tokenizer_config.json: must be an object"));
  Write("tokenizer_config.json", R"({"chat_template": 3})");
  EXPECT_THAT(ErrorFor("gpt2_like"),
              HasSubstr("tokenizer_config.json: chat_template: must be a string or a list"));
  Write("tokenizer_config.json", R"({"add_bos_token": true, "bos_token": "<none>"})");
  EXPECT_THAT(ErrorFor("gpt2_like"), HasSubstr("bos_token: '<none>' is not in the vocabulary"));
  Write("tokenizer_config.json", R"({"add_bos_token": true})");
  EXPECT_THAT(ErrorFor("gpt2_like"), HasSubstr("bos_token: must be a string"));
}

TEST(PromptFrameTest, FramesAreWordForWordThoseOfTheContract) {
  const PromptFrame chatml = MakePromptFrame(TemplateKind::kChatMl, "Be kind.");
  EXPECT_EQ(chatml.prefix, "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n");
  EXPECT_EQ(chatml.suffix, "<|im_end|>\n<|im_start|>assistant\n");
  const PromptFrame llama3 = MakePromptFrame(TemplateKind::kLlama3, "Be kind.");
  EXPECT_EQ(llama3.prefix,
            "<|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\n");
  EXPECT_EQ(llama3.suffix, "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
  const PromptFrame none = MakePromptFrame(TemplateKind::kNone, "Be kind.");
  EXPECT_EQ(none.prefix + none.suffix, "");
}

TEST(PromptFrameTest, WithoutASystemMessageThereIsNoSystemTurn) {
  EXPECT_EQ(MakePromptFrame(TemplateKind::kChatMl, "").prefix, "<|im_start|>user\n");
  EXPECT_EQ(MakePromptFrame(TemplateKind::kLlama3, "").prefix,
            "<|start_header_id|>user<|end_header_id|>\n\n");
}

TEST(DefaultModelTest, ItsConfigurationIsUnderstood) {
  const std::string directory = "models/smollm2-135m-instruct";
  if (!std::filesystem::exists(directory + "/tokenizer.json")) {
    GTEST_SKIP() << directory << " is not there (scripts/convert_default_model.py makes it)";
  }
  const auto tokenizer = Tokenizer::Load(directory + "/tokenizer.json");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 49152);
  const auto config = LoadTextConfig(directory, **tokenizer);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family, TemplateKind::kChatMl);
  EXPECT_EQ(config->default_system,
            "You are a helpful AI assistant named SmolLM, trained by Hugging Face");
  EXPECT_EQ(config->bos_token_id, std::nullopt);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(2));
  EXPECT_THAT(
      (*tokenizer)->Encode(MakePromptFrame(config->family, "").prefix, SpecialTokens::kRecognize),
      ElementsAre(1, 4093, 198));
}

}  // namespace
}  // namespace chorus
