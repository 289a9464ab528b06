#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "core/text/tokenizer.h"

namespace chorus {

// kAuto stands for the family of the model's own chat template. Values equal those of
// chorus.v1.Template.
enum class TemplateKind { kAuto = 1, kNone = 2, kChatMl = 3, kLlama3 = 4 };

// What a model's directory says about text around a prompt.
struct TextConfig {
  // Told from the chat template's text: "<|im_start|>" is CHATML, "<|start_header_id|>" LLAMA3; a
  // model without a template, or with one of another family, is kNone. Never kAuto.
  TemplateKind family = TemplateKind::kNone;
  // The system message that the template itself spells out for conversations without one; empty if
  // it names none (or builds it from parts, as Llama 3.1 does with its dates).
  std::string default_system;
  // Set only if the tokenizer's configuration asks for a BOS before every text: the post_processor
  // of tokenizer.json puts one there, or add_bos_token is true. add_bos_token false overrules both.
  std::optional<int32_t> bos_token_id;
  // The tokenizer's BOS, whether or not it is put before every text: what a text that has nothing
  // before it is scored behind. Absent if the files name none, or one beyond the vocabulary.
  std::optional<int32_t> named_bos_token_id;
  // From generation_config.json, else config.json, else tokenizer_config.json's eos_token; in the
  // file's order, without repetitions. Empty if none of them says.
  std::vector<int32_t> eos_token_ids;
};

// Reads tokenizer_config.json, chat_template.jinja, generation_config.json and config.json of
// `model_directory`. A missing file is fine; a malformed one is InvalidArgument, naming file and
// path.
absl::StatusOr<TextConfig> LoadTextConfig(const std::string& model_directory,
                                          const Tokenizer& tokenizer);

// What stands before and after the segments.
struct PromptFrame {
  std::string prefix;
  std::string suffix;
};

// The frame of one turn:
//   kChatMl  prefix "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n",
//            suffix "<|im_end|>\n<|im_start|>assistant\n"
//   kLlama3  prefix "<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>"
//                   "<|start_header_id|>user<|end_header_id|>\n\n",
//            suffix "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
//   kNone    both empty
// With an empty `system` the whole system turn is left out. There is no BOS in the text: the caller
// puts bos_token_id at the head of the prefix's ids. REQUIRES: `kind` is not kAuto.
PromptFrame MakePromptFrame(TemplateKind kind, std::string_view system);

// What a caller says about the text around the prompts. What is absent is left to the template.
struct FrameText {
  std::optional<TemplateKind> kind;  // absent: no template if prefix or suffix is given, else kAuto
  std::optional<std::string_view> system;
  std::optional<std::string_view> prefix;  // prefix and suffix win over the template's
  std::optional<std::string_view> suffix;
  std::string_view separator;
};

struct FrameTokens {
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
  std::vector<int32_t> separator;
};

// The ids of a frame: spellings of special tokens are those tokens, and the prefix begins with
// bos_token_id exactly once if there is one.
FrameTokens EncodeFrame(const FrameText& text, const TextConfig& config,
                        const Tokenizer& tokenizer);

}  // namespace chorus
