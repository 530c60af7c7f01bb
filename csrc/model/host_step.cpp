#include "model/host_step.h"

namespace mlip {
namespace {

class HostStep : public GraphStep {
 public:
  using GraphStep::GraphStep;

  void evaluate(const double* positions, double length_in_angstrom, const StepRequest& wanted, Exchange* exchange,
                StepResult& result) override {
    begin(positions, length_in_angstrom, wanted, result);
    model_.evaluate(graph_, evaluation_, exchange, wanted.of_model());
    take_features(evaluation_, result);
    if (wanted.extras) model_.evaluate_extras(graph_, result.extras, exchange);
    sum_gradients(graph_, evaluation_, wanted, result);
    if (!wanted.centroid_virials) return;
    result.centroid_virials.assign(9 * graph_.n_nodes(), 0.0);
    add_centroid_virials(graph_, evaluation_.edge_gradients, result.centroid_virials.data());
  }

  double bytes() const override {
    // The gradients are counted before the first evaluation too.
    return bytes_of(graph_.node_types) + bytes_of(graph_.centres) + bytes_of(graph_.neighbours) +
           2 * bytes_of(graph_.vectors) + bytes_of(evaluation_.atomic_energies);
  }
};

}  // namespace

GraphStep::GraphStep(Model& model) : model_(model), half_radii_(half_radii(model.contract().elements)) {}

void GraphStep::set_candidates(const CandidateEdges& candidates, const std::vector<std::int64_t>& node_types,
                               std::int64_t n_owned) {
  candidates_ = &candidates;
  graph_.node_types = node_types;
  graph_.n_owned = n_owned;
  if (model_.contract().positions == Positions::none) return;
  owned_atoms_ = first_atoms(candidates, n_owned);
  graph_.positions.resize(3 * n_owned);
}

std::int64_t GraphStep::count_edges(const double* positions, double length_in_angstrom) {
  refresh_edges(*candidates_, positions, length_in_angstrom, model_.contract().cutoff, graph_);
  return graph_.n_edges();
}

void GraphStep::begin(const double* positions, double length_in_angstrom, const StepRequest& wanted,
                      StepResult& result) {
  result.clear();
  result.n_edges = count_edges(positions, length_in_angstrom);
  for (std::size_t k = 0; k < owned_atoms_.size(); ++k)
    for (int axis = 0; axis < 3; ++axis)
      graph_.positions[3 * k + axis] = length_in_angstrom * positions[3 * owned_atoms_[k] + axis];
  if (wanted.close_pair) result.close_pair = closest_pair(graph_, half_radii_);
}

void take_features(const Evaluation& evaluation, StepResult& result) {
  result.features = evaluation.features;
  result.grades = evaluation.grades;
  result.uncertainties = evaluation.uncertainties;
  result.energy_uncertainty = evaluation.energy_uncertainty;
}

void sum_gradients(const Graph& graph, const Evaluation& evaluation, const StepRequest& wanted, StepResult& result) {
  const auto& gradients = evaluation.edge_gradients;
  const auto sum_of_nodes = [&](std::vector<double>& sums, std::size_t width, auto add_edges) {
    sums.assign(width * static_cast<std::size_t>(graph.n_nodes()), 0.0);
    add_edges(graph, gradients, sums.data());
  };
  result.atomic_energies = evaluation.atomic_energies;
  if (wanted.forces) {
    sum_of_nodes(result.forces, 3, add_forces);
    add_position_forces(evaluation, result.forces.data());
  }
  if (wanted.virial) {
    result.virial = virial(graph, gradients);
    add_position_virial(graph, evaluation, result.virial);
  }
  if (wanted.atom_virials) sum_of_nodes(result.atom_virials, 6, add_atom_virials);
}

std::unique_ptr<StepImplementation> make_host_step(Model& model) { return std::make_unique<HostStep>(model); }

}  // namespace mlip
