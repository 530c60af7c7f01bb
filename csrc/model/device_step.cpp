#include "model/device_step.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "gpu/edges_by_node.h"
#include "model/backend.h"
#include "model/device_edges.h"
#include "model/domain.h"

namespace mlip {
namespace {

/// Whether edges from these candidates have owned centres in ascending order, and neighbours that are nodes.
bool are_sound(const CandidateEdges& candidates, std::int64_t n_owned, std::int64_t n_nodes) {
  std::int64_t last = 0;
  for (const int centre : candidates.centres) {
    const std::int64_t node = candidates.node_of[static_cast<std::size_t>(centre)];
    if (node < last || node >= n_owned) return false;
    last = node;
  }
  return std::all_of(candidates.neighbours.begin(), candidates.neighbours.end(), [&](int neighbour) {
    const std::int64_t node = candidates.node_of[static_cast<std::size_t>(neighbour)];
    return node >= 0 && node < n_nodes;
  });
}

/// Results side by side in one tensor, so that one copy brings them all to the host.
class Download {
 public:
  void add(const at::Tensor& values, std::vector<double>& target) {
    parts_.push_back(values.to(at::kDouble).reshape({-1}));
    targets_.push_back(&target);
  }

  void finish() {
    const at::Tensor all = at::cat(parts_).to(at::kCPU).contiguous();
    const double* next = all.const_data_ptr<double>();
    for (std::size_t k = 0; k < parts_.size(); ++k) {
      targets_[k]->assign(next, next + parts_[k].numel());
      next += parts_[k].numel();
    }
  }

 private:
  std::vector<at::Tensor> parts_;
  std::vector<std::vector<double>*> targets_;
};

class DeviceStep : public StepImplementation, public InPlaceStep {
 public:
  explicit DeviceStep(Model& model) : model_(model), device_(model.device()) {
    model_.guarded(size_, [&] {
      edges_ = make_device_edges(device_);
      half_radii_ = upload(mlip::half_radii(model_.contract().elements), device_);
    });
  }

  void set_candidates(const CandidateEdges& candidates, const std::vector<std::int64_t>& node_types,
                      std::int64_t n_owned) override {
    size_ = {n_owned, static_cast<std::int64_t>(node_types.size()), -1};
    n_atoms_ = candidates.n_atoms();
    edges_are_sound_ = are_sound(candidates, n_owned, size_.n_nodes);
    model_.guarded(size_, [&] {
      node_types_ = upload(node_types, device_);
      given_types_ = at::Tensor();
      edges_->set_candidates(candidates, size_.n_nodes);
      if (takes_positions()) owned_atoms_ = upload(first_atoms(candidates, n_owned), device_);
      if (positions_.defined()) found_at_ = positions_.clone();
    });
  }

  void set_shifts(const CandidateEdges& candidates) override {
    model_.guarded(size_, [&] { edges_->set_shifts(candidates); });
  }

  void set_cell(const Cell& cell) override {
    model_.guarded(size_, [&] { cell_ = upload(cell.vectors.data(), {3, 3}, device_); });
  }

  std::int64_t count_edges(const double* positions, double length_in_angstrom) override {
    find_edges(uploaded(positions), length_in_angstrom);
    return size_.n_edges;
  }

  void evaluate(const double* positions, double length_in_angstrom, const StepRequest& wanted, Exchange* exchange,
                StepResult& result) override {
    run(find_edges(uploaded(positions), length_in_angstrom), wanted, exchange, result);
  }

  InPlaceStep* in_place(std::int64_t n_atoms) override {
    // By a copy, which the host waits for: the engine writes there on a stream of its own.
    const std::vector<double> zeros(static_cast<std::size_t>(3 * n_atoms));
    model_.guarded({}, [&] { positions_ = upload(zeros.data(), {n_atoms, 3}, device_); });
    return this;
  }

  double* positions() override { return positions_.mutable_data_ptr<double>(); }

  double farthest_move(const std::array<double, 9>& deformation) override {
    if (!found_at_.defined()) return std::numeric_limits<double>::infinity();  // nothing has been searched yet
    if (positions_.numel() == 0) return 0.0;
    double squared = 0.0;
    model_.guarded(size_, [&] {
      const bool same_cell = deformation == std::array<double, 9>{1, 0, 0, 0, 1, 0, 0, 0, 1};
      const at::Tensor carried = same_cell ? found_at_ : found_at_.matmul(upload(deformation.data(), {3, 3}, device_));
      squared = (positions_ - carried).square_().sum(1).max().item<double>();
    });
    return std::sqrt(squared);
  }

  void evaluate_in_place(const StepRequest& wanted, StepResult& result) override {
    run(find_edges(positions_, 1.0), wanted, nullptr, result);
  }

  const double* forces() const override { return forces_.const_data_ptr<double>(); }

  double bytes() const override {
    double total = edges_->bytes();
    for (const at::Tensor& tensor : {node_types_, positions_, found_at_, forces_})
      if (tensor.defined()) total += static_cast<double>(tensor.nbytes());
    constexpr std::size_t edge_bytes = 2 * sizeof(std::int64_t) + 6 * sizeof(double);  // index, vector, gradient
    return total + static_cast<double>(edge_bytes) * static_cast<double>(std::max<std::int64_t>(size_.n_edges, 0));
  }

 private:
  struct Edges : EdgesOfStep {
    at::Tensor owned;  ///< float64 [n_owned, 3] positions of owned atoms, Å; undefined where the model takes none
  };

  bool takes_positions() const { return model_.contract().positions != Positions::none; }

  void run(const Edges& edges, const StepRequest& wanted, Exchange* exchange, StepResult& result) {
    const Contract& contract = model_.contract();
    const EvaluationRequest of_model = wanted.of_model();
    model_.check_request(of_model);
    result.clear();
    result.n_edges = size_.n_edges;
    if (wanted.close_pair) result.close_pair = closest_pair_of(edges);
    std::vector<double> virial;
    std::vector<double> extras;
    std::vector<double> sum_of_features;
    model_.with_backend(size_, exchange, [&](Backend& backend) {
      // Copies, since a model may write into its inputs.
      const auto inputs = [&] {
        ModelInputs copies{types_of_model(), size_.n_owned, edges.index.clone(),
                           edges.vectors.to(scalar_type(contract.precision), /*non_blocking=*/false, /*copy=*/true)};
        if (edges_are_sound_) gpu::EdgesByNode::declare_sound(copies.edge_index, size_.n_owned, size_.n_nodes);
        if (takes_positions()) {
          copies.positions = edges.owned.clone();
          copies.cell = cell_.clone();
        }
        return copies;
      };
      const ModelOutputs found = backend.run(inputs(), of_model.only_energies());
      const at::Tensor values = wanted.extras ? backend.run_extras(inputs()) : at::Tensor();
      c10::NoGradGuard no_grad;
      check_count(found.energies, size_.n_owned, "atomic_energies", contract.model_name);
      Download download;
      download.add(found.energies, result.atomic_energies);
      if (wanted.extras) {
        check_count(values, size_.n_owned * static_cast<std::int64_t>(contract.extras.size()), "extras",
                    contract.model_name);
        download.add(values.t(), extras);
      }
      if (of_model.of_features())
        check_count(found.features, size_.n_owned * contract.features, "features", contract.model_name);
      if (wanted.features) download.add(found.features, result.features);
      if (wanted.grades)
        download.add(model_.domain().grades(found.features, node_types_.narrow(0, 0, size_.n_owned)), result.grades);
      if (wanted.uncertainties) {
        download.add(model_.domain().uncertainties(found.features), result.uncertainties);
        download.add(found.features.sum(0, false, at::kDouble), sum_of_features);
      }
      if (wanted.gradients()) {
        check_count(found.edge_gradients, 3 * size_.n_edges, "edge_gradients", contract.model_name);
        const SumsOverEdges sums = edges_->sums(edges, found.edge_gradients.reshape({size_.n_edges, 3}), wanted);
        if (takes_positions()) {
          check_count(found.position_gradients, 3 * size_.n_owned, "position_gradients", contract.model_name);
          check_count(found.cell_gradient, 9, "cell_gradient", contract.model_name);
          const at::Tensor p = found.position_gradients.to(at::kDouble);
          if (wanted.forces) sums.forces.narrow(0, 0, size_.n_owned).sub_(p);
          if (wanted.virial) sums.virial.sub_(edges.owned.t().matmul(p)).sub_(cell_.t().matmul(found.cell_gradient));
        }
        if (wanted.forces && positions_.defined()) forces_ = sums.forces;
        if (wanted.forces && !positions_.defined()) download.add(sums.forces, result.forces);
        if (wanted.virial) download.add(sums.virial, virial);
        if (wanted.atom_virials) download.add(sums.atom_virials, result.atom_virials);
        if (wanted.centroid_virials) download.add(sums.centroid_virials, result.centroid_virials);
      }
      download.finish();
    });
    if (wanted.virial) std::copy(virial.begin(), virial.end(), result.virial.begin());
    if (wanted.uncertainties) result.energy_uncertainty = model_.domain().energy_uncertainty(sum_of_features, exchange);
    if (wanted.extras)
      for (std::size_t k = 0; k < contract.extras.size(); ++k) {
        const auto first = extras.begin() + static_cast<std::ptrdiff_t>(k) * size_.n_owned;
        result.extras.emplace_back(first, first + size_.n_owned);
      }
    model_.check_energies(result.atomic_energies);
  }

  /// A copy, since a model may write into it: the same one for as long as it does not, so that operators which put
  /// atoms in the order of their elements do so once per search.
  const at::Tensor& types_of_model() {
    const bool counted = given_types_.defined() && !given_types_.is_inference();  // how often they were written
    if (!counted || given_types_._version() != given_version_) {
      given_types_ = node_types_.clone();
      given_version_ = given_types_.is_inference() ? 0 : given_types_._version();
    }
    return given_types_;
  }

  /// As closest_pair. The host waits for it: one number where nothing is close.
  ClosePair closest_pair_of(const Edges& edges) {
    ClosePair pair;
    if (size_.n_edges == 0) return pair;
    model_.guarded(size_, [&] {
      const at::Tensor radii = half_radii_.index_select(0, node_types_);
      const at::Tensor expected =
          radii.index_select(0, edges.index[0]).add_(radii.index_select(0, edges.index[1])).clamp_min_(shortest_bond);
      const at::Tensor distance = edges.vectors.square().sum(1).sqrt_();
      const auto [ratio, edge] = (distance / expected).min(0);
      if (!(ratio.item<double>() < 1.0)) return;
      const auto k = edge.item<std::int64_t>();
      pair = {edges.index[0][k].item<std::int64_t>(), edges.index[1][k].item<std::int64_t>(),
              distance[k].item<double>(), expected[k].item<double>()};
    });
    return pair;
  }

  at::Tensor uploaded(const double* positions) {
    at::Tensor x;
    model_.guarded(size_, [&] { x = upload(positions, {n_atoms_, 3}, device_); });
    return x;
  }

  /// @param x float64 [engine atoms, 3]
  Edges find_edges(const at::Tensor& x, double length_in_angstrom) {
    size_.n_edges = -1;
    Edges edges;
    model_.guarded(size_, [&] {
      static_cast<EdgesOfStep&>(edges) = edges_->find(x, length_in_angstrom, model_.contract().cutoff);
      if (takes_positions()) edges.owned = x.index_select(0, owned_atoms_).mul_(length_in_angstrom);
    });
    size_.n_edges = edges.vectors.size(0);
    return edges;
  }

  Model& model_;
  at::Device device_;
  std::unique_ptr<DeviceEdges> edges_;
  at::Tensor half_radii_;  // float64 [n_elements] Å
  GraphSize size_;         // n_edges: of the last step, -1 where they are not counted yet
  std::int64_t n_atoms_ = 0;
  bool edges_are_sound_ = false;  // whichever of the candidates they are
  at::Tensor node_types_;         // int64 [n_nodes]
  at::Tensor given_types_;        // a copy, for the model
  std::int64_t given_version_ = 0;
  // Of a model that takes positions:
  at::Tensor owned_atoms_;  // int32 [n_owned] engine index
  at::Tensor cell_;         // float64 [3, 3] Å, rows
  at::Tensor positions_;    // float64 [n_atoms, 3] Å, in place only
  at::Tensor found_at_;     // float64 [n_atoms, 3] Å, of the candidates, in place only
  at::Tensor forces_;       // float64 [n_nodes, 3] eV/Å, of the last step with forces
};

}  // namespace

std::unique_ptr<StepImplementation> make_device_step(Model& model) { return std::make_unique<DeviceStep>(model); }

}  // namespace mlip
