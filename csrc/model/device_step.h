// Steps whose candidates, edges and gradients stay on the model's device, a GPU above all. Written with torch's
// operators alone, so that the same code runs, and is tested, on the CPU.
//
// Candidates go up once per search for neighbours. A step is
//   up      positions, float64 [engine atoms, 3]
//   edges   r_ij of all candidates in float64; those inside the cutoff by `nonzero`, which tells the host their number
//   model   in the contract's type
//   sums    forces and virials in float64; a GPU adds in any order, so last digits differ from run to run
//   down    everything that was asked for, in one tensor
// and the host waits for the device on the way up, at `nonzero` and on the way down only. In place, positions do not go
// up and forces do not come down; the host waits once more, for the farthest move of an atom, a single number.
// Candidates stand centre by centre, and so do the edges, as the fused operators need.
#pragma once

#include <memory>

#include "model/step.h"

namespace mlip {

/// @param model must outlive the returned object. Its seconds_in_backend() include the sums and the way down, since
///              nobody knows when a GPU is done with the model without waiting for it.
std::unique_ptr<StepImplementation> make_device_step(Model& model);

}  // namespace mlip
