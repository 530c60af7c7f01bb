// GPU kernels on a CPU, for tests on machines without a GPU: the very texts that NVIDIA's compiler gets are compiled by
// the host's, behind a few definitions, and executed thread by thread.
//
// The lanes of a warp are coroutines that meet at each shuffle and each ballot, as they do on a GPU; a lane that ends
// while others wait is an error. Shared memory holds NaN before a block runs. Warps run one after the other: the
// kernels use no barrier of a block.
#pragma once

#include <string>
#include <vector>

#include "gpu/runtime.h"

namespace mlip::testing {

class EmulatedRuntime : public gpu::Runtime {
 public:
  /// The text of the kernel that was asked for last.
  virtual const std::string& last_source() const = 0;
  /// Of all kernels, each text once, in the order in which they were first asked for.
  virtual const std::vector<std::string>& sources() const = 0;
  /// From now on the last block, warp and lane come first: a GPU promises no order, so results must not tell.
  virtual void run_backwards(bool backwards) = 0;
};

/// For `gpu::use_runtime`.
EmulatedRuntime& emulated_kernels();

}  // namespace mlip::testing
