#include "model/moment_step.h"

#include "core/unfolded.h"
#include "model/host_step.h"

namespace mlip {
namespace {

class MomentStep : public GraphStep {
 public:
  explicit MomentStep(Model& model)
      : GraphStep(model),
        hops_(model.contract().parallel == Parallel::halo ? model.contract().message_passing_layers : 1) {}

  void set_candidates(const CandidateEdges& candidates, const std::vector<std::int64_t>& node_types,
                      std::int64_t n_owned) override {
    GraphStep::set_candidates(candidates, node_types, n_owned);
    atom_of_node_ = first_atoms(candidates, static_cast<std::int64_t>(node_types.size()));
  }

  void evaluate(const double* positions, double length_in_angstrom, const StepRequest& wanted, Exchange* exchange,
                StepResult& result) override {
    begin(positions, length_in_angstrom, wanted, result);
    std::vector<double> homes;
    for (const int atom : atom_of_node_)
      for (int axis = 0; axis < 3; ++axis) homes.push_back(length_in_angstrom * positions[3 * atom + axis]);
    unfolded_.build(graph_, homes, hops_);
    EvaluationRequest of_atoms = wanted.of_model();
    of_atoms.gradients = false;
    if (of_atoms.of_features()) {
      model_.evaluate(graph_, evaluation_, exchange, of_atoms);
      take_features(evaluation_, result);
    }
    model_.evaluate_moments(unfolded_, evaluation_, exchange);
    if (wanted.extras) model_.evaluate_extras(graph_, result.extras, exchange);
    sum_gradients(unfolded_.folded(), evaluation_, wanted, result);
    add_virials_at_home(result.centroid_virials);
  }

  double bytes() const override {
    return bytes_of(graph_.centres) + bytes_of(graph_.neighbours) + bytes_of(graph_.vectors) + unfolded_.bytes() +
           4 * bytes_of(evaluation_.edge_gradients) + bytes_of(evaluation_.atomic_energies);
  }

 private:
  /// Those of images are their atom's.
  void add_virials_at_home(std::vector<double>& virials) const {
    virials.assign(9 * unfolded_.graph().n_nodes(), 0.0);
    add_centroid_virials(unfolded_.graph(), evaluation_, unfolded_.positions(), virials.data());
    for (std::int64_t node = unfolded_.n_folded(); node < unfolded_.graph().n_nodes(); ++node)
      for (int c = 0; c < 9; ++c) virials[9 * unfolded_.folded_node(node) + c] += virials[9 * node + c];
    virials.resize(9 * unfolded_.n_folded());
  }

  int hops_;                       // of the unfolded graph
  std::vector<int> atom_of_node_;  // [n_nodes] engine index
  UnfoldedGraph unfolded_;
};

}  // namespace

std::string no_moment_step(const Contract& contract) {
  if (contract.backend == BackendKind::aotinductor)
    return "the file is compiled. Use one that is not: mlip export without --backend aotinductor";
  if (!contract.differentiable_energies)
    return "the file does not hold differentiable atomic energies. Write it anew with: mlip export";
  if (!contract.collectives.empty()) return "an atom's energy depends on a sum over all atoms";
  return "";
}

std::unique_ptr<StepImplementation> make_moment_step(Model& model) { return std::make_unique<MomentStep>(model); }

}  // namespace mlip
