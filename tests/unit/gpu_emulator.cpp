// The operators of csrc/operators as they run on a GPU, with their kernels emulated (emulated_kernels.h), and steps of
// whole models on the emulated device. Loaded by tests/unit/test_gpu_kernels.py and test_emulated_device.py, to which
// it gives the operators `mlip_gpu_emulator::...`.
#include <torch/script.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/archive.h"
#include "core/sealed_archive.h"
#include "gpu/runtime.h"
#include "model/backend.h"
#include "model/device_edges.h"
#include "model/device_pair_search.h"
#include "model/step.h"
#include "operators/gpu.h"
#include "unit/emulated_device.h"
#include "unit/emulated_kernels.h"
#include "unit/layouts.h"

namespace {

using mlip::testing::emulated_kernels;

/// `operator_on_gpu` with its kernels emulated.
template <auto operator_on_gpu>
struct Emulated;
template <typename Result, typename... Arguments, Result (*operator_on_gpu)(Arguments...)>
struct Emulated<operator_on_gpu> {
  static Result run(Arguments... arguments) {
    mlip::gpu::use_runtime(&emulated_kernels());
    try {
      Result result = operator_on_gpu(arguments...);
      mlip::gpu::use_runtime(nullptr);
      return result;
    } catch (...) {
      mlip::gpu::use_runtime(nullptr);
      throw;
    }
  }
};

/// The text of the kernel that was asked for last.
std::string last_source() { return emulated_kernels().last_source(); }

/// Of all kernels that were asked for.
std::vector<std::string> all_sources() { return emulated_kernels().sources(); }

/// Of the kernels for a step's edges and their sums.
std::string edges_source(bool float32) { return mlip::kernel_edges_source(float32 ? at::kFloat : at::kDouble); }

/// Of the kernels for the search for neighbours.
std::string pair_search_source() { return mlip::pair_search_source(); }

/// The emulated device, and on it the emulated kernels if they are wanted, for all that the process does afterwards.
void start_device(bool kernels) {
  using namespace mlip::gpu;
  mlip::testing::start_emulated_device();
  if (!kernels) return;
  use_runtime(&emulated_kernels());
  static torch::Library library(torch::Library::IMPL, "mlip", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  library.impl("edge_tensor_product", edge_tensor_product);
  library.impl("edge_tensor_product_backward", edge_tensor_product_backward);
  library.impl("edge_harmonics", edge_harmonics);
  library.impl("edge_harmonics_backward", edge_harmonics_backward);
  library.impl("gate", gate);
  library.impl("gate_backward", gate_backward);
  library.impl("symmetric_contraction", symmetric_contraction);
  library.impl("symmetric_contraction_backward", symmetric_contraction_backward);
}

/// A file's model as engines call it.
struct Served {
  mlip::Model model;
  mlip::StepEvaluator step;
  mlip::NeighbourList list;

  Served(const std::string& path, at::Device device)
      : model(mlip::read_contract(mlip::SealedArchive(path)), mlip::load_torchscript(path, device), device.str()),
        step(model) {}

  static Served& of(const std::string& path, at::Device device) {
    static std::map<std::pair<std::string, std::string>, std::unique_ptr<Served>> known;
    auto& found = known[{path, device.str()}];
    if (!found) found = std::make_unique<Served>(path, device);
    return *found;
  }
};

/// A step on the CPU or the emulated device: of one rank, or as one of several sees it, with ghosts as nodes whose
/// features an exchange brings.
/// @return energies [n] eV; forces [n, 3] eV/Å, those on ghosts with their owners', and virial [9] eV unless only
///         energies are wanted
std::vector<torch::Tensor> step(const std::string& path, bool on_device, const torch::Tensor& positions,
                                const torch::Tensor& types, const torch::Tensor& cell, bool periodic, bool ghosts,
                                bool only_energies) {
  Served& served = Served::of(path, on_device ? mlip::testing::emulated_device : at::Device(at::kCPU));
  const std::int64_t n_atoms = positions.size(0);
  mlip::testing::Structure structure{"", {}, {}, {periodic, periodic, periodic}};
  structure.positions.assign(positions.const_data_ptr<double>(), positions.const_data_ptr<double>() + 3 * n_atoms);
  std::copy_n(cell.const_data_ptr<double>(), 9, structure.cell.begin());
  std::vector<std::int64_t> node_types(types.const_data_ptr<std::int64_t>(),
                                       types.const_data_ptr<std::int64_t>() + n_atoms);
  const auto layout = ghosts ? mlip::testing::Layout::ghosts : mlip::testing::Layout::images;
  auto setup =
      mlip::testing::set_up(structure, std::move(node_types), served.model.contract().cutoff, layout, served.list);
  served.step.set_candidates(setup.candidates, setup.node_types, n_atoms);
  mlip::StepRequest wanted;
  wanted.forces = wanted.virial = !only_energies;
  mlip::StepResult result =
      served.step.evaluate(setup.positions.data(), 1.0, wanted, ghosts ? &setup.exchange : nullptr);
  const auto tensor = [](const auto& values) {
    return torch::tensor(at::ArrayRef<double>(values.data(), values.size()), at::kDouble);
  };
  if (only_energies) return {tensor(result.atomic_energies)};
  setup.exchange.scatter_add(
      {result.forces.data(), mlip::Precision::float64, n_atoms, static_cast<std::int64_t>(setup.node_types.size()), 3});
  result.forces.resize(static_cast<std::size_t>(3 * n_atoms));
  return {tensor(result.atomic_energies), tensor(result.forces).reshape({-1, 3}), tensor(result.virial)};
}

torch::Tensor bytes(const std::string& code) {
  torch::Tensor result = torch::empty({static_cast<std::int64_t>(code.size())}, torch::kUInt8);
  std::copy(code.begin(), code.end(), result.data_ptr<std::uint8_t>());
  return result;
}

/// uint8, by NVIDIA's compiler for an architecture.
torch::Tensor machine_code(const std::string& source, const std::string& architecture) {
  return bytes(mlip::gpu::compile(source, architecture));
}

/// The same through the cache of compiled kernels.
torch::Tensor cached_machine_code(const std::string& source, const std::string& architecture) {
  return bytes(mlip::gpu::compiled_or_cached(source, architecture));
}

}  // namespace

TORCH_LIBRARY(mlip_gpu_emulator, library) {
  using namespace mlip::gpu;
  library.def(
      "edge_tensor_product(Tensor features, Tensor harmonics, Tensor radial, Tensor edge_index, int n_owned, "
      "int[] paths, Tensor coefficients, Tensor table, float step, Tensor? table_of_edge=None, int kink=0) -> Tensor[]",
      Emulated<edge_tensor_product>::run);
  library.def(
      "edge_tensor_product_backward(Tensor[] gradients, Tensor features, Tensor harmonics, Tensor radial, "
      "Tensor edge_index, int[] paths, Tensor coefficients, Tensor table, float step, bool features_wanted, "
      "Tensor? table_of_edge=None, int kink=0) -> (Tensor, Tensor, Tensor)",
      Emulated<edge_tensor_product_backward>::run);
  library.def("edge_harmonics(Tensor vectors, int l_max) -> (Tensor, Tensor)", Emulated<edge_harmonics>::run);
  library.def(
      "edge_harmonics_backward(Tensor distances_gradient, Tensor harmonics_gradient, Tensor vectors, int l_max) -> "
      "Tensor",
      Emulated<edge_harmonics_backward>::run);
  library.def("gate(Tensor[] inputs, int[] pieces, float[] factors) -> Tensor[]", Emulated<gate>::run);
  library.def("gate_backward(Tensor[] gradients, Tensor[] inputs, int[] pieces, float[] factors) -> Tensor[]",
              Emulated<gate_backward>::run);
  library.def(
      "symmetric_contraction(Tensor features, Tensor types, Tensor factors, Tensor terms, int n_outputs, "
      "Tensor coefficients) -> Tensor",
      Emulated<symmetric_contraction>::run);
  library.def(
      "symmetric_contraction_backward(Tensor gradient, Tensor features, Tensor types, Tensor factors, Tensor terms, "
      "Tensor coefficients) -> Tensor",
      Emulated<symmetric_contraction_backward>::run);
  library.def("start_device(bool kernels) -> ()", start_device);
  library.def(
      "step(str path, bool on_device, Tensor positions, Tensor types, Tensor cell, bool periodic, bool ghosts, "
      "bool only_energies) -> Tensor[]",
      step);
  library.def("last_source() -> str", last_source);
  library.def("sources() -> str[]", all_sources);
  library.def("edges_source(bool float32) -> str", edges_source);
  library.def("pair_search_source() -> str", pair_search_source);
  library.def("machine_code(str source, str architecture) -> Tensor", machine_code);
  library.def("cached_machine_code(str source, str architecture) -> Tensor", cached_machine_code);
}
