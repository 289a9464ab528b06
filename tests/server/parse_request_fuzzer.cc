// Any bytes -> GenerateRequest and ScoreRequest -> RequestParser -> the engine's validation and plan: what a
// caller's message passes before it is accepted. Every refusal must be INVALID_ARGUMENT that names
// a field.
#include <cstddef>
#include <cstdint>
#include <memory>

#include <google/protobuf/stubs/logging.h>

#include "chorus/v1/inference.pb.h"

#include "core/base/check.h"
#include "core/base/field_error.h"
#include "core/engine/fusion_strategy.h"
#include "core/engine/request_validation.h"
#include "server/parse_request.h"

namespace chorus {
namespace {

constexpr int32_t kMaxRequestTokens = 2000;

struct Setup {
  Setup() {
    google::protobuf::SetLogHandler(nullptr);  // a line for every bad string would bury findings
    absl::StatusOr<std::unique_ptr<const Tokenizer>> loaded =
        Tokenizer::Load("tests/golden/models/tiny_mha/tokenizer.json");
    CHECK(loaded.ok());
    tokenizer = *std::move(loaded);
    text_config.family = TemplateKind::kChatMl;
    text_config.default_system = "Be brief.";
    text_config.bos_token_id = 1;
    info.vocab_size = 300;
    info.max_positions = 512;
    info.num_kv_slots = 1000;
    options.max_request_tokens = kMaxRequestTokens;
  }

  std::unique_ptr<const Tokenizer> tokenizer;
  TextConfig text_config;
  ModelInfo info;
  EngineOptions options;
};

void CheckRefusal(const absl::Status& status) {
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(FieldOf(status).has_value());
}

template <typename Proto>
void Run(const Proto& proto) {
  static const Setup* const kSetup = new Setup();
  const RequestParser parser(kSetup->tokenizer.get(), kSetup->text_config,
                             ParseLimits{kSetup->info.vocab_size, kMaxRequestTokens});
  const absl::StatusOr<Request> request = parser.Parse(proto, RequestDefaults{"id", 1});
  if (!request.ok()) return CheckRefusal(request.status());
  if (const auto status = ValidateRequest(*request, kSetup->info); !status.ok()) {
    return CheckRefusal(status);
  }
  if (const auto status = ValidateSize(*request, kSetup->info, kSetup->options); !status.ok()) {
    return CheckRefusal(status);
  }
  const absl::StatusOr<FusionPlan> plan = PlanFusion(*request);
  CHECK(plan.ok());
  if (const auto status = ValidatePositions(*request, *plan, kSetup->info); !status.ok()) {
    return CheckRefusal(status);
  }
  CHECK(plan->num_slots <= kSetup->info.num_kv_slots);
}

}  // namespace
}  // namespace chorus

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  chorus::v1::GenerateRequest generate;
  if (generate.ParseFromArray(data, static_cast<int>(size))) chorus::Run(generate);
  chorus::v1::ScoreRequest score;
  if (score.ParseFromArray(data, static_cast<int>(size))) chorus::Run(score);
  return 0;
}
