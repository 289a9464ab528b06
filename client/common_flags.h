#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "client/chorus_client.h"
#include "client/console.h"
#include "client/flag_parser.h"

namespace chorus {

inline constexpr const char* kDefaultServer = "127.0.0.1:50051";

// What every command takes.
struct CommonFlags {
  std::string server = kDefaultServer;
  absl::Duration timeout = absl::Minutes(5);
  bool json = false;
  bool tls = false;  // any of the four files and names below means it too
  std::string ca;
  std::string certificate;
  std::string key;
  std::string server_name;
  std::string token_file;

  // Adds them all under the heading "Connection and output:".
  void AddTo(FlagParser& parser);
};

// Where and how to connect, with the token read from its file: the first line that is neither blank
// nor a comment (#), so that a server's own file will do. INVALID_ARGUMENT, naming the flag, for a
// file without one.
absl::StatusOr<ClientOptions> MakeClientOptions(const CommonFlags& flags);

// Parses `arguments` and checks the number of words. The exit code if the command is already over:
// help was asked for (printed to `out`) or the usage is wrong (one line on `err`); otherwise
// nullopt, and the words are in `words`.
struct WordCount {
  size_t min = 0;
  size_t max = 0;
  std::string missing;  // what to say when there are fewer than `min`
};
std::optional<int> ParseOrExit(const FlagParser& parser, const std::vector<std::string>& arguments,
                               const WordCount& count, const std::string& command, Console& console,
                               std::vector<std::string>* words);

// One line on `err` and exit code 2.
int UsageError(const std::string& command, const absl::Status& status, Console& console);

// Connects and runs `body`. An error of either is printed as one line on `err`, with how to start
// a server when none answers. Returns the exit code.
int WithClient(const CommonFlags& flags, Console& console,
               const std::function<absl::Status(ChorusClient& client)>& body);

}  // namespace chorus
