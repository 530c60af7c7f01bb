// Runs a TorchScript archive: written by python/mlip_deploy/exporters/targets/torchscript.py.
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

#include <optional>

#include "core/error.h"
#include "model/backend.h"

namespace mlip {
namespace {

class TorchScriptBackend : public Backend {
 public:
  explicit TorchScriptBackend(torch::jit::Module script_module)
      : module_(std::move(script_module)),
        forward_(module_.get_method("forward")),
        energies_(module_.find_method("energies")),
        extras_(module_.find_method("extras")) {}

  std::pair<at::Tensor, at::Tensor> run(const ModelInputs& inputs, bool with_gradients) override {
    // The profiling executor would specialise and recompile during the first steps; it gains nothing here.
    torch::jit::GraphOptimizerEnabledGuard no_profiling(false);
    if (!with_gradients && energies_) return {(*energies_)(stack(inputs)).toTensor(), at::Tensor()};
    const auto outputs = forward_(stack(inputs)).toTuple();
    return {outputs->elements()[0].toTensor(), outputs->elements()[1].toTensor()};
  }

  at::Tensor run_extras(const ModelInputs& inputs) override {
    if (!extras_) throw Error("the file has no method 'extras'");
    torch::jit::GraphOptimizerEnabledGuard no_profiling(false);
    return (*extras_)(stack(inputs)).toTensor();
  }

 private:
  std::vector<c10::IValue> stack(const ModelInputs& inputs) const {
    std::vector<c10::IValue> arguments = {inputs.node_types, inputs.n_owned, inputs.edge_index, inputs.edge_vectors};
    if (settings.defined()) arguments.emplace_back(settings.clone());  // a model may write into its arguments
    return arguments;
  }

  torch::jit::Module module_;
  torch::jit::Method forward_;
  std::optional<torch::jit::Method> energies_;
  std::optional<torch::jit::Method> extras_;
};

}  // namespace

std::unique_ptr<Backend> load_torchscript(const std::string& path, at::Device device) {
  torch::jit::Module module = torch::jit::load(path, device);
  module.eval();
  return std::make_unique<TorchScriptBackend>(std::move(module));
}

}  // namespace mlip
