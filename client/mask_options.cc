#include "client/mask_options.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "core/base/field_error.h"
#include "core/base/status_macros.h"
#include "core/segment/sampled_positions.h"

namespace chorus {
namespace {

constexpr const char* kIntro =
    "Draws which tokens may attend to which, and counts them: for a layout by name, any layout by\n"
    "its ranges, or a real prompt. Needs no server.";

constexpr const char* kEpilogue =
    R"(The picture: a row for each query, a column for each key; S3 and E3 are the first and the last
token of segment 3, G0 is original_length, the first token that sees everything. Up to 54 tokens
are shown whole. Of more, some are sampled: first every segment's first and last token, then the
tokens around original_length, the thirds of segments, the next four generated tokens, the last;
then the middles of the largest gaps. A real prompt's prefix counts as a segment there. On a
terminal the picture fits its width: column numbers are written downwards, or the columns are
split. Colours on a terminal only; NO_COLOR turns them off.

Examples:
  chorus mask
  chorus mask --scenario=large
  chorus mask --scenario=custom --prompts=6 --tokens=40 --separator_tokens=0 --generated=12
  chorus mask --segments=0:48,48:95,95:143,143:192,192:238 --length=248 --max_positions=25
  chorus mask --prefix_length=4 --segments=4:9,9:14 --original_length=14 --length=18
  chorus mask --model=models/smollm2-135m-instruct "What is the capital of France?" \
      --paraphrase="Name the capital city of France."
  chorus mask --scenario=medium --npy=mask.npy --json | jq .ratio

--json prints one object on one line, always with all of these keys. Ranges are pairs [begin, end),
rows and keys count from 0.
  layout             the scenario's name, "ranges" or "prompt"
  length, original_length, prefix_length
  segments           a list of ranges
  allowed, total     pairs that may attend, and all: length squared
  ratio              allowed / total
  allowed_per_row    keys that each row sees
  fully_masked_rows  a list of ranges: rows that see nothing
  row_intervals      a list of begin, end (rows) and keys, a list of ranges: each of these rows sees
                     the keys up to itself
  tiles              size, total, skipped (nothing allowed inside), full (everything)
  queries            four rows that show what the mask does: name, query, allowed, ratio, keys
  shown              mode (full or sampled), positions, labels, matrix (rows of 0 and 1), allowed,
                     total, ratio, sampling_rate (positions / length)
  token_ids, tokens  of a real prompt, else empty: ids, and texts (generated tokens have none)

--npy writes the whole matrix, [length, length] bool, query by key: numpy.load(FILE).

Exit code: 0 done, 1 failure, 2 wrong usage.)";

// "0:15,17:32".
FlagSetter IntoRanges(std::optional<std::vector<TokenRange>>* target) {
  return [target](const std::string& value) -> absl::Status {
    std::vector<TokenRange> ranges;
    const std::vector<std::string> pieces = absl::StrSplit(value, ',');
    for (const std::string& piece : pieces) {
      const std::vector<std::string> ends = absl::StrSplit(piece, ':');
      TokenRange range;
      if (ends.size() != 2 || !absl::SimpleAtoi(ends[0], &range.begin) ||
          !absl::SimpleAtoi(ends[1], &range.end)) {
        return absl::InvalidArgumentError("is not BEGIN:END,BEGIN:END,..., such as 0:15,17:32");
      }
      ranges.push_back(range);
    }
    *target = std::move(ranges);
    return absl::OkStatus();
  };
}

void AddLayoutSections(FlagParser& parser, MaskOptions& options) {
  parser.AddSection("A layout by name:");
  parser.AddFlag("scenario", "small|medium|large|custom",
                 "3 prompts of 15 tokens, 5 of 25, 5 of 50, or the next four flags; default small",
                 Into(&options.scenario));
  parser.AddFlag("prompts", "N", "custom: prompts; default 4", Into(&options.prompts));
  parser.AddFlag("tokens", "N", "custom: tokens of each; default 30", Into(&options.tokens));
  parser.AddFlag("separator_tokens", "N", "custom: tokens between prompts; default 3",
                 Into(&options.separator_tokens));
  parser.AddFlag("generated", "N", "custom, and --model: generated tokens; default 10",
                 Into(&options.generated));
  parser.AddSection("A layout by ranges:");
  parser.AddFlag("segments", "B:E,B:E,...",
                 "tokens [B, E) of each segment, in order; what no segment holds is a separator",
                 IntoRanges(&options.segments));
  parser.AddFlag("original_length", "N",
                 "the first token that sees everything; default: the end of the last segment",
                 Into(&options.original_length));
  parser.AddFlag("length", "N", "all tokens; default original_length", Into(&options.length));
  parser.AddFlag("prefix_length", "N", "tokens that all segments see; default 0",
                 Into(&options.prefix_length));
  parser.AddSection("A real prompt:");
  parser.AddFlag("model", "DIR", "a model's directory: its tokenizer reads \"QUESTION\"",
                 Into(&options.model));
  AddLayoutRequestFlags(parser, options.ask);
}

void AddDisplayFlags(FlagParser& parser, MaskOptions& options) {
  parser.AddSection("Output:");
  parser.AddSwitch("full", "show every token", &options.is_full);
  parser.AddSwitch("sampled", "show some tokens", &options.is_sampled);
  parser.AddFlag("max_positions", "N",
                 absl::StrCat("sampled: tokens to show, ", kMinSampledPositions, " to ",
                              kMaxShownPositions, "; default 30 (large: 35)"),
                 Into(&options.max_positions));
  parser.AddFlag("tile_size", "N", "count the tiles of N x N that are empty; default 128",
                 Into(&options.tile_size));
  parser.AddFlag("width", "N",
                 "columns to fit the picture in; default: the terminal's, or no limit",
                 Into(&options.width));
  parser.AddSwitch("ascii", "draw with # and .", &options.is_ascii);
  parser.AddSwitch("json", "JSON on standard output instead of text", &options.json);
  parser.AddFlag("npy", "FILE", "also write the whole matrix as a NumPy file", Into(&options.npy));
}

bool HasCustomNumbers(const MaskOptions& options) {
  return options.prompts || options.tokens || options.separator_tokens;
}

bool HasPromptFlags(const AskOptions& ask) {
  return !ask.paraphrases.empty() || ask.prefix || ask.suffix || ask.separator || ask.system ||
         ask.prompt_template || ask.separators || ask.is_prototype;
}

absl::Status CheckOneLayout(const MaskOptions& options) {
  const bool has_ranges =
      options.segments || options.original_length || options.length || options.prefix_length;
  const bool has_name = options.scenario || HasCustomNumbers(options);
  if (int{has_ranges} + int{has_name} + int{options.model.has_value()} > 1) {
    return absl::InvalidArgumentError(
        "two layouts are given: use the flags of --scenario, or of --segments, or --model");
  }
  if (options.model && !options.question) {
    return absl::InvalidArgumentError("--model needs a question to tokenise");
  }
  if (!options.model && (options.question || HasPromptFlags(options.ask))) {
    return absl::InvalidArgumentError(
        "a question and its flags need --model=DIR, whose tokenizer reads them");
  }
  if (HasCustomNumbers(options) && options.scenario.value_or("custom") != "custom") {
    return FieldError("--scenario", *options.scenario,
                      "--prompts, --tokens and --separator_tokens are numbers of custom");
  }
  const bool can_generate = options.model || options.scenario.value_or("") == "custom" ||
                            (!options.scenario && !has_ranges);
  if (options.generated && !can_generate) {
    return FieldError("--generated", absl::StrCat(*options.generated),
                      "only custom and --model take it; by ranges, --length says it");
  }
  return absl::OkStatus();
}

absl::Status CheckRange(const char* flag, const std::optional<int32_t>& value, int32_t min,
                        int32_t max) {
  if (!value.has_value() || (*value >= min && *value <= max)) return absl::OkStatus();
  return FieldError(flag, absl::StrCat(*value), absl::StrCat("must be ", min, " to ", max));
}

}  // namespace

FlagParser MakeMaskParser(MaskOptions& options) {
  FlagParser parser("chorus mask", "[\"QUESTION\" --model=DIR] [flags]", kIntro);
  AddLayoutSections(parser, options);
  AddDisplayFlags(parser, options);
  parser.AddEpilogue(kEpilogue);
  return parser;
}

absl::Status FinishMaskOptions(MaskOptions& options) {
  CHORUS_RETURN_IF_ERROR(CheckOneLayout(options));
  if (options.is_full && (options.is_sampled || options.max_positions)) {
    return absl::InvalidArgumentError(
        "--full shows every token: not with --sampled or "
        "--max_positions");
  }
  CHORUS_RETURN_IF_ERROR(CheckRange("--prompts", options.prompts, 1, kMaxMaskTokens));
  CHORUS_RETURN_IF_ERROR(CheckRange("--tokens", options.tokens, 1, kMaxMaskTokens));
  CHORUS_RETURN_IF_ERROR(
      CheckRange("--separator_tokens", options.separator_tokens, 0, kMaxMaskTokens));
  CHORUS_RETURN_IF_ERROR(CheckRange("--generated", options.generated, 0, kMaxMaskTokens));
  CHORUS_RETURN_IF_ERROR(CheckRange("--prefix_length", options.prefix_length, 0, kMaxMaskTokens));
  CHORUS_RETURN_IF_ERROR(
      CheckRange("--original_length", options.original_length, 0, kMaxMaskTokens));
  CHORUS_RETURN_IF_ERROR(CheckRange("--length", options.length, 1, kMaxMaskTokens));
  CHORUS_RETURN_IF_ERROR(CheckRange("--tile_size", options.tile_size, 1, kMaxMaskTokens));
  CHORUS_RETURN_IF_ERROR(CheckRange("--width", options.width, 0, kMaxMaskTokens));
  CHORUS_RETURN_IF_ERROR(CheckRange("--max_positions", options.max_positions, kMinSampledPositions,
                                    kMaxShownPositions));
  if (!options.scenario && (HasCustomNumbers(options) || (options.generated && !options.model))) {
    options.scenario = "custom";
  }
  if (options.model) options.ask.question = *options.question;
  ApplyPreset(options.ask);
  return absl::OkStatus();
}

}  // namespace chorus
