#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "core/engine/engine.h"

namespace chorus {

// Which weights are served, and on what.
struct ModelConfigFlags {
  std::string directory;         // a Hugging Face directory; its tokenizer is always needed
  std::string random_weights;    // name of a published shape to serve with random weights, or empty
  std::string devices = "auto";  // "auto", "cpu", "cuda:0,cuda:1"
  std::string dtype = "auto";    // "auto" (bfloat16), "float32", "bfloat16"
  int32_t workers = 1;           // on each device; they share its copy of the weights
  int32_t threads = 0;           // compute threads of one worker; 0: hardware threads / workers
  int64_t kv_cache_bytes = 0;    // keys and values of one worker; 0: from free memory
  bool cuda_graphs = true;       // steps that only generate are recorded once and replayed
};

// Where the server listens and how it ends.
struct NetworkConfig {
  std::string listen = "127.0.0.1:50051";            // port 0: any free one
  std::string metrics_listen = "127.0.0.1:9464";     // port 0: any free one; empty: no metrics page
  std::string health_listen;  // plain text, health checks only; port 0: any free one; empty: none
  std::string port_file;      // written once serving; empty: none
  absl::Duration drain_delay = absl::ZeroDuration();  // NOT_SERVING, but new requests still taken
  absl::Duration drain_timeout = absl::Seconds(30);   // then running streams may finish within this
  absl::Duration stuck_after = absl::Seconds(60);  // NOT_SERVING if a worker makes no step for this
  int32_t stream_buffer_events = 64;               // unread tokens after which a request is paused
  int32_t max_stream_requests = 128;               // requests under way in one GenerateMany call
  int32_t tokenizer_threads = 2;                   // threads that tokenise long texts
  int32_t tokenizer_queue = 128;                   // long texts that may wait for them
};

// Who may call, and how what they say is kept from others.
struct SecurityConfig {
  std::string tls_certificate;  // PEM file, the server's own first; empty: plain text
  std::string tls_key;          // PEM file
  std::string tls_client_ca;    // PEM file: clients must show a certificate signed by it
  std::string token_file;       // one token a line; empty: none is asked for
  bool insecure = false;        // a public address without TLS and tokens is meant
  absl::Duration reload_interval = absl::Seconds(10);  // these files are read again this often
};

// What gRPC lets clients take, before any request is looked at.
struct ConnectionLimits {
  // A TokenizeRequest holds up to 16 MiB of text; the rest is room for the message around it.
  int64_t max_message_bytes = 17 << 20;
  int32_t max_metadata_bytes = 16 << 10;    // headers of one call
  int32_t max_concurrent_streams = 1024;    // calls of one connection; further ones wait there
  int64_t memory_bytes = int64_t{1} << 30;  // of all connections and their messages
  absl::Duration handshake_timeout = absl::Seconds(20);  // TCP accept to HTTP/2 settings
  absl::Duration keepalive_time = absl::Minutes(1);      // a silent client is pinged after this
  absl::Duration keepalive_timeout = absl::Seconds(20);  // and cut after this without an answer
  absl::Duration max_connection_idle = absl::InfiniteDuration();  // without any call
  absl::Duration max_connection_age = absl::InfiniteDuration();
  absl::Duration max_connection_age_grace = absl::InfiniteDuration();  // of calls, after that
};

struct LogConfig {
  std::string level = "info";   // "debug", "info", "warning", "error", "off"
  std::string format = "text";  // "text", "json"
  bool prompts = false;         // texts of prompts are logged too
};

// Everything that can be set, each default written once: here, or in EngineOptions for what the
// engine owns. `engine.eos_token_ids` comes from the model, not from a flag.
struct ServerConfig {
  ModelConfigFlags model;
  NetworkConfig network;
  SecurityConfig security;
  ConnectionLimits connections;
  LogConfig log;
  EngineOptions engine;
};

// OK, or INVALID_ARGUMENT in one line: which flag is wrong and how to mend it. No file is opened.
absl::Status Validate(const ServerConfig& config);

// Whether nothing that listens at `address`, HOST:PORT, can be reached from another machine.
bool IsLoopback(const std::string& address);

// Compute threads of one worker after `threads` = 0 is resolved; at least 1.
int32_t ThreadsPerWorker(const ModelConfigFlags& model, int32_t hardware_threads);

}  // namespace chorus
