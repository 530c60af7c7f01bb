// The contract: everything that an engine must know about a model, read from the artifact.
//
// An artifact (`name.mlip.pt`, `name.mlip.pt2`) carries it as the JSON record `mlip/contract.json`. The Python side
// writes and checks the same fields (python/mlip_deploy/artifact/contract.py); docs/compatibility.md says which files a
// reader accepts, tests/contracts.json holds the rules that both sides are tested with.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/settings.h"

namespace mlip {

/// How a model that passes messages is run over several ranks.
enum class Parallel {
  local,     ///< energies depend on neighbours inside one cutoff only
  exchange,  ///< the graph calls mlip::ghost_gather before every message-passing layer
  halo,      ///< the engine supplies ghosts and their edges out to the interaction range
};

/// Whether a model takes positions and cell beside its edges, as sums over k-vectors need them.
enum class Positions {
  none,
  periodic,  ///< in a cell that is periodic in three directions; anything else is refused
  any,       ///< in a cell of any periodicity
};

/// The floating-point type that a model computes in.
enum class Precision { float32, float64 };

/// What runs the model.
enum class BackendKind {
  torchscript,  ///< a TorchScript archive: any torch, processor and device
  aotinductor,  ///< compiled code, for what `compiled_for` says
};

/// Where compiled code runs.
struct CompiledFor {
  std::string torch;      ///< minor release, "2.13"
  std::string device;     ///< "cpu" or "cuda"
  std::string processor;  ///< least of the CPU: "x86-64-v4", "x86-64-v3" or "x86-64"; of a GPU "sm_90"
};

struct Contract {
  std::string schema;         ///< "major.minor"
  std::string producer;       ///< package and version that wrote the file
  std::string torch_version;  ///< torch that wrote the file
  BackendKind backend = BackendKind::torchscript;
  std::optional<CompiledFor> compiled_for;  ///< of the back end aotinductor, and of no other
  std::string model_name;
  std::string model_family;
  std::string source_sha256;  ///< of the checkpoint
  std::string license;
  std::string citation;
  std::vector<std::string> elements;  ///< chemical symbols; the position is the type index
  double cutoff = 0.0;                ///< Å
  int message_passing_layers = 0;
  double interaction_range = 0.0;  ///< Å, cutoff times layers, and at least the cutoff
  Precision precision = Precision::float32;
  Parallel parallel = Parallel::local;
  std::vector<std::string> collectives;  ///< operations over all ranks, beside the exchange of ghosts
  std::vector<Setting> settings;         ///< values that are given at run time
  Positions positions = Positions::none;
  std::string energy_frame;                ///< functional, U, corrections and dispersion in one line
  std::vector<std::string> extras;         ///< names of further values of every atom, such as "magmoms"
  bool atomic_energies_meaningful = true;  ///< false where their sum alone means something
  /// Atomic energies can be differentiated one by one, which exact centroid virials of a model with messages need.
  bool differentiable_energies = false;
  int features = 0;                      ///< width of the features of atoms that enter the read-out; 0: none are given
  std::map<std::string, int> operators;  ///< custom operators that the graph calls, with the version of each

  /// Type index of a chemical symbol. @throws Error that reads on after "... is ": `'Xx', not an element of ...`.
  int type_index(const std::string& symbol) const;
};

/// Parse and check the JSON text. @param source names the file in messages.
/// Keys that are not known are ignored in a contract of a later minor schema, and refused in any other.
/// @throws Error for malformed JSON, a missing or unknown key, a wrong value, another major schema, a feature that the
/// file requires and this library does not know, an operator that it does not have in the file's version.
Contract parse_contract(const std::string& json, const std::string& source);

const char* to_string(BackendKind backend);
const char* to_string(Parallel parallel);
const char* to_string(Positions positions);
const char* to_string(Precision precision);

}  // namespace mlip
