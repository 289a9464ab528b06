#include "client/common_flags.h"

#include <fstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace chorus {

void CommonFlags::AddTo(FlagParser& parser) {
  parser.AddSection("Connection and output:");
  parser.AddFlag("server", "HOST:PORT", absl::StrCat("the server; default ", kDefaultServer),
                 Into(&server));
  parser.AddFlag("timeout", "TIME", "longest time of one call: 90s, 1m30s, 500ms; default 5m",
                 Into(&timeout));
  parser.AddSwitch("tls", "speak TLS; any of the next four means it too", &tls);
  parser.AddFlag("ca", "FILE", "whom to trust, in PEM; default: the authorities that gRPC brings",
                 Into(&ca));
  parser.AddFlag("certificate", "FILE", "for mutual TLS: your certificate, in PEM",
                 Into(&certificate));
  parser.AddFlag("key", "FILE", "its private key, in PEM", Into(&key));
  parser.AddFlag("server_name", "NAME",
                 "the name in the server's certificate, where it is not that of --server",
                 Into(&server_name));
  parser.AddFlag("token_file", "FILE",
                 "its first token is sent with every call; to another machine with TLS only",
                 Into(&token_file));
  parser.AddSwitch("json", "JSON on standard output instead of text", &json);
}

absl::StatusOr<ClientOptions> MakeClientOptions(const CommonFlags& flags) {
  ClientOptions options;
  options.deadline = flags.timeout;
  if (flags.tls || !flags.ca.empty() || !flags.certificate.empty() || !flags.key.empty() ||
      !flags.server_name.empty()) {
    options.tls = TlsOptions{.root_certificates = flags.ca,
                             .private_key = flags.key,
                             .certificate_chain = flags.certificate,
                             .server_name = flags.server_name};
  }
  if (flags.token_file.empty()) return options;
  std::ifstream file(flags.token_file);
  for (std::string line; std::getline(file, line);) {
    absl::StripAsciiWhitespace(&line);
    if (line.empty() || line.front() == '#') continue;
    options.token = line;
    return options;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "--token_file=", flags.token_file, " cannot be read or holds no token: one a line"));
}

std::optional<int> ParseOrExit(const FlagParser& parser, const std::vector<std::string>& arguments,
                               const WordCount& count, const std::string& command, Console& console,
                               std::vector<std::string>* words) {
  absl::StatusOr<FlagParser::Result> result = parser.Parse(arguments);
  if (!result.ok()) return UsageError(command, result.status(), console);
  if (result->wants_help) {
    console.out << parser.Help();
    return kExitDone;
  }
  *words = std::move(result->words);
  if (words->size() < count.min) {
    return UsageError(command, absl::InvalidArgumentError(count.missing), console);
  }
  if (words->size() > count.max) {
    return UsageError(command,
                      absl::InvalidArgumentError(
                          absl::StrCat("unexpected word '", (*words)[count.max],
                                       "' (a text of several words needs quotation marks)")),
                      console);
  }
  return std::nullopt;
}

int UsageError(const std::string& command, const absl::Status& status, Console& console) {
  console.err << command << ": " << status.message() << "\n";
  return kExitUsage;
}

int WithClient(const CommonFlags& flags, Console& console,
               const std::function<absl::Status(ChorusClient& client)>& body) {
  const absl::StatusOr<ClientOptions> options = MakeClientOptions(flags);
  if (!options.ok()) return UsageError("chorus", options.status(), console);
  absl::StatusOr<ChorusClient> client = ChorusClient::Connect(flags.server, *options);
  if (absl::IsInvalidArgument(client.status())) {
    return UsageError("chorus", client.status(), console);
  }
  if (!client.ok()) {
    console.err << "chorus: " << client.status().message();
    // With TLS the message says more than could be guessed here.
    if (!options->tls.has_value()) {
      console.err << "; start one with 'chorus-server --model=DIR', or name another with "
                     "--server=HOST:PORT (--tls if it speaks TLS)";
    }
    console.err << "\n";
    return kExitFailure;
  }
  if (const absl::Status status = body(*client); !status.ok()) {
    console.out.flush();
    console.err << "chorus: " << status.message() << " [" << absl::StatusCodeToString(status.code())
                << "]\n";
    return kExitFailure;
  }
  return kExitDone;
}

}  // namespace chorus
