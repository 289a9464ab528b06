#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "chorus/v1/inference.pb.h"

namespace grpc {
class ClientContext;
}  // namespace grpc

namespace chorus {

// Files in PEM form. Names and meaning are those of the Python client's Tls.
struct TlsOptions {
  std::string root_certificates;  // whom to trust; empty: those that gRPC brings
  // Mutual TLS: both or none.
  std::string private_key;
  std::string certificate_chain;
  // The name that the server's certificate must hold, where it is not the target's.
  std::string server_name;
};

struct ClientOptions {
  std::optional<TlsOptions> tls;  // none: not encrypted
  // Sent with every call as "authorization: Bearer TOKEN"; empty: none. A secret: it leaves this
  // machine only encrypted.
  std::string token;
  // Of each call, from its start to the last message; absl::InfiniteDuration() for none.
  absl::Duration deadline = absl::Minutes(5);
  // How long Connect waits for the server to accept a connection.
  absl::Duration connect_timeout = absl::Seconds(5);
  // Clients of one server share a TCP connection within a process, unless this is set.
  bool has_own_connection = false;
};

// Ends a running call from another thread. Thread-safe; outlives the call it
// is given to; one call at a time. Once cancelled it stays so: a call started with it ends at once.
class Cancellation {
 public:
  Cancellation() = default;
  Cancellation(const Cancellation&) = delete;
  Cancellation& operator=(const Cancellation&) = delete;

  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class ChorusClient;

  void Attach(std::shared_ptr<grpc::ClientContext> context) ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  // Of the running call, or null. Shared, because cancelling happens outside the lock.
  std::shared_ptr<grpc::ClientContext> context_ ABSL_GUARDED_BY(mutex_);
};

// What StartGenerate calls, on gRPC's threads, one at a time for each call. Neither may block.
struct StreamCallbacks {
  // For every message as it comes. Returns how long to wait before the next one is read, zero for
  // at once: a reader that waits is what the server sees as a slow one. While it waits, the end of
  // the call goes unnoticed too.
  std::function<absl::Duration(const v1::GenerateResponse& event)> on_event;
  // Once, last: how the call ended.
  std::function<void(const absl::Status& status)> on_done;
};

// A connection to one Chorus server. Thread-safe: any number of calls may run at a time, each but
// StartGenerate blocks its caller. Movable; calls must have ended when it is destroyed.
//
// Every error is an absl::Status with the server's code and one readable line, which names the
// offending fields (see ToAbslStatus). Besides the server's own: DEADLINE_EXCEEDED past
// ClientOptions::deadline (of a whole GenerateMany, too), CANCELLED after Cancellation::Cancel,
// UNAVAILABLE when the connection is lost, INTERNAL when the stream ends without its last message.
//
//   absl::StatusOr<ChorusClient> client = ChorusClient::Connect("127.0.0.1:50051");
//   if (!client.ok()) return client.status();
//   v1::GenerateRequest request;
//   request.mutable_prompt()->mutable_text()->set_question("What is the capital of France?");
//   request.mutable_prompt()->mutable_text()->add_paraphrases("Name France's capital.");
//   absl::StatusOr<v1::FinishInfo> finish =
//       client->Generate(request, [](const v1::GenerateResponse& event) {
//         if (event.has_chunk()) std::cout << event.chunk().text() << std::flush;
//       });
class ChorusClient {
 public:
  using EventCallback = std::function<void(const v1::GenerateResponse&)>;
  // Enough to keep a server busy whose default is to take 128 of a stream at a time.
  static constexpr int32_t kDefaultWindow = 256;

  // Connects to `target`, "HOST:PORT". UNAVAILABLE, naming the target, when nothing accepts the
  // connection within options.connect_timeout, with what TLS found wrong. INVALID_ARGUMENT, naming
  // it, for a file that cannot be read, or a token that would travel unencrypted.
  static absl::StatusOr<ChorusClient> Connect(const std::string& target,
                                              const ClientOptions& options = {});

  ChorusClient(ChorusClient&&) noexcept;
  ChorusClient& operator=(ChorusClient&&) noexcept;
  ~ChorusClient();

  // Asks, calls `on_event` on this thread for every message as it comes (prompt_info, chunks, and
  // finish last; may be null), and returns the last one. `cancellation` may be null.
  absl::StatusOr<v1::FinishInfo> Generate(const v1::GenerateRequest& request,
                                          const EventCallback& on_event = nullptr,
                                          Cancellation* cancellation = nullptr);

  // Starts asking and returns at once: any number of calls run without a thread of their own.
  // `cancellation` may be null; it may be destroyed once on_done was called.
  void StartGenerate(const v1::GenerateRequest& request, StreamCallbacks callbacks,
                     Cancellation* cancellation = nullptr);

  // Asks any number of questions over one stream. `next` fills in a request and its id (unique
  // among those that still run) and returns true, or returns false when there are no more; a thread
  // of the call's own calls it, when a request may be sent: at most `window` (>= 1) are under way
  // at a time. `on_event` is called on this thread for every message as it comes; messages of
  // different requests interleave. Each request's last one is response.finish or error
  // (ToAbslStatus reads it), which ends that request alone. Returns when all have ended, or what
  // ended the stream itself; requests without a last message then have not been answered.
  // `cancellation` may be null.
  using NextRequest = std::function<bool(v1::GenerateManyRequest*)>;
  using ManyCallback = std::function<void(const v1::GenerateManyResponse&)>;
  absl::Status GenerateMany(const NextRequest& next, const ManyCallback& on_event,
                            int32_t window = kDefaultWindow, Cancellation* cancellation = nullptr);

  // Asks, and says what the rows that gave the answer's tokens looked at. The server takes its time:
  // the request runs behind all others. `cancellation` may be null.
  absl::StatusOr<v1::ExplainResponse> Explain(const v1::ExplainRequest& request,
                                              Cancellation* cancellation = nullptr);

  // How likely continuations are, after all of a prompt. `cancellation` may be null.
  absl::StatusOr<v1::ScoreResponse> Score(const v1::ScoreRequest& request,
                                          Cancellation* cancellation = nullptr);

  // Token ids of `text` and their spellings. With `recognize_special` the spellings of special
  // tokens become those tokens; otherwise they are plain text.
  absl::StatusOr<v1::TokenizeResponse> Tokenize(const std::string& text,
                                                bool recognize_special = false);

  // Text of token ids, each in [0, vocab_size).
  absl::StatusOr<std::string> Detokenize(const std::vector<int32_t>& token_ids,
                                         bool skip_special = false);

  absl::StatusOr<v1::GetModelInfoResponse> GetModelInfo();

  // Asks grpc.health.v1 about `service`, empty for the server as a whole. OK when it is SERVING,
  // UNAVAILABLE when it is not, NOT_FOUND when the server does not know it.
  absl::Status CheckHealth(const std::string& service);

 private:
  struct Connection;  // keeps gRPC's headers out of this one

  explicit ChorusClient(std::unique_ptr<Connection> connection);

  std::unique_ptr<Connection> connection_;
};

}  // namespace chorus
