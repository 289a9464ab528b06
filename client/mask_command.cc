#include "client/answer_json.h"
#include "client/commands.h"
#include "client/common_flags.h"
#include "client/mask_json.h"
#include "client/mask_options.h"
#include "client/mask_picture.h"
#include "client/mask_subject.h"
#include "client/mask_text.h"
#include "client/mask_view.h"
#include "client/npy_file.h"

namespace chorus {
namespace {

constexpr const char* kCommand = "chorus mask";

std::string MaskText(const MaskView& view, const MaskOptions& options, const Console& console) {
  const int width = options.width.value_or(console.width);
  const PictureStyle style = {
      .width = width, .is_ascii = options.is_ascii, .has_colours = console.has_colours};
  return SegmentTable(view, width) + "\n" + DrawMask(view, style) + "\n" + StatisticsText(view) +
         "\n" + QueriesText(view);
}

}  // namespace

int RunMask(const std::vector<std::string>& arguments, Console& console) {
  MaskOptions options;
  const FlagParser parser = MakeMaskParser(options);
  std::vector<std::string> words;
  if (const auto code = ParseOrExit(parser, arguments, {.max = 1}, kCommand, console, &words)) {
    return *code;
  }
  if (!words.empty()) options.question = words.front();
  if (const absl::Status status = FinishMaskOptions(options); !status.ok()) {
    return UsageError(kCommand, status, console);
  }
  const absl::StatusOr<MaskSubject> subject = MakeMaskSubject(options);
  if (!subject.ok()) return UsageError(kCommand, subject.status(), console);
  const absl::StatusOr<MaskView> view = MakeMaskView(*subject, options);
  if (!view.ok()) return UsageError(kCommand, view.status(), console);
  if (options.npy) {
    if (const absl::Status status = WriteNpy(*options.npy, view->rows); !status.ok()) {
      const int code = UsageError(kCommand, status, console);
      return absl::IsInvalidArgument(status) ? code : kExitFailure;
    }
  }
  console.out << (options.json ? JsonLine(MaskJson(*view)) : MaskText(*view, options, console));
  console.out.flush();
  return kExitDone;
}

}  // namespace chorus
