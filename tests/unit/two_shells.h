// A model of a few tensor operations in place of an artifact, for tests of what drives a model.
#pragma once

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <memory>
#include <string>
#include <utility>

#include "core/exchange.h"
#include "model/backend.h"
#include "model/model.h"

namespace mlip::testing {

inline constexpr double cutoff = 4.0;  // Å

/// E_i = Σ_j s_ij ρ_j with ρ_i = Σ_j s_ij t_j, s a smooth function of the distance and t of the type: one layer of
/// messages, whose ρ ghosts need from their owners. Extra outputs: ρ and E.
class TwoShells : public Backend {
 public:
  bool only_energies_wanted = true;
  bool edges_sorted = true;
  double energy_factor = 1.0;
  std::int64_t missing_energies = 0;
  bool out_of_memory = false;

  ModelOutputs run(const ModelInputs& inputs, bool only_energies) override {
    if (out_of_memory) throw c10::OutOfMemoryError(c10::SourceLocation{"", "", 0}, cuda_message());
    only_energies_wanted = only_energies;
    const at::Tensor i = inputs.edge_index[0], j = inputs.edge_index[1], r = inputs.edge_vectors;
    if (i.numel() > 1) edges_sorted &= (i.slice(0, 1) >= i.slice(0, 0, -1)).all().item<bool>();
    const at::Tensor inside = 1.0 - r.square().sum(1) / (cutoff * cutoff);
    const at::Tensor s = inside.pow(3);
    const at::Tensor ds = (-6.0 / (cutoff * cutoff)) * inside.square().unsqueeze(1) * r;
    const at::Tensor t = 1.0 + 0.5 * inputs.node_types.to(r.scalar_type());
    const auto sum = [](const at::Tensor& of_edges, const at::Tensor& nodes, std::int64_t n) {
      return at::zeros({n}, of_edges.options()).index_add(0, nodes, of_edges);
    };
    rho_ = sum(s * t.index_select(0, j), i, inputs.n_owned);
    const std::int64_t n_nodes = t.size(0);
    at::Tensor rho = at::cat({rho_, at::zeros({n_nodes - inputs.n_owned}, rho_.options())});
    if (auto* exchange = ExchangeScope::active()) exchange->gather(rows(rho, inputs.n_owned));
    energies_ = energy_factor * sum(s * rho.index_select(0, j), i, inputs.n_owned);
    at::Tensor q = sum(s, j, n_nodes);
    if (auto* exchange = ExchangeScope::active()) exchange->scatter_add(rows(q, inputs.n_owned));
    const at::Tensor slope = rho.index_select(0, j) + q.index_select(0, i) * t.index_select(0, j);
    return {.energies = energies_.slice(0, missing_energies),
            .edge_gradients = energy_factor * slope.unsqueeze(1) * ds,
            .features = rho_.unsqueeze(1)};
  }

  at::Tensor run_extras(const ModelInputs& inputs) override {
    run(inputs, true);
    return at::stack({rho_, energies_}, 1);
  }

  static std::string cuda_message() {
    return "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.15 GiB of which 12.31 "
           "MiB is free.";
  }

 private:
  static FeatureRows rows(const at::Tensor& values, std::int64_t n_owned) {
    return {values.data_ptr(), values.scalar_type() == at::kFloat ? Precision::float32 : Precision::float64, n_owned,
            values.size(0), 1};
  }
  at::Tensor rho_, energies_;
};

inline Contract contract_of(Precision precision) {
  Contract contract;
  contract.model_name = "two-shells";
  contract.elements = {"Na", "Cl"};
  contract.cutoff = cutoff;
  contract.precision = precision;
  contract.parallel = Parallel::exchange;
  contract.extras = {"densities", "energies"};
  contract.features = 1;
  return contract;
}

struct TestModel {
  TwoShells* backend;
  Model model;
  explicit TestModel(Precision precision, at::Device device = at::kCPU)
      : TestModel(precision, device, std::make_unique<TwoShells>()) {}

 private:
  TestModel(Precision precision, at::Device device, std::unique_ptr<TwoShells> owned)
      : backend(owned.get()), model(contract_of(precision), std::move(owned), device.str()) {}
};

}  // namespace mlip::testing
