#include "server/metrics_exposer.h"

#include <exception>
#include <utility>

#include <prometheus/exposer.h>
#include <prometheus/registry.h>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"

namespace chorus {

absl::StatusOr<std::unique_ptr<MetricsExposer>> MetricsExposer::Create(
    const std::string& listen, const std::shared_ptr<prometheus::Registry>& registry) {
  try {
    auto exposer = std::make_unique<prometheus::Exposer>(listen, /*num_threads=*/2);
    exposer->RegisterCollectable(registry);
    return absl::WrapUnique(new MetricsExposer(std::move(exposer)));
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("cannot listen on --metrics_listen=", listen, " (",
                                               error.what(),
                                               "): is the port in use? Use another, or port 0"));
  }
}

MetricsExposer::MetricsExposer(std::unique_ptr<prometheus::Exposer> exposer)
    : exposer_(std::move(exposer)) {}

MetricsExposer::~MetricsExposer() = default;

int MetricsExposer::port() const { return exposer_->GetListeningPorts().front(); }

}  // namespace chorus
