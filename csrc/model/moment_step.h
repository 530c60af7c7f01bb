// A step that gives the exact centroid virials of a model with messages: what a StepEvaluator takes where they are
// asked for. Its edges are on the host, whatever the device of the model.
#pragma once

#include <memory>
#include <string>

#include "model/step.h"

namespace mlip {

/// Why this model has no such step on these candidates, and what to do; "" if it has one.
std::string no_moment_step(const Contract& contract, const CandidateEdges& candidates, std::size_t n_nodes);

std::unique_ptr<StepImplementation> make_moment_step(Model& model);

}  // namespace mlip
