#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "chorus/v1/inference.pb.h"

#include "client/console.h"

namespace chorus {

// Prints one answer as it comes. Plain and alone it is the bare text and a newline, fit for a pipe;
// on a terminal, or among answers of several methods, it has a heading, an indent and a line of
// statistics. PER_PROMPT's chunks interleave: each prompt's text is held back until its line is
// whole, and printed behind "[prompt index]". One thread.
class AnswerPrinter {
 public:
  // `console` outlives the printer. `is_one_of_several`: other methods' answers stand beside it.
  AnswerPrinter(Console& console, v1::FusionMethod method, bool is_one_of_several);

  void Add(const v1::GenerateResponse& event);

  // Ends an unfinished line. Call it once after the last event, also when the call failed.
  void Close();

 private:
  void AddChunk(const v1::TokenChunk& chunk);
  void AddFinish(const v1::FinishInfo& finish);
  void PrintWholeLines(int prompt_index);
  void PrintAlternatives();
  void Print(absl::string_view text);
  void PrintDim(absl::string_view line);

  Console& console_;
  const v1::FusionMethod method_;
  const bool is_verbose_;
  bool is_line_start_ = true;
  bool has_text_ = false;  // anything below the heading was printed
  struct PromptText {
    std::string held_back;  // its unfinished line
    bool has_line = false;  // a line of it was printed
  };
  std::map<int, PromptText> prompt_texts_;      // PER_PROMPT: by prompt index
  std::vector<std::string> alternative_lines_;  // --top_logprobs: a line a token
};

}  // namespace chorus
