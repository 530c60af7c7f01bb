// Runs a TorchScript archive: written by python/mlip_deploy/exporters/targets/torchscript.py.
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

#include <optional>

#include "core/error.h"
#include "model/backend.h"
#include "model/program.h"

namespace mlip {
namespace {

class TorchScriptBackend : public Backend {
 public:
  TorchScriptBackend(torch::jit::Module script_module, at::Device device)
      : module_(std::move(script_module)),
        forward_(module_.get_method("forward")),
        energies_(module_.find_method("energies")),
        extras_(module_.find_method("extras")),
        program_(Program::of(forward_, device)) {}

  ModelOutputs run(const ModelInputs& inputs, bool only_energies) override {
    // The profiling executor would specialise and recompile during the first steps; it gains nothing here.
    torch::jit::GraphOptimizerEnabledGuard no_profiling(false);
    if (program_) return program_->run(stack(inputs), settings.defined() ? settings.clone() : settings, only_energies);
    if (only_energies && energies_) {
      c10::NoGradGuard no_grad;
      return {.energies = (*energies_)(stack(inputs), others(inputs)).toTensor()};
    }
    const auto results = forward_(stack(inputs), others(inputs)).toTuple();
    const auto result = [&](std::size_t k) { return results->elements()[k].toTensor(); };
    if (inputs.positions.defined()) return {result(0), result(1), result(2), result(3)};
    ModelOutputs found{.energies = result(0), .edge_gradients = result(1)};
    if (results->elements().size() > 2) found.features = result(2);
    return found;
  }

  at::Tensor run_extras(const ModelInputs& inputs) override {
    if (!extras_) throw Error("the file has no method 'extras'");
    torch::jit::GraphOptimizerEnabledGuard no_profiling(false);
    return (*extras_)(stack(inputs), others(inputs)).toTensor();
  }

  Pullback pull_back(const ModelInputs& inputs) override {
    if (!energies_) return Backend::pull_back(inputs);
    torch::jit::GraphOptimizerEnabledGuard no_profiling(false);
    ModelInputs differentiable = inputs;
    const at::Tensor vectors = differentiable.edge_vectors = inputs.edge_vectors.detach().requires_grad_(true);
    const at::Tensor energies = (*energies_)(stack(differentiable), others(inputs)).toTensor();
    if (!energies.requires_grad()) return Backend::pull_back(inputs);
    return {energies.detach(), [vectors, energies](const at::Tensor& weights) {
              // As in EdgeGradientModel.forward: without edges or atoms of its own a rank takes the same steps.
              const auto found = torch::autograd::grad({energies}, {vectors}, {weights}, /*retain_graph=*/true,
                                                       /*create_graph=*/false, /*allow_unused=*/true);
              return found[0].defined() ? found[0] : at::zeros_like(vectors);
            }};
  }

 private:
  static std::vector<c10::IValue> stack(const ModelInputs& inputs) {
    return {inputs.node_types, inputs.n_owned, inputs.edge_index, inputs.edge_vectors};
  }

  /// What the contract declares beside them, by name.
  torch::jit::Kwargs others(const ModelInputs& inputs) const {
    torch::jit::Kwargs arguments;
    if (inputs.positions.defined()) arguments = {{"positions", inputs.positions}, {"cell", inputs.cell}};
    if (settings.defined()) arguments.emplace("settings", settings.clone());  // a model may write into its arguments
    return arguments;
  }

  torch::jit::Module module_;
  torch::jit::Method forward_;
  std::optional<torch::jit::Method> energies_;
  std::optional<torch::jit::Method> extras_;
  std::unique_ptr<Program> program_;  ///< of `forward`; null where TorchScript's interpreter runs it
};

}  // namespace

std::unique_ptr<Backend> load_torchscript(const std::string& path, at::Device device) {
  torch::jit::Module module = torch::jit::load(path, device);
  module.eval();
  return std::make_unique<TorchScriptBackend>(std::move(module), device);
}

}  // namespace mlip
