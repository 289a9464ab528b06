#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// CHORUS_RETURN_IF_ERROR(expression): returns the Status of `expression` unless it is OK.
#define CHORUS_RETURN_IF_ERROR(expression)                            \
  do {                                                                \
    if (::absl::Status chorus_status = (expression); !chorus_status.ok()) return chorus_status; \
  } while (false)

#define CHORUS_STATUS_CONCAT_INNER(x, y) x##y
#define CHORUS_STATUS_CONCAT(x, y) CHORUS_STATUS_CONCAT_INNER(x, y)
#define CHORUS_ASSIGN_OR_RETURN_IMPL(statusor, lhs, expression) \
  auto statusor = (expression);                                 \
  if (!statusor.ok()) return std::move(statusor).status();      \
  lhs = *std::move(statusor)

// CHORUS_ASSIGN_OR_RETURN(lhs, expression): lhs = value of a StatusOr, or returns its Status.
#define CHORUS_ASSIGN_OR_RETURN(lhs, expression) \
  CHORUS_ASSIGN_OR_RETURN_IMPL(CHORUS_STATUS_CONCAT(chorus_statusor_, __LINE__), lhs, expression)
