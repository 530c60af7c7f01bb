// The search for pairs of atoms on the model's device, by kernels of its own (device_pair_search.cu), for callers that
// bring no neighbours.
//
// Positions go up, pairs come down, once per search. Candidates then go up again with everything else that a step
// needs: their way is the same whoever has found them.
#pragma once

#include <memory>
#include <string>

#include "core/pair_search.h"
#include "model/model.h"
#include "model/step.h"

namespace mlip {

/// Atoms from which on this search is worth its launches, about thirty, and what the host waits for them. An estimate,
/// since it has not run on a GPU: tools/gpu/steps.py times both searches.
inline constexpr std::int64_t fewest_atoms_of_device_search = 2000;

/// @param model must outlive the returned object
/// @return null where edges are made on the host, and where the device has no kernels (gpu::has_kernels)
std::unique_ptr<PairSearch> make_device_pair_search(Model& model, EdgesOn edges_on);

/// The text that its kernels are compiled from.
std::string pair_search_source();

}  // namespace mlip
