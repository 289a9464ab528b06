#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace chorus {

// A place in a trace, as https://www.w3.org/TR/trace-context/ has it.
struct TraceContext {
  std::string trace_id;   // 32 lower-case hexadecimal digits, not all 0
  std::string parent_id;  // 16 of the caller's span
  std::string flags;      // 2; the last bit: sampled
};

// Reads a `traceparent` header: version 00, or a later one as far as it is the same. nullopt for
// anything else, which the specification wants ignored.
std::optional<TraceContext> ParseTraceparent(std::string_view header);

// A `traceparent` of version 00 that names `span_id` in the same trace.
std::string FormatTraceparent(const TraceContext& trace, std::string_view span_id);

// 16 random hexadecimal digits, not all 0.
std::string NewSpanId();

}  // namespace chorus
