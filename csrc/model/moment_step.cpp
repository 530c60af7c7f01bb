#include "model/moment_step.h"

#include <algorithm>

#include "core/unfolded.h"
#include "model/host_step.h"

namespace mlip {
namespace {

class MomentStep : public StepImplementation {
 public:
  explicit MomentStep(Model& model) : model_(model), half_radii_(half_radii(model.contract().elements)) {}

  void set_candidates(const CandidateEdges& candidates, const std::vector<std::int64_t>& node_types,
                      std::int64_t n_owned) override {
    unfolded_.set_candidates(candidates, node_types, n_owned);
  }

  std::int64_t count_edges(const double* positions, double length_in_angstrom) override {
    unfolded_.refresh(positions, length_in_angstrom, model_.contract().cutoff);
    return unfolded_.graph().n_edges();
  }

  void evaluate(const double* positions, double length_in_angstrom, const StepRequest& wanted, Exchange* exchange,
                StepResult& result) override {
    result.clear();
    result.n_edges = count_edges(positions, length_in_angstrom);
    const Graph folded = unfolded_.folded();
    if (wanted.close_pair) result.close_pair = closest_pair(folded, half_radii_);
    model_.evaluate_moments(unfolded_, evaluation_, exchange);
    if (wanted.extras) model_.evaluate_extras(folded, result.extras, exchange);
    sum_over_edges(folded, evaluation_, wanted, result);
    result.centroid_virials.assign(9 * folded.n_nodes(), 0.0);
    add_centroid_virials(folded, evaluation_, unfolded_.positions(), result.centroid_virials.data());
  }

  InPlaceStep* in_place(std::int64_t) override { return nullptr; }

  double bytes() const override {
    return unfolded_.bytes() + 4 * bytes_of(evaluation_.edge_gradients) + bytes_of(evaluation_.atomic_energies);
  }

 private:
  Model& model_;
  std::vector<double> half_radii_;  // [n_elements] Å
  UnfoldedGraph unfolded_;
  Evaluation evaluation_;
};

}  // namespace

std::string no_moment_step(const Contract& contract, const CandidateEdges& candidates, std::size_t n_nodes) {
  if (contract.backend == BackendKind::aotinductor)
    return "the file is compiled. Use one that is not: mlip export without --backend aotinductor";
  if (!contract.differentiable_energies)
    return "the file does not hold differentiable atomic energies. Write it anew with: mlip export";
  // In a halo every image has edges of its own.
  const auto seen = [](int node) { return node >= 0; };
  const auto n_atoms = std::count_if(candidates.node_of.begin(), candidates.node_of.end(), seen);
  const bool folded = !candidates.images.empty() || static_cast<std::size_t>(n_atoms) > n_nodes;
  if (contract.parallel == Parallel::halo && folded)
    return "a model of parallel 'halo' needs periodic images as atoms of their own. Run it in LAMMPS on two ranks or "
           "more";
  return "";
}

std::unique_ptr<StepImplementation> make_moment_step(Model& model) { return std::make_unique<MomentStep>(model); }

}  // namespace mlip
