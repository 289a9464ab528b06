// The OpenTelemetry C++ library was looked for, to parse this and to export spans by OTLP: neither
// Debian 12 nor PyPI has it. The header alone is four fields of fixed length.
#include "server/traceparent.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace chorus {
namespace {

// VERSION-TRACE_ID-PARENT_ID-FLAGS
constexpr size_t kTraceIdBegin = 3;
constexpr size_t kTraceIdSize = 32;
constexpr size_t kParentIdBegin = 36;
constexpr size_t kParentIdSize = 16;
constexpr size_t kFlagsBegin = 53;
constexpr size_t kSize = 55;

bool IsHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
}

bool IsId(std::string_view text) {
  return IsHex(text) && text.find_first_not_of('0') != std::string_view::npos;
}

}  // namespace

std::optional<TraceContext> ParseTraceparent(std::string_view header) {
  if (header.size() < kSize) return std::nullopt;
  const std::string_view version = header.substr(0, 2);
  if (!IsHex(version) || version == "ff") return std::nullopt;
  // A later version may add fields behind these.
  if (header.size() > kSize && (version == "00" || header[kSize] != '-')) return std::nullopt;
  for (const size_t border : {kTraceIdBegin, kParentIdBegin, kFlagsBegin}) {
    if (header[border - 1] != '-') return std::nullopt;
  }
  const std::string_view trace_id = header.substr(kTraceIdBegin, kTraceIdSize);
  const std::string_view parent_id = header.substr(kParentIdBegin, kParentIdSize);
  const std::string_view flags = header.substr(kFlagsBegin, 2);
  if (!IsId(trace_id) || !IsId(parent_id) || !IsHex(flags)) return std::nullopt;
  return TraceContext{std::string(trace_id), std::string(parent_id), std::string(flags)};
}

std::string FormatTraceparent(const TraceContext& trace, std::string_view span_id) {
  return absl::StrCat("00-", trace.trace_id, "-", absl::string_view(span_id.data(), span_id.size()),
                      "-", trace.flags);
}

std::string NewSpanId() {
  absl::BitGen random;
  const auto id = absl::Uniform<uint64_t>(absl::IntervalClosed, random, 1,
                                          std::numeric_limits<uint64_t>::max());
  return absl::StrFormat("%016x", id);
}

}  // namespace chorus
