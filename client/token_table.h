#pragma once

#include <functional>
#include <string>
#include <vector>

#include "chorus/v1/inference.pb.h"

#include "client/console.h"

namespace chorus {

// What an answer's tokens say of its prompts, as `chorus ask --attribution --disagreement` shows it
// below the answer: a line a token, with the share of its attention that went to the prefix, each
// prompt, separators, suffix and the answer so far, and how far the prompts were apart. One thread.
class TokenTable {
 public:
  void Add(const v1::TokenChunk& chunk);

  // `spell`: a token id's text. Prints nothing if nothing was said.
  void Print(const std::function<std::string(int32_t)>& spell, Console& console) const;

 private:
  struct Row {
    int32_t token_id = 0;
    v1::Attribution attribution;
    std::string disagreement;
  };

  std::vector<std::string> Heading() const;
  std::vector<std::string> Cells(const Row& row, const std::string& spelling) const;

  std::vector<Row> rows_;
  int num_prompts_ = 0;
  // Columns that some row has something in.
  bool has_attribution_ = false, has_prefix_ = false, has_separators_ = false, has_suffix_ = false;
  bool has_disagreement_ = false;
};

}  // namespace chorus
