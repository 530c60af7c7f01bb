#include "model/step.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"
#include "model/device_step.h"
#include "model/host_step.h"
#include "model/moment_step.h"

namespace mlip {

void StepResult::clear() {
  n_edges = 0;
  close_pair = {};
  virial = {};
  centroid_virials_inexact.clear();
  energy_uncertainty = 0.0;
  for (auto* values : {&atomic_energies, &forces, &atom_virials, &centroid_virials, &features, &grades, &uncertainties})
    values->clear();
  extras.clear();
}

EdgesOn parse_edges_on(const std::string& name) {
  if (name == "auto") return EdgesOn::by_model;
  if (name == "host") return EdgesOn::host;
  if (name == "device") return EdgesOn::device;
  throw Error("edges: '" + name + "' is not one of auto, host, device");
}

bool makes_edges_on_device(const Model& model, EdgesOn edges_on) {
  return edges_on == EdgesOn::device || (edges_on == EdgesOn::by_model && model.device() != "cpu");
}

StepEvaluator::StepEvaluator(Model& model, EdgesOn edges_on)
    : model_(model),
      implementation_(makes_edges_on_device(model, edges_on) ? make_device_step(model) : make_host_step(model)) {}

StepEvaluator::~StepEvaluator() = default;

void StepEvaluator::set_candidates(const CandidateEdges& candidates, const std::vector<std::int64_t>& node_types,
                                   std::int64_t n_owned) {
  candidates_ = &candidates;
  node_types_ = node_types;
  n_owned_ = n_owned;
  moment_step_is_set_ = false;
  implementation_->set_candidates(candidates, node_types, n_owned);
}

void StepEvaluator::set_cell(const Cell& cell) {
  const Contract& contract = model_.contract();
  if (contract.positions == Positions::none) return;
  const auto n_periodic = std::count(cell.periodic.begin(), cell.periodic.end(), true);
  if (contract.positions == Positions::periodic && n_periodic != 3)
    throw Error(contract.model_name + " needs a cell that is periodic in three directions, this one is in " +
                std::to_string(n_periodic) + ". Make a periodic one with vacuum around a molecule or beside a slab");
  Cell own = cell;
  for (int k = 0; k < 9; ++k)
    if (!cell.periodic[k / 3]) own.vectors[k] = 0.0;
  implementation_->set_cell(own);
}

// Here and not at the edges, which a GPU computes without a word to the host.
void StepEvaluator::check_positions(const double* positions) const {
  for (std::int64_t atom = 0; atom < candidates_->n_atoms(); ++atom) {
    if (candidates_->node_of[atom] < 0) continue;
    for (int axis = 0; axis < 3; ++axis)
      if (!std::isfinite(positions[3 * atom + axis]))
        throw Error(
            "atom positions are not finite (NaN or infinity). The simulation has blown up: check the starting "
            "structure, minimise it, or use a smaller timestep");
  }
}

std::int64_t StepEvaluator::count_edges(const double* positions, double length_in_angstrom) {
  check_positions(positions);
  return implementation_->count_edges(positions, length_in_angstrom);
}

const StepResult& StepEvaluator::evaluate(const double* positions, double length_in_angstrom, const StepRequest& wanted,
                                          Exchange* exchange) {
  check_positions(positions);
  const Contract& contract = model_.contract();
  if (contract.positions != Positions::none && (wanted.atom_virials || wanted.centroid_virials))
    throw Error(
        contract.model_name +
        " has no virials of single atoms: its energy depends on the positions of all atoms, not on edges alone. "
        "Leave out stresses and heat fluxes of atoms; the virial of the whole is exact");
  const bool moments =
      wanted.centroid_virials && (contract.message_passing_layers > 1 || !contract.collectives.empty());
  const std::string obstacle = moments ? no_moment_step(contract) : "";
  StepImplementation& step = moments && obstacle.empty() ? moment_step() : *implementation_;
  step.evaluate(positions, length_in_angstrom, wanted, exchange, result_);
  result_.centroid_virials_inexact = obstacle;
  return result_;
}

StepImplementation& StepEvaluator::moment_step() {
  if (!moment_step_) moment_step_ = make_moment_step(model_);
  if (!moment_step_is_set_) moment_step_->set_candidates(*candidates_, node_types_, n_owned_);
  moment_step_is_set_ = true;
  return *moment_step_;
}

double StepEvaluator::bytes() const {
  return implementation_->bytes() + (moment_step_ ? moment_step_->bytes() : 0.0) + bytes_of(result_.atomic_energies) +
         bytes_of(result_.forces) + bytes_of(result_.atom_virials) + bytes_of(result_.centroid_virials);
}

}  // namespace mlip
