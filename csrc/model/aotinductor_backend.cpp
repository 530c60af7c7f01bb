// Runs a package of AOTInductor: machine code, written by python/mlip_deploy/exporters/targets/aotinductor.py.
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/inductor/aoti_torch/utils.h>
#include <torch/version.h>
// torch's own names of releases (TORCH_VERSION_2_13_0) exist in the newest ones only.
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 13)
#define MLIP_TORCH_KEEPS_MESSAGES
#include <torch/csrc/stable/c/shim.h>
#endif

#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "core/error.h"
#include "model/backend.h"

namespace mlip {
namespace {

/// Whether this machine runs code for a level of x86-64, which is all that is compiled so far.
bool runs_code_for([[maybe_unused]] const std::string& level) {
#if defined(__x86_64__)
  if (level == "x86-64-v4") return __builtin_cpu_supports("x86-64-v4");
  if (level == "x86-64-v3") return __builtin_cpu_supports("x86-64-v3");
  return level == "x86-64";
#else
  return false;
#endif
}

std::string this_processor() {
  for (const char* level : {"x86-64-v4", "x86-64-v3", "x86-64"})
    if (runs_code_for(level)) return level;
  return "none of x86-64";
}

/// "2.13" of "2.13.0+cpu": compiled code calls torch's internals, which change between minor releases.
std::string minor_release(const std::string& version) {
  return version.substr(0, version.find('.', version.find('.') + 1));
}

void check_compiled_for(const std::string& path, const Contract& contract, at::Device device) {
  const CompiledFor& compiled = *contract.compiled_for;
  const std::string again =
      contract.model_family == "custom"
          ? "export_module(..., backend=\"aotinductor\")"
          : "mlip export " + contract.model_family + " CHECKPOINT --backend aotinductor -o NAME.mlip.pt2";
  auto refuse = [&](const std::string& expected, const std::string& found) {
    throw Error("'" + path + "' is compiled for " + expected + ", this is " + found + ". Compile it here: " + again);
  };
  const std::string torch = minor_release(TORCH_VERSION);
  if (compiled.torch != torch) refuse("torch " + compiled.torch, "torch " + torch);
  if (compiled.device != c10::DeviceTypeName(device.type(), true))
    refuse("device " + compiled.device, "device " + device.str());
  if (!runs_code_for(compiled.processor)) refuse("processors of " + compiled.processor, this_processor());
}

// Between compiled code and the operators that it calls is a C interface: an exception becomes "... API call failed",
// and torch, from 2.13, keeps its message for the thread.
void forget_kept_message() {
#ifdef MLIP_TORCH_KEEPS_MESSAGES
  torch::csrc::shim::details::set_torch_exception_what_without_backtrace("");
#endif
}

std::string reason_of(const std::exception& failure) {
#ifdef MLIP_TORCH_KEEPS_MESSAGES
  const std::string kept = torch_exception_get_what_without_backtrace();
  if (!kept.empty()) return kept;
#endif
  return failure.what();
}

/// torch unpacks the file in the folder that the first of these variables names, and says no more than "Failed to
/// create temporary directory" where it cannot.
void check_temporary_folder(const std::string& path) {
  for (const char* variable : {"TMPDIR", "TMP", "TEMP", "TEMPDIR"}) {
    const char* folder = std::getenv(variable);
    if (folder == nullptr) continue;
    std::error_code ignored;
    if (!std::filesystem::is_directory(folder, ignored))
      throw Error("'" + path + "' is unpacked where " + variable + " says, and '" + folder +
                  "' is not a folder. Type: export " + variable + "=/tmp");
    return;
  }
}

class AOTInductorBackend : public Backend {
 public:
  AOTInductorBackend(const std::string& path, at::Device device)
      : loader_(path, "model", /*run_single_threaded=*/false, /*num_runners=*/1, device.index()) {}

  /// The compiled graph is energies and gradients in one: there is no way to the energies alone.
  std::pair<at::Tensor, at::Tensor> run(const ModelInputs& inputs, bool) override {
    // The graph holds its own backward pass, so that autograd has no part in the operators that it calls.
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    // Sizes reach the graph as shapes: the length of the second input is n_owned. The values are read in place.
    std::vector<at::Tensor> outputs;
    forget_kept_message();
    try {
      outputs = loader_.run(
          {inputs.node_types, inputs.node_types.narrow(0, 0, inputs.n_owned), inputs.edge_index, inputs.edge_vectors});
    } catch (const std::exception& failure) {
      throw std::runtime_error(reason_of(failure));
    }
    if (outputs.size() != 2)
      throw Error("the compiled graph returned " + std::to_string(outputs.size()) + " tensors, expected 2");
    return {outputs[0], outputs[1]};
  }

  at::Tensor run_extras(const ModelInputs&) override {
    throw Error("the back end aotinductor has no outputs beside energies and gradients");
  }

 private:
  torch::inductor::AOTIModelPackageLoader loader_;
};

}  // namespace

std::unique_ptr<Backend> load_aotinductor(const std::string& path, const Contract& contract, at::Device device) {
  check_compiled_for(path, contract, device);
  check_temporary_folder(path);
  return std::make_unique<AOTInductorBackend>(path, device);
}

}  // namespace mlip
