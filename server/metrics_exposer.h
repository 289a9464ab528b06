#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace prometheus {
class Exposer;
class Registry;
}  // namespace prometheus

namespace chorus {

// Serves /metrics over HTTP until it is destroyed.
class MetricsExposer {
 public:
  // `listen` is HOST:PORT; port 0 takes a free one. UNAVAILABLE if it cannot listen there.
  static absl::StatusOr<std::unique_ptr<MetricsExposer>> Create(
      const std::string& listen, const std::shared_ptr<prometheus::Registry>& registry);
  ~MetricsExposer();

  int port() const;

 private:
  explicit MetricsExposer(std::unique_ptr<prometheus::Exposer> exposer);
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace chorus
