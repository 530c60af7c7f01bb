// Steps whose edges are written into a Graph and summed by loops over it, on the CPU (graph.h).
#pragma once

#include <memory>

#include "model/step.h"

namespace mlip {

/// @param model must outlive the returned object
std::unique_ptr<StepImplementation> make_host_step(Model& model);

/// What steps on the CPU share: the candidates that are edges now, as a Graph.
class GraphStep : public StepImplementation {
 public:
  explicit GraphStep(Model& model);
  void set_candidates(const CandidateEdges& candidates, const std::vector<std::int64_t>& node_types,
                      std::int64_t n_owned) override;
  void set_shifts(const CandidateEdges&) override {}  // each step reads them anew
  std::int64_t count_edges(const double* positions, double length_in_angstrom) override;
  void set_cell(const Cell& cell) override { graph_.cell = cell; }
  InPlaceStep* in_place(std::int64_t) override { return nullptr; }

 protected:
  /// Empty `result` but for the number of edges and, if it is wanted, the closest pair.
  void begin(const double* positions, double length_in_angstrom, const StepRequest& wanted, StepResult& result);

  Model& model_;
  Graph graph_;
  Evaluation evaluation_;

 private:
  std::vector<double> half_radii_;  // [n_elements] Å
  const CandidateEdges* candidates_ = nullptr;
  std::vector<int> owned_atoms_;  // [n_owned] engine index, for a model that takes positions
};

/// What comes of the features of atoms, as far as it was asked for.
void take_features(const Evaluation& evaluation, StepResult& result);

/// The sums that `wanted` asks for, centroid virials apart.
void sum_gradients(const Graph& graph, const Evaluation& evaluation, const StepRequest& wanted, StepResult& result);

}  // namespace mlip
