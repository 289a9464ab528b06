// chorus-server: flags, tokenizer, model, engine, gRPC, wait, drain.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

#include "server/check.h"
#include "server/config.h"
#include "server/flags.h"
#include "server/load_progress.h"
#include "server/logging.h"
#include "server/model_setup.h"
#include "server/names.h"
#include "server/port_file.h"
#include "server/secrets.h"
#include "server/server.h"
#include "server/signals.h"

namespace chorus {
namespace {

constexpr int kExitDone = 0;
constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;

int Fail(int exit_code, const absl::Status& status) {
  std::fprintf(stderr, "chorus-server: %s\n", std::string(status.message()).c_str());
  return exit_code;
}

void LogConfig(const Logger& logger, const ServerConfig& config) {
  const auto description = DescribeConfig(config);
  LogFields fields;
  for (const auto& [name, value] : description) fields.emplace_back(name, value);
  logger.Log(Logger::Level::kInfo, "config", fields);
}

void LogDevices(const Logger& logger, const ServedDevices& devices) {
  logger.Log(devices.is_surprising ? Logger::Level::kWarning : Logger::Level::kInfo, "devices",
             {{"devices", devices.names()}, {"why", devices.why}});
}

// Drains while listening for a second signal, which ends the process at once.
bool DrainUnlessSignalled(Server& server, absl::Duration timeout,
                          const TerminationSignals& signals) {
  std::future<bool> drained =
      std::async(std::launch::async, [&server, timeout] { return server.Drain(timeout); });
  while (drained.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    if (signals.Wait(absl::Milliseconds(20))) std::_Exit(kExitFailure);
  }
  return drained.get();
}

int Check(const ServerConfig& config) {
  const CheckReport report = CheckServing(config);
  for (const std::string& line : report.facts) std::printf("%s\n", line.c_str());
  for (const absl::Status& problem : report.problems) Fail(kExitUsage, problem);
  return report.problems.empty() ? kExitDone : kExitUsage;
}

int Serve(const ServerConfig& config, const Logger& logger, const TerminationSignals& signals) {
  // Before the model, which takes its time.
  if (const absl::Status readable = CheckSecrets(config.security); !readable.ok()) {
    return Fail(kExitUsage, readable);
  }
  const absl::StatusOr<ServedDevices> devices = ChooseDevices(config.model);
  if (!devices.ok()) return Fail(kExitUsage, devices.status());
  absl::StatusOr<TextSetup> text = LoadText(config.model);
  if (!text.ok()) return Fail(kExitUsage, text.status());
  LogDevices(logger, *devices);
  LoadProgress progress(logger, signals);
  auto runners = LoadRunners(config, *devices, progress);
  if (!runners.ok()) return Fail(kExitUsage, runners.status());

  LogConfig(logger, config);
  auto server =
      Server::Start(config, text->tokenizer.get(), text->config, *std::move(runners), &logger);
  if (!server.ok()) return Fail(kExitFailure, server.status());
  const Ports ports = {(*server)->grpc_port(), (*server)->metrics_port(),
                       (*server)->health_port()};
  if (!config.network.port_file.empty()) {
    const absl::Status written = WritePortFile(config.network.port_file, ports);
    if (!written.ok()) return Fail(kExitFailure, written);
  }
  const ModelInfo& info = (*server)->engine().model_info();
  logger.Log(Logger::Level::kInfo, "serving",
             {{"grpc_port", int64_t{ports.grpc}},
              {"metrics_port", int64_t{ports.metrics}},
              {"health_port", int64_t{ports.health}},
              {"model", info.name},
              {"dtype", info.dtype},
              {"kv_slots", int64_t{info.num_kv_slots}}});

  signals.Wait(absl::InfiniteDuration());
  const bool clean = DrainUnlessSignalled(**server, config.network.drain_timeout, signals);
  server->reset();
  logger.Log(Logger::Level::kInfo, "stopped",
             {{"all_finished", std::string(clean ? "yes" : "no")}});
  return kExitDone;
}

// gRPC and protobuf write lines of their own to stderr, protobuf one for every bad string that a
// caller sends. What matters of them comes back as a status and is logged by us, in one format.
void SilenceLibraries() {
  gpr_set_log_function([](gpr_log_func_args*) {});
  google::protobuf::SetLogHandler(nullptr);
}

// Without NDEBUG absl keeps a graph of which lock was taken under which, behind one lock of its own
// for all threads: a help for tests, several per cent of the time under load.
void SpeedUpLocks() { absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore); }

int Main(const std::vector<std::string>& arguments) {
  TerminationSignals signals;
  SilenceLibraries();
  SpeedUpLocks();
  const absl::StatusOr<ParsedFlags> flags = ParseFlags(arguments);
  if (!flags.ok()) return Fail(kExitUsage, flags.status());
  if (flags->help) {
    std::fputs(HelpText().c_str(), stdout);
    return kExitDone;
  }
  if (flags->version) {
    std::printf("chorus-server %s\n", std::string(kServerVersion).c_str());
    return kExitDone;
  }
  if (const absl::Status valid = Validate(flags->config); !valid.ok()) {
    return Fail(kExitUsage, valid);
  }
  if (flags->check) return Check(flags->config);
  Logger logger(flags->config.log);
  signals.SetOnVerbosity([&logger] { logger.SayMore(); }, [&logger] { logger.SayLess(); });
  return Serve(flags->config, logger, signals);
}

}  // namespace
}  // namespace chorus

int main(int argc, char** argv) {
  return chorus::Main(std::vector<std::string>(argv + 1, argv + argc));
}
