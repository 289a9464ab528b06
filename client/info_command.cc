#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

#include "client/answer_json.h"
#include "client/commands.h"
#include "client/common_flags.h"
#include "client/enum_names.h"
#include "core/base/status_macros.h"

namespace chorus {
namespace {

nlohmann::ordered_json InfoJson(const v1::GetModelInfoResponse& info) {
  nlohmann::ordered_json object = {
      {"name", info.name()},
      {"server_version", info.server_version()},
      {"dtype", info.dtype()},
      {"device", info.device()},
      {"num_workers", info.num_workers()},
      {"num_parameters", info.num_parameters()},
      {"weight_bytes", info.weight_bytes()},
      {"vocab_size", info.vocab_size()},
      {"hidden_size", info.hidden_size()},
      {"num_layers", info.num_layers()},
      {"num_heads", info.num_heads()},
      {"num_kv_heads", info.num_kv_heads()},
      {"head_dim", info.head_dim()},
      {"context_length", info.context_length()},
      {"max_request_tokens", info.max_request_tokens()},
      {"max_prompts", info.max_prompts()},
      {"kv_slots", info.kv_slots()},
      {"kv_bytes_per_token", info.kv_bytes_per_token()},
      {"template", EnumName(info.template_())},
      {"default_system", info.default_system()},
      {"bos_token_id", nullptr},
      {"eos_token_ids",
       std::vector<int32_t>(info.eos_token_ids().begin(), info.eos_token_ids().end())}};
  if (info.has_bos_token_id()) object["bos_token_id"] = info.bos_token_id();
  return object;
}

std::string InfoText(const v1::GetModelInfoResponse& info) {
  const std::string bos =
      info.has_bos_token_id() ? absl::StrCat(info.bos_token_id()) : "not put before prompts";
  return absl::StrFormat(
      "model        %s, %.1f million parameters, %s, %.1f MiB\n"
      "server       version %s, %d worker(s) on %s\n"
      "shape        %d layers, hidden %d, %d query and %d key/value heads of %d, vocabulary %d\n"
      "limits       %d tokens of context, %d tokens and %d prompts a request\n"
      "KV cache     %d tokens a worker, %d bytes a token\n"
      "template     %s, system text \"%s\"\n"
      "tokens       BOS %s, EOS %s\n",
      info.name(), info.num_parameters() / 1e6, info.dtype(), info.weight_bytes() / 1048576.0,
      info.server_version(), info.num_workers(), info.device(), info.num_layers(),
      info.hidden_size(), info.num_heads(), info.num_kv_heads(), info.head_dim(), info.vocab_size(),
      info.context_length(), info.max_request_tokens(), info.max_prompts(), info.kv_slots(),
      info.kv_bytes_per_token(), EnumName(info.template_()), info.default_system(), bos,
      absl::StrJoin(info.eos_token_ids(), ", "));
}

}  // namespace

int RunInfo(const std::vector<std::string>& arguments, Console& console) {
  CommonFlags flags;
  FlagParser parser("chorus info", "[flags]", "Says which model a server serves, and its limits.");
  flags.AddTo(parser);
  parser.AddEpilogue("Examples:\n  chorus info\n  chorus info --json | jq .context_length");
  std::vector<std::string> words;
  if (const auto code =
          ParseOrExit(parser, arguments, WordCount{}, "chorus info", console, &words)) {
    return *code;
  }
  return WithClient(flags, console, [&](ChorusClient& client) -> absl::Status {
    CHORUS_ASSIGN_OR_RETURN(const v1::GetModelInfoResponse info, client.GetModelInfo());
    console.out << (flags.json ? JsonLine(InfoJson(info)) : InfoText(info));
    return absl::OkStatus();
  });
}

}  // namespace chorus
