#include "server/inference_service.h"

#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "core/base/field_error.h"
#include "core/engine/request_validation.h"
#include "server/call_info.h"
#include "server/explain_call.h"
#include "server/grpc_status.h"
#include "server/names.h"
#include "server/score_call.h"
#include "server/stream_end.h"
#include "server/token_stream.h"

namespace chorus {
namespace {

constexpr size_t kMaxTokenizeBytes = size_t{16} << 20;
constexpr int kMaxDetokenizeIds = 1 << 22;

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

// Adds the trailers of a request to its call, which must not have finished.
std::function<void(const FinishSummary&)> PhaseTrailersOf(grpc::CallbackServerContext* context) {
  return [context](const FinishSummary& summary) { AddPhaseTrailers(summary, context); };
}

}  // namespace

InferenceService::InferenceService(const Dependencies& dependencies)
    : dependencies_(dependencies),
      intake_(dependencies.parser, dependencies.observer, dependencies.pool) {
  if (dependencies.log_prompts) {
    intake_.SetOnParsed(
        [logger = dependencies.logger](const v1::Prompt& prompt, const std::string& id) {
          LogPrompt(*logger, prompt, id);
        });
  }
}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  TokenStream::Options options;
  options.tokenizer = dependencies_.tokenizer;
  options.max_buffered_events = dependencies_.stream_buffer_events;
  options.on_end = LogEnds("Generate", context);
  options.add_trailers = PhaseTrailersOf(context);
  options.on_done = OpenStream();
  const std::shared_ptr<TokenStream> stream = TokenStream::Create(std::move(options));
  ParseAndSubmit(*request, DeadlineOf(*context), stream);
  return stream.get();
}

grpc::ServerUnaryReactor* InferenceService::Explain(grpc::CallbackServerContext* context,
                                                    const v1::ExplainRequest* request,
                                                    v1::ExplainResponse* response) {
  ExplainCall::Options options;
  options.tokenizer = dependencies_.tokenizer;
  options.pool = dependencies_.pool;
  options.request = request;
  options.response = response;
  options.on_end = LogEnds("Explain", context);
  options.add_trailers = PhaseTrailersOf(context);
  options.on_done = OpenStream();
  const std::shared_ptr<ExplainCall> call = ExplainCall::Create(std::move(options));
  ParseAndSubmit(request->request(), DeadlineOf(*context), call);
  return call.get();
}

grpc::ServerUnaryReactor* InferenceService::Score(grpc::CallbackServerContext* context,
                                                  const v1::ScoreRequest* request,
                                                  v1::ScoreResponse* response) {
  ScoreCall::Options options;
  options.response = response;
  options.on_end = LogEnds("Score", context);
  options.add_trailers = PhaseTrailersOf(context);
  options.on_done = OpenStream();
  const std::shared_ptr<ScoreCall> call = ScoreCall::Create(std::move(options));
  ParseAndSubmit(*request, DeadlineOf(*context), call);
  return call.get();
}

std::function<void(const StreamEnd&)> InferenceService::LogEnds(
    std::string_view rpc, grpc::CallbackServerContext* context) const {
  return [logger = dependencies_.logger, call = MakeCallInfo(rpc, context)](const StreamEnd& end) {
    LogStreamEnd(*logger, call, end);
  };
}

std::function<void()> InferenceService::OpenStream() {
  absl::MutexLock lock(&streams_mutex_);
  ++num_streams_;
  return [this] {
    absl::MutexLock lock(&streams_mutex_);
    --num_streams_;
  };
}

template <typename Proto, typename Call>
void InferenceService::ParseAndSubmit(const Proto& request, absl::Time deadline,
                                      const std::shared_ptr<Call>& call) {
  const auto begin = [this, call](absl::StatusOr<Request> parsed) {
    if (!parsed.ok()) return call->Reject(parsed.status());
    const absl::Status status = Guarded([&] {
      call->Submit(dependencies_.engine, *std::move(parsed));
      return absl::OkStatus();
    });
    if (!status.ok()) call->Reject(status);
  };
  if (!intake_.Parse(request, deadline, begin)) {
    dependencies_.observer->OnRejected(RejectReason::kQueueFull);
    call->Reject(TaskPool::FullError());
  }
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* InferenceService::GenerateMany(
    grpc::CallbackServerContext* context) {
  bool draining = false;
  int64_t number = 0;
  {
    absl::MutexLock lock(&streams_mutex_);
    ++num_streams_;
    number = next_many_stream_++;
  }
  GenerateManyStream::Options options;
  options.engine = dependencies_.engine;
  options.intake = &intake_;
  options.observer = dependencies_.observer;
  options.tokenizer = dependencies_.tokenizer;
  options.deadline = DeadlineOf(*context);
  options.max_requests = dependencies_.max_stream_requests;
  options.max_buffered_events = dependencies_.stream_buffer_events;
  options.on_end = LogEnds("GenerateMany", context);
  options.on_done = [this, number] {
    absl::MutexLock lock(&streams_mutex_);
    --num_streams_;
    many_streams_.erase(number);
  };
  const std::shared_ptr<GenerateManyStream> stream = GenerateManyStream::Create(std::move(options));
  {
    absl::MutexLock lock(&streams_mutex_);
    many_streams_.emplace(number, stream);  // gRPC ends no call before this returns
    draining = draining_;
  }
  if (draining) stream->StartDraining();
  return stream.get();
}

void InferenceService::StartDraining() {
  std::vector<std::shared_ptr<GenerateManyStream>> streams;
  {
    absl::MutexLock lock(&streams_mutex_);
    draining_ = true;
    for (const auto& [number, stream] : many_streams_) {
      if (auto alive = stream.lock()) streams.push_back(std::move(alive));
    }
  }
  for (const auto& stream : streams) stream->StartDraining();
}

grpc::ServerUnaryReactor* InferenceService::RunUnary(std::string_view rpc,
                                                     grpc::CallbackServerContext* context,
                                                     size_t bytes,
                                                     const std::function<absl::Status()>& work) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const auto finish = [reactor, logger = dependencies_.logger, call = MakeCallInfo(rpc, context),
                       begin = absl::Now()](const absl::Status& status) {
    LogCallEnd(*logger, call, status, absl::Now() - begin);
    reactor->Finish(ToGrpcStatus(status));
  };
  if (bytes <= kInlineTextBytes) {
    finish(Guarded(work));
    return reactor;
  }
  // Request and response live until the reactor finishes, cancelled or not.
  if (!dependencies_.pool->TryAdd([finish, work] { finish(Guarded(work)); })) {
    finish(TaskPool::FullError());
  }
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* context,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  const size_t bytes = request->text().size();
  return RunUnary("Tokenize", context, bytes, [this, request, response]() -> absl::Status {
    if (request->text().size() > kMaxTokenizeBytes) {
      return FieldError("text", absl::StrCat(request->text().size(), " bytes"),
                        absl::StrCat("must have at most ", kMaxTokenizeBytes, " bytes"));
    }
    const Tokenizer& tokenizer = *dependencies_.tokenizer;
    const std::vector<int32_t> ids =
        tokenizer.Encode(request->text(), request->recognize_special() ? SpecialTokens::kRecognize
                                                                       : SpecialTokens::kPlainText);
    response->mutable_token_ids()->Add(ids.begin(), ids.end());
    for (const int32_t id : ids) {
      absl::StatusOr<std::string> token = tokenizer.IdToToken(id);
      if (!token.ok()) return token.status();
      response->add_tokens(*std::move(token));
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* context,
                                                       const v1::DetokenizeRequest* request,
                                                       v1::DetokenizeResponse* response) {
  const size_t bytes = sizeof(int32_t) * request->token_ids_size();
  return RunUnary("Detokenize", context, bytes, [this, request, response]() -> absl::Status {
    const auto& ids = request->token_ids();
    if (ids.size() > kMaxDetokenizeIds) {
      return FieldError("token_ids", absl::StrCat(ids.size(), " ids"),
                        absl::StrCat("must be at most ", kMaxDetokenizeIds));
    }
    const int32_t vocab_size = dependencies_.engine->model_info().vocab_size;
    for (int i = 0; i < ids.size(); ++i) {
      if (ids[i] >= 0 && ids[i] < vocab_size) continue;
      return FieldError(absl::StrCat("token_ids[", i, "]"), absl::StrCat(ids[i]),
                        absl::StrCat("must be in [0, ", vocab_size, ")"));
    }
    response->set_text(dependencies_.tokenizer->Decode(std::vector<int32_t>(ids.begin(), ids.end()),
                                                       request->skip_special()));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InferenceService::GetModelInfo(grpc::CallbackServerContext* context,
                                                         const v1::GetModelInfoRequest* request,
                                                         v1::GetModelInfoResponse* response) {
  return RunUnary("GetModelInfo", context, 0, [this, response] {
    const ModelInfo& info = dependencies_.engine->model_info();
    response->set_name(info.name);
    response->set_dtype(info.dtype);
    response->set_device(info.device);
    response->set_vocab_size(info.vocab_size);
    response->set_context_length(info.max_positions);
    response->set_num_parameters(info.num_parameters);
    response->set_weight_bytes(info.weight_bytes);
    response->set_kv_bytes_per_token(info.kv_bytes_per_token);
    response->set_kv_slots(info.num_kv_slots);
    response->set_num_layers(info.num_layers);
    response->set_num_heads(info.num_heads);
    response->set_num_kv_heads(info.num_kv_heads);
    response->set_head_dim(info.head_dim);
    response->set_hidden_size(info.hidden_size);
    const TextConfig& text = dependencies_.parser->text_config();
    response->set_template_(static_cast<v1::Template>(text.family));
    response->set_default_system(text.default_system);
    if (text.bos_token_id.has_value()) response->set_bos_token_id(*text.bos_token_id);
    if (text.named_bos_token_id.has_value()) {
      response->set_named_bos_token_id(*text.named_bos_token_id);
    }
    response->mutable_eos_token_ids()->Add(text.eos_token_ids.begin(), text.eos_token_ids.end());
    response->set_max_request_tokens(dependencies_.engine->options().max_request_tokens);
    response->set_max_prompts(kMaxPrompts);
    response->set_num_workers(dependencies_.num_workers);
    response->set_max_continuations(kMaxContinuations);
    response->set_server_version(std::string(kServerVersion));
    return absl::OkStatus();
  });
}

bool InferenceService::WaitUntilIdle(absl::Duration timeout) {
  absl::MutexLock lock(&streams_mutex_);
  const auto idle = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return num_streams_ == 0; };
  return streams_mutex_.AwaitWithTimeout(absl::Condition(&idle), timeout);
}

}  // namespace chorus
