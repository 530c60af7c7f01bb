#include "model/out_of_memory.h"

#include <cstdio>
#include <new>
#include <regex>

namespace mlip {
namespace {

std::string rounded(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

}  // namespace

std::optional<std::string> explain_out_of_memory(const std::exception& failure, const std::string& device,
                                                 const GraphSize& size, const FittedStep& fitted) {
  const std::string text = failure.what();
  // The words of torch's allocators, for CUDA and for the CPU, and of cuBLAS and its kin, whose own memory is often the
  // first that a full GPU has not. TorchScript keeps the words and loses the class.
  if (text.find("out of memory") == std::string::npos && text.find("can't allocate memory") == std::string::npos &&
      text.find("ALLOC_FAILED") == std::string::npos && dynamic_cast<const std::bad_alloc*>(&failure) == nullptr)
    return std::nullopt;

  std::string message = "out of memory on " + device + " with " + std::to_string(size.n_owned) + " atoms";
  if (size.n_nodes > size.n_owned) message += ", " + std::to_string(size.n_nodes - size.n_owned) + " ghosts";
  message += size.n_edges < 0 ? ", before their edges were counted" : " and " + std::to_string(size.n_edges) + " edges";
  std::smatch found;
  if (std::regex_search(text, found, std::regex("tried to allocate ([0-9.]+ [A-Za-z]+)", std::regex::icase)))
    message += "; " + found[1].str() + " more were asked for";
  if (std::regex_search(text, found, std::regex("total capacity of ([0-9.]+ [A-Za-z]+)")))
    message += ", the device has " + found[1].str();
  message += ". ";
  if (fitted.n_atoms > 0 && fitted.bytes > 0) {
    const auto bytes = static_cast<double>(fitted.bytes);
    message += "The largest step that fitted had " + std::to_string(fitted.n_atoms) + " atoms and took " +
               rounded(1e-9 * bytes) + " GB, " + rounded(1e-3 * bytes / static_cast<double>(fitted.n_atoms)) +
               " kB per atom. ";
  }
  const bool on_cpu = device == "cpu";
  return message + "Use a smaller system, or LAMMPS with MPI ranks on more " +
         (on_cpu ? "nodes, which share the atoms" : "GPUs, one rank on each, which share the atoms");
}

}  // namespace mlip
