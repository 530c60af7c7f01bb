// A step that gives the exact centroid virials of a model with messages: what a StepEvaluator takes where they are
// asked for. Its edges are on the host, whatever the device of the model.
#pragma once

#include <memory>
#include <string>

#include "model/step.h"

namespace mlip {

/// Why a model has no such step, and what to do; "" if it has one.
std::string no_moment_step(const Contract& contract);

std::unique_ptr<StepImplementation> make_moment_step(Model& model);

}  // namespace mlip
