// Evaluates graphs with the back end that the contract names.
#include "model/model.h"

#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/Parallel.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <pthread.h>
#include <torch/cuda.h>
#include <torch/version.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>

#include "core/archive.h"
#include "core/error.h"
#include "core/sealed_archive.h"
#include "core/torch_errors.h"
#include "gpu/edges_by_node.h"
#include "gpu/torch_context.h"
#include "model/backend.h"
#include "model/domain.h"
#include "model/exchange_relay.h"
#include "model/kept_memory.h"
#include "model/moment_exchange.h"
#include "model/python_gil.h"
#include "model/self_test.h"

namespace mlip {
namespace {

at::Device find_device(const std::string& name) {
  const bool have_cuda = torch::cuda::is_available();
  if (name == "auto" && !have_cuda) return at::Device(at::kCPU);
  if (name != "auto" && name != "cpu" && name != "cuda" && name.rfind("cuda:", 0) != 0)
    throw Error("device: '" + name + "' is not one of cpu, cuda, cuda:N, auto");
  const at::Device device =
      translate_errors("device: '" + name + "'", [&] { return at::Device(name == "auto" ? "cuda" : name); });
  if (device.is_cuda() && !have_cuda)
    throw Error("device: '" + name +
                "' asked for, but torch " TORCH_VERSION
                " finds no CUDA device. Use 'device cpu'; a GPU needs its driver and a CUDA build of torch, "
                "and mlip doctor says which is missing");
  if (device.has_index() && device.is_cuda() && device.index() >= static_cast<int>(torch::cuda::device_count()))
    throw Error("device: '" + name + "' asked for, there are " + std::to_string(torch::cuda::device_count()) +
                " CUDA devices");
  // By its number: what is current may be another one at each call.
  if (device.is_cuda() && !device.has_index()) return at::Device(at::kCUDA, at::accelerator::getDeviceIndex());
  return device;
}

/// The same memory as a tensor.
at::Tensor view(const std::vector<std::int64_t>& values) {
  return at::from_blob(const_cast<std::int64_t*>(values.data()), {static_cast<std::int64_t>(values.size())}, at::kLong);
}

ModelInputs make_inputs(const Graph& graph, at::Device device, const Contract& contract) {
  // Copies, since a model may write into its inputs, and the engine goes on with the graph.
  constexpr bool non_blocking = false;
  constexpr bool copy = true;
  auto rows = [&](const double* values, std::int64_t n, at::ScalarType type) {
    return at::from_blob(const_cast<double*>(values), {n, 3}, at::kDouble).to(device, type, non_blocking, copy);
  };
  ModelInputs inputs{view(graph.node_types).to(device, at::kLong, non_blocking, copy), graph.n_owned,
                     at::stack({view(graph.centres), view(graph.neighbours)}).to(device),
                     rows(graph.vectors.data(), graph.n_edges(), scalar_type(contract.precision))};
  if (contract.positions != Positions::none) {
    inputs.positions = rows(graph.positions.data(), graph.n_owned, at::kDouble);
    inputs.cell = rows(graph.cell.vectors.data(), 3, at::kDouble);
  }
  return inputs;
}

/// Copy a result to the engine's buffer in float64, whatever layout and type the back end returned.
void copy_result(const at::Tensor& tensor, std::int64_t expected, const std::string& name, const std::string& model,
                 std::vector<double>& out) {
  check_count(tensor, expected, name, model);
  const at::Tensor dense = tensor.to(at::kCPU, at::kDouble).contiguous();
  out.assign(dense.data_ptr<double>(), dense.data_ptr<double>() + expected);
}

/// Peak of the memory in use on a device since the process began, bytes; 0 on the CPU, where torch does not count.
std::int64_t peak_memory(at::Device device) {
  if (device.is_cpu()) return 0;
  constexpr auto aggregate = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return at::getDeviceAllocator(device.type())->getDeviceStats(device.index()).allocated_bytes[aggregate].peak;
}

/// An owned atom and a ghost of it at half the cutoff, in a cube: enough to touch every operator once.
Graph warm_up_graph(double cutoff) {
  Graph graph;
  graph.n_owned = 1;
  graph.node_types = {0, 0};
  const double vector[3] = {0.5 * cutoff, 0.0, 0.0};
  graph.add_edge(0, 1, vector);
  graph.positions = {0.0, 0.0, 0.0};
  for (int axis = 0; axis < 3; ++axis) graph.cell.vectors[4 * axis] = cutoff;
  graph.cell.periodic = {true, true, true};
  return graph;
}

/// Stands in for an engine during the warm-up and notes how wide the exchanged features are.
class WidthProbe : public Exchange {
 public:
  std::int64_t n_ghosts() const override { return 1; }
  void gather(const FeatureRows& rows) override {
    const std::int64_t bytes = rows.width * (rows.precision == Precision::float32 ? 4 : 8);
    widest = std::max(widest, bytes);
    std::memcpy(static_cast<char*>(rows.data) + bytes, rows.data, static_cast<std::size_t>(bytes));
  }
  void scatter_add(const FeatureRows&) override {}
  void sum(double*, std::int64_t) override {}
  std::int64_t widest = 0;
};

/// Orders of edges that operators make live for one evaluation.
struct EdgeOrders {
  at::Device device;
  ~EdgeOrders() { gpu::EdgesByNode::forget(device); }
};

// OpenMP's threads do not survive a fork: a child in which a parallel loop waits for them waits for ever.
std::atomic<bool> ran_in_threads{false};
std::atomic<bool> lost_threads{false};

void refuse_lost_threads() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { lost_threads = ran_in_threads.load(); });
  (void)registered;
  if (lost_threads && at::get_num_threads() > 1)
    throw Error(
        "this process was forked from one in which a model had run in several threads, and threads do not survive a "
        "fork. Load the model here with threads=1, or start processes in another way, in Python: "
        "multiprocessing.set_start_method('spawn')");
  if (at::get_num_threads() > 1) ran_in_threads = true;
}

}  // namespace

void check_count(const at::Tensor& tensor, std::int64_t expected, const std::string& name, const std::string& model) {
  const std::int64_t found = tensor.defined() ? tensor.numel() : 0;
  if (!tensor.defined() || found != expected)
    throw Error(model + ": the model returned " + std::to_string(found) + " values of " + name + ", expected " +
                std::to_string(expected));
}

Model::Model(const SealedArchive& archive, const ModelOptions& options)
    : contract_(read_contract(archive)), path_(archive.path()) {
  if (options.threads < 0) throw Error("threads: expected a positive number, found " + std::to_string(options.threads));
  if (options.threads > 0) at::set_num_threads(options.threads);
  // What is compiled for the CPU does not run on a GPU; for what is compiled for a GPU where there is none, the back
  // end says what to do.
  const bool on_cpu = options.device == "auto" && contract_.compiled_for && contract_.compiled_for->device == "cpu";
  const std::string wanted = on_cpu ? "cpu" : options.device;
  const at::Device device = find_device(
      options.process_on_node < 0 ? wanted : device_on_node(wanted, options.process_on_node, cuda_device_count()));
  device_ = device.str();
  if (options.products == Products::tf32 && device.is_cpu())
    throw Error("precision: 'tf32' is for a GPU, and the model runs on the CPU. Leave it out, or name a GPU: cuda");
  products_ = options.products;
  backend_ = translate_errors("'" + path_ + "'", [&] {
    const gpu::TorchContext current(device);
    return contract_.backend == BackendKind::aotinductor ? load_aotinductor(path_, contract_, device)
                                                         : load_torchscript(path_, device);
  });

  read_domain(archive);
  warm_up();
  if (!options.self_test) return;
  const auto fixture = read_self_test(archive);
  self_test_ = fixture ? run_self_test(*this, *fixture) : "none in this file. Write it anew with: mlip export";
  reset_settings();
  seconds_in_backend_ = 0.0;
  fitted_ = {};
}

Model::Model(Contract contract, std::unique_ptr<Backend> backend, const std::string& device)
    : contract_(std::move(contract)), device_(at::Device(device).str()), backend_(std::move(backend)) {
  warm_up();
}

Model::~Model() {
  backend_.reset();
  KeptMemory::release();
}
Model::Model(Model&&) noexcept = default;

// A domain that does not belong to the model is no reason not to compute energies with it.
void Model::read_domain(const SealedArchive& archive) {
  try {
    const auto record = mlip::read_domain(archive, contract_);
    guarded({}, [&] { domain_ = std::make_unique<Domain>(record, contract_, at::Device(device_)); });
    no_grades_.clear();
    no_uncertainties_ =
        record.uncertainty_factor.empty()
            ? contract_.model_name +
                  " has no uncertainties of energies, which its domain needs labels for: 20 frames or more with "
                  "energies, for a model of at most 512 features. Type: mlip domain fit " +
                  path_ + " --frames LABELLED.extxyz"
            : "";
  } catch (const Error& failure) {
    no_grades_ = no_uncertainties_ = failure.what();
  }
}

void Model::warm_up() {
  Evaluation discarded;
  const Graph graph = warm_up_graph(contract_.cutoff);
  std::vector<double> examples;
  for (const Setting& setting : contract_.settings) examples.push_back(setting.example());
  set_settings(examples);
  WidthProbe probe;
  for (int repeat = 0; repeat < 2; ++repeat) evaluate(graph, discarded, &probe);
  exchange_bytes_ = probe.widest;
  seconds_in_backend_ = 0.0;
  fitted_ = {};
  reset_settings();
}

/// To the defaults, and to nothing where there is a setting without one.
void Model::reset_settings() {
  settings_.clear();
  for (const Setting& setting : contract_.settings)
    if (!setting.default_value) return;
  set_settings(SettingValues(contract_.settings).values());
}

void Model::set_settings(const std::vector<double>& values) {
  if (values.size() != contract_.settings.size())
    throw Error(contract_.model_name + ": " + std::to_string(values.size()) + " values for " +
                std::to_string(contract_.settings.size()) + " settings");
  if (values == settings_) return;
  for (std::size_t k = 0; k < values.size(); ++k)
    if (const std::string reason = contract_.settings[k].refusal(values[k]); !reason.empty()) throw Error(reason);
  guarded({}, [&] {
    backend_->settings = at::tensor(values, at::kDouble).to(at::Device(device_), scalar_type(contract_.precision));
  });
  settings_ = values;
}

void Model::guarded(const GraphSize& size, const std::function<void()>& body) {
  translate_errors(contract_.model_name, [&] {
    try {
      const gpu::TorchContext current{at::Device(device_)};
      body();
    } catch (const std::exception& failure) {
      const auto explained = explain_out_of_memory(failure, device_, size, fitted_);
      if (explained) throw Error(contract_.model_name + ": " + *explained);
      throw;
    }
  });
}

void Model::with_backend(const GraphSize& size, Exchange* exchange, const std::function<void(Backend&)>& body) {
  if (size.n_nodes > size.n_owned && contract_.parallel == Parallel::exchange && exchange == nullptr)
    throw Error(contract_.model_name + ": the graph has ghosts but the engine gave no exchange");
  if (settings_.size() != contract_.settings.size()) SettingValues(contract_.settings).values();  // names the first
  refuse_lost_threads();
  guarded(size, [&] {
    PythonGilRelease no_gil;
    const at::Device device(device_);
    const KeptMemory::Step kept(device.is_cpu());
    const ProductsScope products(products_);
    const auto run = [&](Exchange* active) {
      const gpu::TorchContext current(device);  // of the relay's thread too
      ExchangeScope scope(active);
      const EdgeOrders orders{device};
      body(*backend_);
    };
    const auto start = std::chrono::steady_clock::now();
    if (exchange != nullptr && !device.is_cpu()) {
      if (!relay_) relay_ = std::make_unique<ExchangeRelay>();
      relay_->run(*exchange, [&](Exchange& relay) { run(&relay); });
    } else {
      run(exchange);
    }
    seconds_in_backend_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  });
  if (size.n_owned > fitted_.n_atoms) fitted_ = {size.n_owned, peak_memory(at::Device(device_))};
}

void Model::evaluate(const Graph& graph, Evaluation& result, Exchange* exchange, const EvaluationRequest& wanted) {
  check_request(wanted);
  for (auto* values : {&result.edge_gradients, &result.features, &result.grades, &result.uncertainties})
    values->clear();
  std::vector<double> sum_of_features;
  with_backend(graph.size(), exchange, [&](Backend& backend) {
    const ModelOutputs found = backend.run(make_inputs(graph, at::Device(device_), contract_), wanted.only_energies());
    const auto copy = [&](const at::Tensor& tensor, std::int64_t expected, const char* name, std::vector<double>& out) {
      copy_result(tensor, expected, name, contract_.model_name, out);
    };
    copy(found.energies, graph.n_owned, "atomic_energies", result.atomic_energies);
    if (wanted.gradients) copy(found.edge_gradients, 3 * graph.n_edges(), "edge_gradients", result.edge_gradients);
    if (wanted.gradients && contract_.positions != Positions::none) {
      copy(found.position_gradients, 3 * graph.n_owned, "position_gradients", result.position_gradients);
      copy(found.cell_gradient, 9, "cell_gradient", result.cell_gradient);
    }
    if (wanted.of_features())
      check_count(found.features, graph.n_owned * contract_.features, "features", contract_.model_name);
    if (wanted.features) copy(found.features, graph.n_owned * contract_.features, "features", result.features);
    if (wanted.uncertainties) {
      copy(domain_->uncertainties(found.features), graph.n_owned, "uncertainties", result.uncertainties);
      copy(found.features.sum(0, false, at::kDouble), contract_.features, "summed features", sum_of_features);
    }
    if (!wanted.grades) return;
    if (found.features.is_cpu()) {
      domain_->grades_on_cpu(found.features, graph.node_types, result.grades);
      return;
    }
    const at::Tensor types = view(graph.node_types).narrow(0, 0, graph.n_owned).to(at::Device(device_));
    copy(domain_->grades(found.features, types), graph.n_owned, "grades", result.grades);
  });
  result.energy_uncertainty = wanted.uncertainties ? domain_->energy_uncertainty(sum_of_features, exchange) : 0.0;
  check_energies(result.atomic_energies);
}

void Model::check_request(const EvaluationRequest& wanted) const {
  if (wanted.features && contract_.features == 0) throw Error(no_features(contract_));
  if (wanted.grades && !domain_) throw Error(no_grades_);
  if (wanted.uncertainties && !no_uncertainties_.empty()) throw Error(no_uncertainties_);
}

void Model::evaluate_moments(const UnfoldedGraph& unfolded, Evaluation& result, Exchange* exchange) {
  const Graph& graph = unfolded.graph();
  MomentExchange moments(unfolded, exchange);
  if (contract_.parallel == Parallel::exchange) moments.find_homes();
  with_backend(graph.size(), &moments, [&](Backend& backend) {
    const Pullback pullback = backend.pull_back(make_inputs(graph, at::Device(device_), contract_));
    const auto differentiate = [&](const at::Tensor& weights, const std::string& name, std::vector<double>& out) {
      copy_result(pullback.gradient(weights), 3 * graph.n_edges(), name, contract_.model_name, out);
    };
    copy_result(pullback.energies, graph.n_owned, "atomic_energies", contract_.model_name, result.atomic_energies);
    moments.carry_adjoints();
    differentiate(at::ones_like(pullback.energies), "edge_gradients", result.edge_gradients);
    const at::Tensor positions =
        at::from_blob(const_cast<double*>(unfolded.positions().data()), {graph.n_owned, 3}, at::kDouble)
            .to(pullback.energies.options());
    for (int axis = 0; axis < 3; ++axis) {
      moments.carry_moments(axis);
      differentiate(positions.select(1, axis).contiguous(), "edge_moments", result.edge_moments[axis]);
    }
  });
  check_energies(result.atomic_energies);
}

Pullback Backend::pull_back(const ModelInputs&) {
  throw Error("this file's atomic energies cannot be differentiated one by one");
}

void Model::check_energies(const std::vector<double>& energies) const {
  double total = 0.0;
  for (double energy : energies) total += energy;
  if (!std::isfinite(total))
    throw Error(contract_.model_name +
                ": the energy is not finite. Two atoms may sit on the same spot, or the "
                "simulation has blown up: check the starting structure, minimise it, or use a smaller timestep");
}

void Model::evaluate_extras(const Graph& graph, std::vector<std::vector<double>>& extras, Exchange* exchange) {
  const std::size_t n_extras = contract_.extras.size();
  if (n_extras == 0) throw Error(contract_.model_name + " has no outputs beside energy and forces");
  extras.resize(n_extras);
  with_backend(graph.size(), exchange, [&](Backend& backend) {
    const at::Tensor values = backend.run_extras(make_inputs(graph, at::Device(device_), contract_));
    for (std::size_t k = 0; k < n_extras; ++k)
      copy_result(values.select(1, static_cast<std::int64_t>(k)), graph.n_owned, contract_.extras[k],
                  contract_.model_name, extras[k]);
  });
}

int cuda_device_count() { return static_cast<int>(torch::cuda::device_count()); }

std::string device_on_node(const std::string& device, int process_on_node, int n_devices) {
  if (n_devices < 1 || (device != "cuda" && device != "auto")) return device;
  return "cuda:" + std::to_string(process_on_node % n_devices);
}

const char* compiled_torch_version() { return TORCH_VERSION; }

int model_threads() { return at::get_num_threads(); }

}  // namespace mlip
