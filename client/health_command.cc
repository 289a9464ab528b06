#include "absl/strings/str_cat.h"

#include "client/answer_json.h"
#include "client/commands.h"
#include "client/common_flags.h"
#include "core/base/status_macros.h"

namespace chorus {

int RunHealth(const std::vector<std::string>& arguments, Console& console) {
  CommonFlags flags;
  std::string service = "chorus.v1.Inference";
  FlagParser parser("chorus health", "[flags]",
                    "Asks grpc.health.v1 whether a server serves. Exit code 0: SERVING; 1: it "
                    "drains, is stuck, or does not answer.");
  parser.AddSection("Question:");
  parser.AddFlag("service", "NAME",
                 absl::StrCat("the service asked about, empty for all; default ", service),
                 Into(&service));
  flags.AddTo(parser);
  parser.AddEpilogue(
      "Examples:\n  chorus health\n"
      "  chorus health --server=127.0.0.1:50052 --timeout=2s || echo 'not serving'");
  std::vector<std::string> words;
  if (const auto code =
          ParseOrExit(parser, arguments, WordCount{}, "chorus health", console, &words)) {
    return *code;
  }
  return WithClient(flags, console, [&](ChorusClient& client) -> absl::Status {
    CHORUS_RETURN_IF_ERROR(client.CheckHealth(service));
    console.out << (flags.json ? JsonLine({{"status", "SERVING"}}) : "SERVING\n");
    return absl::OkStatus();
  });
}

}  // namespace chorus
