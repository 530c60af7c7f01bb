// What to tell a user whose system does not fit into memory.
#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <string>

#include "core/graph.h"

namespace mlip {

/// The largest step that fitted.
struct FittedStep {
  std::int64_t n_atoms = 0;  ///< owned atoms; 0: there was none
  std::int64_t bytes = 0;    ///< peak of the device's memory in use until then, weights included; 0: not known
};

/// @param failure what torch threw: by a class of its own, or, from inside TorchScript, as a traceback
/// @param size    of the graph; n_edges < 0: they were not counted yet
/// @return what was found and what to do; nothing if the failure is none of memory
std::optional<std::string> explain_out_of_memory(const std::exception& failure, const std::string& device,
                                                 const GraphSize& size, const FittedStep& fitted);

}  // namespace mlip
