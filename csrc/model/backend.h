// What runs an artifact's model: the model interface of the contract, in tensors. One implementation for each kind of
// artifact; model.cpp chooses by the contract, and nothing else knows that there are several.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/contract.h"

namespace mlip {

/// Contiguous, on the device that the back end was loaded for. The model's own: it may write into them.
struct ModelInputs {
  at::Tensor node_types;    ///< int64 [n_nodes], owned atoms first, then ghosts
  std::int64_t n_owned;     ///< how many nodes are owned
  at::Tensor edge_index;    ///< int64 [2, n_edges], centre and neighbour
  at::Tensor edge_vectors;  ///< [n_edges, 3] of the contract's type, r_j - r_i with the periodic shift, Å
  // Of a model that takes them, undefined for any other:
  at::Tensor positions;  ///< float64 [n_owned, 3] Å
  at::Tensor cell;       ///< float64 [3, 3] Å, rows; zero where not periodic
};

/// What a model returns, of the contract's type, or float64 where the model adds energies in it. What is not asked for,
/// and the back end can do without, is undefined.
struct ModelOutputs {
  at::Tensor energies;        ///< [n_owned] eV
  at::Tensor edge_gradients;  ///< [n_edges, 3] eV/Å
  // Of a model that takes positions:
  at::Tensor position_gradients;  ///< [n_owned, 3] eV/Å
  at::Tensor cell_gradient;       ///< [3, 3] eV/Å, rows
  at::Tensor features;            ///< [n_owned, the contract's features]; undefined if it has none
};

/// The contract's floating-point type.
inline at::ScalarType scalar_type(Precision precision) {
  return precision == Precision::float32 ? at::kFloat : at::kDouble;
}

/// @throws Error unless the back end of `model` returned `expected` values of `name`.
void check_count(const at::Tensor& tensor, std::int64_t expected, const std::string& name, const std::string& model);

/// A forward pass that can be differentiated more than once, while the tensors that it kept live.
struct Pullback {
  at::Tensor energies;  ///< [n_owned] eV
  /// weights [n_owned], of the energies' type -> gradient of Σ_i w_i E_i over the edge vectors, [n_edges, 3].
  std::function<at::Tensor(const at::Tensor& weights)> gradient;
};

class Backend {
 public:
  virtual ~Backend() = default;

  /// [number of the contract's settings] of the contract's type, on the device: what the model is given from now on.
  /// Undefined for a contract without settings, whose model takes no such argument.
  at::Tensor settings;

  /// @param only_energies the back end may leave out the rest
  virtual ModelOutputs run(const ModelInputs& inputs, bool only_energies) = 0;

  /// -> [n_owned, number of the contract's extras]. @throws Error if the artifact has none.
  virtual at::Tensor run_extras(const ModelInputs& inputs) = 0;

  /// The energies, to be differentiated by their atoms. @throws Error unless the contract says that they can be.
  virtual Pullback pull_back(const ModelInputs& inputs);
};

/// A TorchScript archive (torchscript_backend.cpp). @throws torch's exceptions.
std::unique_ptr<Backend> load_torchscript(const std::string& path, at::Device device);

/// A package of AOTInductor, which is machine code (aotinductor_backend.cpp).
/// @throws Error if it was compiled for another torch, processor or device than these; torch's exceptions.
std::unique_ptr<Backend> load_aotinductor(const std::string& path, const Contract& contract, at::Device device);

}  // namespace mlip
