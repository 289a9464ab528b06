#pragma once

// What this folder uses of torch, in one place: the tensor that owns memory.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

// Torch's logging header defines a CHECK of its own. This header comes before core/base/check.h.
#undef CHECK
