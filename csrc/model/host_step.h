// Steps whose edges are written into a Graph and summed by loops over it, on the CPU (graph.h).
#pragma once

#include <memory>

#include "model/step.h"

namespace mlip {

/// @param model must outlive the returned object
std::unique_ptr<StepImplementation> make_host_step(Model& model);

/// The sums over edges that `wanted` asks for, centroid virials apart.
void sum_over_edges(const Graph& graph, const Evaluation& evaluation, const StepRequest& wanted, StepResult& result);

}  // namespace mlip
