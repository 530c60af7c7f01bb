// A model loaded from an artifact, ready to evaluate graphs. Knows no engine; hides the back end.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/contract.h"
#include "core/exchange.h"
#include "core/graph.h"
#include "core/unfolded.h"
#include "model/float32_products.h"
#include "model/out_of_memory.h"

namespace mlip {

class Backend;
class Domain;
class ExchangeRelay;
class SealedArchive;

struct ModelOptions {
  std::string device = "cpu";  ///< "cpu", "cuda", "cuda:N" or "auto" (CUDA if there is one)
  int threads = 0;             ///< CPU threads inside the model, for the whole process; 0 leaves them as they are
  bool self_test = true;       ///< evaluate the fixture that the file marks, and refuse to go on if it comes out wrong
  int process_on_node = -1;    ///< of several: "cuda" and "auto" then mean its own GPU (see device_on_node); -1: alone
  Products products = Products::full;  ///< of float32 matrices, on a GPU; whatever the process has set
};

/// What an evaluation is to give beside atomic energies.
struct EvaluationRequest {
  bool gradients = true;
  bool features = false;
  bool grades = false;
  bool uncertainties = false;  ///< of energies

  bool of_features() const { return features || grades || uncertainties; }
  bool only_energies() const { return !gradients && !of_features(); }
};

class Model {
 public:
  /// Load, warm up and prove that it computes here what the original framework does: the first evaluation afterwards is
  /// as fast as the later ones.
  /// Loading a compiled file (back end aotinductor) runs the code in it.
  /// @throws Error for a missing, truncated or foreign file, an unknown contract, an absent device, for code that was
  ///         compiled for another machine, and for results that are not those in the file (self_test.h).
  Model(const SealedArchive& archive, const ModelOptions& options);
  /// Behind a back end of one's own, such as a test's, which runs on `device`.
  Model(Contract contract, std::unique_ptr<Backend> backend, const std::string& device);
  ~Model();
  Model(Model&&) noexcept;

  const Contract& contract() const { return contract_; }
  const std::string& path() const { return path_; }
  const std::string& device() const { return device_; }
  Products products() const { return products_; }
  /// Of the self-test at load: "passed (1.2e-07 eV/atom, 14 ms)", or why there was none.
  const std::string& self_test() const { return self_test_; }

  /// Values of the contract's settings, in its order, for all evaluations from now on: the same on every rank. After
  /// construction they are the defaults, where each setting has one; else an evaluation is refused until they are set.
  /// @param values of SettingValues::values
  void set_settings(const std::vector<double>& values);

  /// Energies and edge gradients of a graph.
  /// @param exchange the engine's communication when there are several ranks and the contract says `exchange` or has
  ///                 collectives; must be passed on every rank, with or without atoms
  /// @param wanted   what is not stays empty. Without any of it the backward pass is left out if the back end can
  ///                 (TorchScript, with the method `energies` of python/mlip_deploy/exporters/interface.py)
  /// @throws Error, also for energies that are not finite, and for features, grades or uncertainties that the file
  ///         cannot give.
  void evaluate(const Graph& graph, Evaluation& result, Exchange* exchange = nullptr,
                const EvaluationRequest& wanted = {});

  /// As `evaluate`, with the moments of the gradients too: one forward pass and four backward ones.
  /// @param unfolded in halo mode with as many hops as layers
  /// @throws Error also for a model whose contract does not say that its energies are differentiable
  void evaluate_moments(const UnfoldedGraph& unfolded, Evaluation& result, Exchange* exchange = nullptr);

  /// The contract's extra outputs alone: one array [n_owned] for each of `contract().extras`, in their own units.
  /// With an exchange this is collective, like `evaluate`.
  void evaluate_extras(const Graph& graph, std::vector<std::vector<double>>& extras, Exchange* exchange = nullptr);

  /// Why there are no grades: the line to type is in it. "" where there are.
  const std::string& no_grades() const { return no_grades_; }
  /// Likewise, of energies.
  const std::string& no_uncertainties() const { return no_uncertainties_; }

  /// Bytes per atom of the widest features that the model exchanges; 0 for a model that exchanges nothing.
  std::int64_t exchange_bytes() const { return exchange_bytes_; }

  /// Wall-clock seconds in `with_backend` since construction: what the bare model call costs.
  double seconds_in_backend() const { return seconds_in_backend_; }

  // For the parts of the core that hold tensors themselves (backend.h).

  /// Call `body`, which works on a graph of this size. @throws Error for what torch throws, memory that ran out too.
  void guarded(const GraphSize& size, const std::function<void()>& body);
  /// `guarded`, with the exchange in place, Python's lock released and the clock running.
  void with_backend(const GraphSize& size, Exchange* exchange, const std::function<void(Backend&)>& body);
  /// @throws Error for features, grades or uncertainties that the file cannot give.
  void check_request(const EvaluationRequest& wanted) const;
  /// Where there are grades.
  const Domain& domain() const { return *domain_; }
  /// @throws Error for atomic energies (eV) that are not finite.
  void check_energies(const std::vector<double>& energies) const;

 private:
  void read_domain(const SealedArchive& archive);
  void warm_up();
  void reset_settings();

  Contract contract_;
  std::string path_;
  std::string device_;
  std::string self_test_ = "left out";
  Products products_ = Products::full;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Domain> domain_;
  std::unique_ptr<ExchangeRelay> relay_;
  std::string no_grades_ = "the model came without a file";
  std::string no_uncertainties_ = no_grades_;
  std::vector<double> settings_;  // that the back end has
  std::int64_t exchange_bytes_ = 0;
  double seconds_in_backend_ = 0.0;
  FittedStep fitted_;
};

/// GPUs that torch sees in this process.
int cuda_device_count();

/// The device of one of several processes on a node: "cuda", and "auto" where there are GPUs, become the GPU whose
/// number is the process's, counted anew after the last; anything else stays.
std::string device_on_node(const std::string& device, int process_on_node, int n_devices);

/// The torch version that this library was compiled against, "2.13.0".
const char* compiled_torch_version();

/// Number of CPU threads that a model uses now.
int model_threads();

}  // namespace mlip
