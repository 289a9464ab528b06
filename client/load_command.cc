#include <utility>

#include "absl/strings/str_cat.h"

#include "client/answer_json.h"
#include "client/commands.h"
#include "client/common_flags.h"
#include "client/interrupt.h"
#include "client/load_data.h"
#include "client/load_options.h"
#include "client/load_progress.h"
#include "client/load_report.h"
#include "client/load_runner.h"
#include "client/load_workload.h"
#include "core/base/status_macros.h"

namespace chorus {
namespace {

constexpr const char* kCommand = "chorus load";

absl::StatusOr<std::vector<ChorusClient>> ConnectAll(const LoadOptions& options) {
  CHORUS_ASSIGN_OR_RETURN(ClientOptions client_options, MakeClientOptions(options.ask.common));
  client_options.has_own_connection = true;
  std::vector<ChorusClient> clients;
  for (int i = 0; i < options.num_channels(); ++i) {
    CHORUS_ASSIGN_OR_RETURN(ChorusClient client,
                            ChorusClient::Connect(options.ask.common.server, client_options));
    clients.push_back(std::move(client));
  }
  return clients;
}

// An error if nothing came of the run: then there is nothing to read in its numbers.
absl::Status CheckResult(const LoadResult& result) {
  if (result.num_sent == 0) return absl::CancelledError("ended before anything was measured");
  if (result.num_failed() < result.num_sent) return absl::OkStatus();
  const auto& [code, error] = *result.errors.begin();
  return absl::Status(code, absl::StrCat("every request failed, the first: ", error.first_message));
}

absl::Status Load(const LoadOptions& options, std::vector<DataItem> items, ChorusClient& client,
                  Interrupt& interrupt, Console& console) {
  CHORUS_ASSIGN_OR_RETURN(WorkloadParts parts, PrepareWorkload(options, std::move(items), client));
  const Workload workload(options, std::move(parts));
  CHORUS_ASSIGN_OR_RETURN(std::vector<ChorusClient> clients, ConnectAll(options));
  LoadProgress progress(console.err, console.err_is_terminal);
  LoadRunner runner(options, workload, clients,
                    {.is_interrupted = [&] { return interrupt.HasCome(); },
                     .on_tick =
                         [&](const LoadSnapshot& snapshot) {
                           if (!options.is_quiet) progress.Show(snapshot);
                         }});
  const LoadResult result = runner.Run();
  progress.Close();
  console.out << (options.ask.common.json
                      ? JsonLine(LoadJson(options, result, workload.has_answers()))
                      : LoadTable(options, result, workload.has_answers()));
  return CheckResult(result);
}

}  // namespace

int RunLoad(const std::vector<std::string>& arguments, Console& console) {
  LoadOptions options;
  const FlagParser parser = MakeLoadParser(options);
  std::vector<std::string> words;
  if (const auto code = ParseOrExit(parser, arguments, WordCount{}, kCommand, console, &words)) {
    return *code;
  }
  if (const absl::Status status = FinishLoadOptions(options); !status.ok()) {
    return UsageError(kCommand, status, console);
  }
  std::vector<DataItem> items;
  if (options.data_path) {
    absl::StatusOr<std::vector<DataItem>> read = ReadDataFile(*options.data_path);
    if (!read.ok()) return UsageError(kCommand, read.status(), console);
    items = *std::move(read);
  }
  // Before any thread of gRPC starts, which would take the signal.
  Interrupt interrupt;
  // Questions about the model are no part of the load: --timeout is not theirs.
  CommonFlags setup = options.ask.common;
  setup.timeout = CommonFlags().timeout;
  return WithClient(setup, console, [&](ChorusClient& client) {
    return Load(options, std::move(items), client, interrupt, console);
  });
}

}  // namespace chorus
