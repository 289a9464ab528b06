#include "client/answer_printer.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

#include "client/enum_names.h"
#include "client/safe_text.h"

namespace chorus {
namespace {

constexpr const char* kBold = "\x1b[1m";
constexpr const char* kDim = "\x1b[2m";
constexpr const char* kPlain = "\x1b[0m";

std::string Statistics(const v1::FinishInfo& finish) {
  const v1::Usage& usage = finish.usage();
  const std::string stop =
      finish.stop().empty() ? "" : absl::StrCat(" \"", absl::CHexEscape(finish.stop()), "\"");
  return absl::StrFormat(
      "ended by %s%s; %d tokens in %.2f s, the first after %.2f s; "
      "%d prompt tokens, %d of them cached",
      EnumName(finish.reason()), stop, usage.generated_tokens(), finish.timing().total_seconds(),
      finish.timing().first_token_seconds(), usage.prompt_tokens(), usage.cached_tokens());
}

std::string AlternativesLine(const v1::TopLogprobs& top) {
  return absl::StrJoin(top.entries(), "  ", [](std::string* out, const v1::TokenLogprob& entry) {
    absl::StrAppendFormat(out, "\"%s\" %.3f", absl::Utf8SafeCHexEscape(entry.text()),
                          entry.logprob());
  });
}

}  // namespace

AnswerPrinter::AnswerPrinter(Console& console, v1::FusionMethod method, bool is_one_of_several)
    : console_(console), method_(method), is_verbose_(is_one_of_several || console.is_terminal) {
  if (!is_verbose_) return;
  const std::string heading = EnumName(method);
  console_.out << (console_.has_colours ? absl::StrCat(kBold, heading, kPlain) : heading) << "\n";
  console_.out.flush();
}

void AnswerPrinter::Add(const v1::GenerateResponse& event) {
  if (event.has_chunk()) AddChunk(event.chunk());
  if (event.has_finish()) AddFinish(event.finish());
  console_.out.flush();
}

void AnswerPrinter::AddChunk(const v1::TokenChunk& chunk) {
  const bool is_per_prompt = method_ == v1::FUSION_METHOD_PER_PROMPT;
  for (const v1::TopLogprobs& top : chunk.top_logprobs()) {
    const std::string whose = is_per_prompt ? absl::StrCat("[", chunk.prompt_index(), "] ") : "";
    alternative_lines_.push_back(absl::StrCat(whose, AlternativesLine(top)));
  }
  if (!is_per_prompt) {
    Print(chunk.text());
    return;
  }
  prompt_texts_[chunk.prompt_index()].held_back += chunk.text();
  PrintWholeLines(chunk.prompt_index());
}

void AnswerPrinter::AddFinish(const v1::FinishInfo& finish) {
  // A prompt whose answer is empty may have sent no chunk, yet it gets its line.
  if (method_ == v1::FUSION_METHOD_PER_PROMPT) {
    for (const v1::PromptAnswer& answer : finish.prompts()) prompt_texts_[answer.index()];
  }
  // So does an empty answer: a reader of the pipe counts on a line.
  if (!has_text_ && prompt_texts_.empty()) Print("\n");
  Close();
  if (!is_verbose_) return;
  for (const v1::VoteCount& vote : finish.tally()) {
    PrintDim(absl::StrCat(vote.count(), " x \"", vote.answer(), "\" (prompts ",
                          absl::StrJoin(vote.prompt_indexes(), ", "), ")"));
  }
  PrintDim(Statistics(finish));
}

void AnswerPrinter::Close() {
  for (const auto& [prompt_index, text] : prompt_texts_) {
    if (text.held_back.empty() && text.has_line) continue;
    Print(absl::StrCat("[", prompt_index, "] ", text.held_back, "\n"));
  }
  prompt_texts_.clear();
  if (!is_line_start_) Print("\n");
  PrintAlternatives();
  console_.out.flush();
}

void AnswerPrinter::PrintWholeLines(int prompt_index) {
  PromptText& text = prompt_texts_[prompt_index];
  size_t end = 0;
  while ((end = text.held_back.find('\n')) != std::string::npos) {
    Print(absl::StrCat("[", prompt_index, "] ", text.held_back.substr(0, end), "\n"));
    text.held_back.erase(0, end + 1);
    text.has_line = true;
  }
}

void AnswerPrinter::PrintAlternatives() {
  for (const std::string& line : alternative_lines_) PrintDim(line);
  alternative_lines_.clear();
}

void AnswerPrinter::Print(absl::string_view text) {
  has_text_ = has_text_ || !text.empty();
  const std::string shown = console_.is_terminal ? WithoutControls(text) : std::string(text);
  for (const char c : shown) {
    if (is_line_start_ && is_verbose_ && c != '\n') console_.out << "  ";
    console_.out << c;
    is_line_start_ = c == '\n';
  }
}

void AnswerPrinter::PrintDim(absl::string_view line) {
  if (console_.has_colours) console_.out << kDim;
  Print(line);
  if (console_.has_colours) console_.out << kPlain;
  Print("\n");
}

}  // namespace chorus
