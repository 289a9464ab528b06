#include "client/explain_options.h"

namespace chorus {
namespace {

constexpr const char* kIntro =
    "Asks a question in several wordings by attention, and shows what the model sees and looks at.";

constexpr const char* kEpilogue =
    R"(Prints the answer, the layout of the fused sequence, how many pairs of its mask are allowed, and for
each layer the attention of the rows that gave the tokens --steps: logits (before softmax, mean over
a unit's keys) and mass (softmax, summed over them), over the units prefix, prompts in the given
order, separators, suffix and answer, as first, middle (mean of what stands between) and last. A
layer has a sink where first / middle of its logits is above 1.2, a head is a sink head where its
first - middle is above 2.0. The request runs behind all others of the server.

Examples:
  chorus explain "What is the capital of France?" \
      --paraphrase="Name the capital city of France." --paraphrase="Which city is France's capital?"
  chorus explain "Who wrote Faust?" --paraphrase="Name the author of Faust." --layers=0,14,29 \
      --steps=0,1,2 --output=faust.json
  chorus explain "Who wrote Faust?" --preset=prototype --json | jq .mask

--json and --output give one object, always with all of these keys:
  prompt_info    as `chorus ask --json`
  finish         text, token_ids, finish_reason, stop, usage, timing
  layout         token_ids, tokens (their texts), positions; prefix_length, original_length,
                 prompt_length, length; segments (a list of begin, end) and the prompt_indexes of each
  mask           allowed, total, ratio, fully_masked_rows (a list of begin, end)
  mask_runs      rows (begin, end) that see keys (a list of begin, end), each row up to itself;
                 layers with a sliding window or chunks see fewer of them
  units          a list of kind (prefix, segment, separators, suffix, generated), prompt_index,
                 num_keys
  seen_units     places of the units that some row sees: those the statistics are of
  steps, heads   that the lists below hold
  layers         a list of layer; logits, mass (steps x heads x units, row-major; null where the row
                 sees no key of the unit); logits_statistics, mass_statistics (first, middle, last,
                 first_over_middle, first_minus_last; by seen unit mean, deviation; by head
                 sink_scores, spreads); has_sink; sink_heads
  mean_mass      by unit, over layers, heads and rows

Exit code: 0 done, 1 failure, 2 wrong usage.)";

}  // namespace

FlagParser MakeExplainParser(ExplainOptions& options) {
  FlagParser parser("chorus explain", "\"QUESTION\" [--paraphrase=TEXT ...] [flags]", kIntro);
  parser.AddSection("What to look at:");
  parser.AddFlag("layers", "L,L,...", "from 0, ascending; default all", IntoList(&options.layers));
  parser.AddFlag("heads", "H,H,...", "from 0, ascending; default all", IntoList(&options.heads));
  parser.AddFlag("steps", "S,S,...",
                 "tokens of the answer whose rows are looked at, from 0, ascending; default 0",
                 IntoList(&options.steps));
  parser.AddFlag("output", "FILE.json", "writes the JSON there", Into(&options.output));
  AddParaphraseFlag(parser, options.ask);
  AddRequestFlags(parser, options.ask, RequestFlags::kExplain);
  options.ask.common.AddTo(parser);
  parser.AddEpilogue(kEpilogue);
  return parser;
}

v1::ExplainRequest MakeExplainRequest(const ExplainOptions& options) {
  v1::ExplainRequest request;
  *request.mutable_request() = MakeGenerateRequest(options.ask, v1::FUSION_METHOD_ATTENTION);
  request.mutable_layers()->Assign(options.layers.begin(), options.layers.end());
  request.mutable_heads()->Assign(options.heads.begin(), options.heads.end());
  request.mutable_steps()->Assign(options.steps.begin(), options.steps.end());
  return request;
}

}  // namespace chorus
