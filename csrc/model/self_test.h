// A model proves itself where it runs: one structure of its file, on this very device, with these threads, this
// instruction set and back end, beside the original framework's result.
#pragma once

#include <string>

#include "core/self_test.h"
#include "model/model.h"

namespace mlip {

/// Evaluate the fixture as one rank would, with periodic images folded onto their owners, and compare.
/// @param model nobody else evaluates it meanwhile
/// @return "passed (1.2e-07 eV/atom, 14 ms)": the difference of the energy, and the time it took
/// @throws Error for a difference beyond the fixture's bounds; it names the number, the processor, the instruction set
///         and the line to type.
std::string run_self_test(Model& model, const SelfTestFixture& fixture);

}  // namespace mlip
