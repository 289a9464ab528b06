#include "core/engine/engine_observer.h"

#include "core/base/check.h"

namespace chorus {

std::string_view OutcomeName(Outcome outcome) {
  switch (outcome) {
    case Outcome::kOk:
      return "ok";
    case Outcome::kCancelled:
      return "cancelled";
    case Outcome::kDeadlineExceeded:
      return "deadline_exceeded";
    case Outcome::kResourceExhausted:
      return "resource_exhausted";
    case Outcome::kUnavailable:
      return "unavailable";
    case Outcome::kInvalidArgument:
      return "invalid_argument";
    case Outcome::kInternal:
      return "internal";
  }
  CHECK(false);
}

std::string_view RejectReasonName(RejectReason reason) {
  switch (reason) {
    case RejectReason::kInvalid:
      return "invalid";
    case RejectReason::kQueueFull:
      return "queue_full";
    case RejectReason::kTooLarge:
      return "too_large";
    case RejectReason::kDraining:
      return "draining";
    case RejectReason::kDeadline:
      return "deadline";
  }
  CHECK(false);
}

}  // namespace chorus
