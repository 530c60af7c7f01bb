#include "model/step.h"

#include <cmath>
#include <string>

#include "core/error.h"
#include "model/device_step.h"

namespace mlip {
namespace {

template <typename Value>
double bytes_of(const std::vector<Value>& values) {
  return static_cast<double>(values.capacity() * sizeof(Value));
}

/// Edges in a Graph, sums by loops over it.
class HostStep : public StepImplementation {
 public:
  explicit HostStep(Model& model) : model_(model) {}

  void set_candidates(const CandidateEdges& candidates, const std::vector<std::int64_t>& node_types,
                      std::int64_t n_owned) override {
    candidates_ = &candidates;
    graph_.node_types = node_types;
    graph_.n_owned = n_owned;
  }

  std::int64_t count_edges(const double* positions, double length_in_angstrom) override {
    refresh_edges(*candidates_, positions, length_in_angstrom, model_.contract().cutoff, graph_);
    return graph_.n_edges();
  }

  void evaluate(const double* positions, double length_in_angstrom, const StepRequest& wanted, Exchange* exchange,
                StepResult& result) override {
    result.clear();
    result.n_edges = count_edges(positions, length_in_angstrom);
    model_.evaluate(graph_, evaluation_, exchange, wanted.gradients());
    if (wanted.extras) model_.evaluate_extras(graph_, result.extras, exchange);
    result.atomic_energies = evaluation_.atomic_energies;
    const auto& gradients = evaluation_.edge_gradients;
    const auto sum_of_nodes = [&](std::vector<double>& sums, std::size_t width, auto add_edges) {
      sums.assign(width * static_cast<std::size_t>(graph_.n_nodes()), 0.0);
      add_edges(graph_, gradients, sums.data());
    };
    if (wanted.forces) sum_of_nodes(result.forces, 3, add_forces);
    if (wanted.virial) result.virial = virial(graph_, gradients);
    if (wanted.atom_virials) sum_of_nodes(result.atom_virials, 6, add_atom_virials);
    if (wanted.centroid_virials) sum_of_nodes(result.centroid_virials, 9, add_centroid_virials);
  }

  InPlaceStep* in_place(std::int64_t) override { return nullptr; }

  double bytes() const override {
    // The gradients are counted before the first evaluation too.
    return bytes_of(graph_.node_types) + bytes_of(graph_.centres) + bytes_of(graph_.neighbours) +
           2 * bytes_of(graph_.vectors) + bytes_of(evaluation_.atomic_energies);
  }

 private:
  Model& model_;
  const CandidateEdges* candidates_ = nullptr;
  Graph graph_;
  Evaluation evaluation_;
};

}  // namespace

void StepResult::clear() {
  n_edges = 0;
  virial = {};
  for (auto* values : {&atomic_energies, &forces, &atom_virials, &centroid_virials}) values->clear();
  extras.clear();
}

EdgesOn parse_edges_on(const std::string& name) {
  if (name == "auto") return EdgesOn::by_model;
  if (name == "host") return EdgesOn::host;
  if (name == "device") return EdgesOn::device;
  throw Error("edges: '" + name + "' is not one of auto, host, device");
}

StepEvaluator::StepEvaluator(Model& model, EdgesOn edges_on) : model_(model) {
  if (edges_on == EdgesOn::host || (edges_on == EdgesOn::by_model && model.device() == "cpu"))
    implementation_ = std::make_unique<HostStep>(model);
  else
    implementation_ = make_device_step(model);
}

StepEvaluator::~StepEvaluator() = default;

void StepEvaluator::set_candidates(const CandidateEdges& candidates, const std::vector<std::int64_t>& node_types,
                                   std::int64_t n_owned) {
  candidates_ = &candidates;
  implementation_->set_candidates(candidates, node_types, n_owned);
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
  implementation_->evaluate(positions, length_in_angstrom, wanted, exchange, result_);
  return result_;
}

double StepEvaluator::bytes() const {
  return implementation_->bytes() + bytes_of(result_.atomic_energies) + bytes_of(result_.forces) +
         bytes_of(result_.atom_virials) + bytes_of(result_.centroid_virials);
}

}  // namespace mlip
