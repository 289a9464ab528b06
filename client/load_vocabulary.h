#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

#include "client/chorus_client.h"

namespace chorus {

// The token ids in [first_id, vocab_size) of plain text: neither BOS nor EOS, nor any id whose text
// the server leaves out with skip_special. Where the server cannot detokenise, only BOS and EOS are
// left out. INVALID_ARGUMENT if no id is left.
absl::StatusOr<std::vector<int32_t>> FindPlainTokenIds(ChorusClient& client, int32_t first_id);

}  // namespace chorus
