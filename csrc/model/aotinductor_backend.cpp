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

#include <link.h>

#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string_view>

#include "core/error.h"
#include "gpu/runtime.h"
#include "model/backend.h"

namespace mlip {
namespace {

/// Whether this machine runs code for a level of x86-64, which is all that is compiled for CPUs.
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

/// What writes the model of a contract again.
/// @param on device that it is compiled for; empty for a file that is not compiled
std::string export_again(const Contract& contract, const std::string& on) {
  if (contract.model_family == "custom")
    return "export_module(..., " +
           (on.empty() ? "\"NAME.mlip.pt\")" : "backend=\"aotinductor\", device=\"" + on + "\")");
  return "mlip export " + contract.model_family + " CHECKPOINT " +
         (on.empty() ? "-o NAME.mlip.pt" : "--backend aotinductor --device " + on + " -o NAME.mlip.pt2");
}

void check_compiled_for(const std::string& path, const Contract& contract, at::Device device) {
  const CompiledFor& compiled = *contract.compiled_for;
  const std::string here = c10::DeviceTypeName(device.type(), true);
  auto refuse = [&](const std::string& expected, const std::string& found) {
    throw Error("'" + path + "' is compiled for " + expected + ", this is " + found + ". Compile it here: " +
                export_again(contract, here) + ", or write a file that runs anywhere: " + export_again(contract, ""));
  };
  const std::string torch = minor_release(TORCH_VERSION);
  if (compiled.torch != torch) refuse("torch " + compiled.torch, "torch " + torch);
  if (compiled.device != here) refuse("device " + compiled.device, "device " + device.str());
  if (device.is_cpu() && !runs_code_for(compiled.processor))
    refuse("processors of " + compiled.processor, this_processor());
  if (device.is_cuda() && !gpu::runs_code_for(compiled.processor, gpu::architecture(device)))
    refuse("GPUs of " + compiled.processor, "a GPU of " + gpu::architecture(device));
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

/// The folder that torch unpacks files in: the first of these variables names it. torch says no more than "Failed to
/// create temporary directory" where it cannot.
std::string temporary_folder(const std::string& path) {
  for (const char* variable : {"TMPDIR", "TMP", "TEMP", "TEMPDIR"}) {
    const char* folder = std::getenv(variable);
    if (folder == nullptr) continue;
    std::error_code ignored;
    if (!std::filesystem::is_directory(folder, ignored))
      throw Error("'" + path + "' is unpacked where " + variable + " says, and '" + folder +
                  "' is not a folder. Type: export " + variable + "=/tmp");
    return folder;
  }
  return "/tmp";
}

constexpr std::string_view unpacked =
    "/aotinductor_";  // and what makes the folder's name its own, in each path of torch

/// Folders that files were unpacked in by this process: libraries are loaded from them.
std::set<std::string> unpacked_folders() {
  std::set<std::string> found;
  const auto look = [](dl_phdr_info* library, std::size_t, void* folders) {
    const std::string path = library->dlpi_name;
    const std::size_t start = path.find(unpacked);
    if (start != std::string::npos)
      static_cast<std::set<std::string>*>(folders)->insert(path.substr(0, path.find('/', start + 1)));
    return 0;
  };
  dl_iterate_phdr(look, &found);
  return found;
}

void remove(const std::string& folder) {
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
}

/// torch leaves what it has unpacked when it cannot go on.
[[noreturn]] void give_up_unpacking(const std::string& path, const std::string& folder, const std::string& reason) {
  const std::size_t start = reason.find(folder + std::string(unpacked));
  if (start != std::string::npos) remove(reason.substr(start, reason.find('/', start + folder.size() + 1) - start));
  throw Error("'" + path + "' cannot be unpacked in '" + folder +
              "'. Free some space there, or type: export TMPDIR=FOLDER. " + reason);
}

class AOTInductorBackend : public Backend {
 public:
  AOTInductorBackend(const std::string& path, at::Device device)
      : loader_(path, "model", /*run_single_threaded=*/false, /*num_runners=*/1, device.index()) {}

  /// The compiled graph is energies and gradients in one: there is no way to the energies alone.
  ModelOutputs run(const ModelInputs& inputs, bool) override {
    // The graph holds its own backward pass, so that autograd has no part in the operators that it calls.
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    // Sizes reach the graph as shapes: the length of the second input is n_owned. The values are read in place.
    std::vector<at::Tensor> outputs;
    forget_kept_message();
    std::vector<at::Tensor> arguments = {inputs.node_types, inputs.node_types.narrow(0, 0, inputs.n_owned),
                                         inputs.edge_index, inputs.edge_vectors};
    if (settings.defined()) arguments.push_back(settings.clone());
    try {
      outputs = loader_.run(arguments);
    } catch (const std::exception& failure) {
      throw std::runtime_error(reason_of(failure));
    }
    if (outputs.size() != 2)
      throw Error("the compiled graph returned " + std::to_string(outputs.size()) + " tensors, expected 2");
    return {.energies = outputs[0], .edge_gradients = outputs[1]};
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
  const std::string folder = temporary_folder(path);
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> turn(one_at_a_time);
  const std::set<std::string> before = unpacked_folders();
  std::unique_ptr<Backend> backend;
  try {
    backend = std::make_unique<AOTInductorBackend>(path, device);
  } catch (const std::exception& failure) {
    const std::string reason = reason_of(failure);
    if (reason.find("extract") == std::string::npos) throw;
    give_up_unpacking(path, folder, reason);
  }
  // What is loaded needs no files, and a process that is killed cannot remove them. Kernels for GPUs are read later.
  if (device.is_cpu())
    for (const std::string& name : unpacked_folders())
      if (before.count(name) == 0) remove(name);
  return backend;
}

}  // namespace mlip
