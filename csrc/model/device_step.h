// Steps whose candidates, edges and gradients stay on the model's device, a GPU above all. The CPU can be that device
// too, for tests. The edges and the sums over them are in device_edges.h.
//
// Candidates go up once per search for neighbours. A step is
//   up      positions, float64 [engine atoms, 3]
//   edges   r_ij of the candidates inside the cutoff, in float64; the host learns their number
//   model   in the contract's type
//   sums    forces and virials in float64
//   down    everything that was asked for, in one tensor
// and the host waits for the device on the way up, at the number of edges and on the way down only. In place, positions
// do not go up and forces do not come down; the host waits once more, for the farthest move of an atom, one number.
// Candidates stand centre by centre, and so do the edges, as the fused operators need.
#pragma once

#include <memory>

#include "model/step.h"

namespace mlip {

/// @param model must outlive the returned object. Its seconds_in_backend() include the sums and the way down, since
///              nobody knows when a GPU is done with the model without waiting for it.
std::unique_ptr<StepImplementation> make_device_step(Model& model);

}  // namespace mlip
