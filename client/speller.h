#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "client/chorus_client.h"

namespace chorus {

// Texts of token ids, each asked for once; "#ID" where the server has none. `client` outlives it.
class Speller {
 public:
  explicit Speller(ChorusClient& client) : client_(client) {}

  std::string operator()(int32_t token_id);

 private:
  ChorusClient& client_;
  std::map<int32_t, std::string> texts_;
};

}  // namespace chorus
