// A step on the model's device beside the same step on the CPU, with a model of a few tensor operations in place of an
// artifact. The device is emulated; its edges and sums are torch's, or by a GPU's kernels, emulated too.
#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/neighbours.h"
#include "gpu/edges_by_node.h"
#include "model/backend.h"
#include "model/domain.h"
#include "model/out_of_memory.h"
#include "model/step.h"
#include "unit/counted_operators.h"
#include "unit/emulated_device.h"
#include "unit/emulated_kernels.h"
#include "unit/expect.h"
#include "unit/layouts.h"
#include "unit/two_shells.h"

namespace {

using mlip::testing::expect;
using mlip::testing::expect_error;
using mlip::testing::expect_near;

using mlip::testing::CountedOperators;
using mlip::testing::cutoff;
using mlip::testing::Layout;
using mlip::testing::Setup;
using mlip::testing::Structure;
using mlip::testing::TestModel;
using mlip::testing::TwoShells;

// Sums of about a hundred float64 terms of order 1 in another order. The model itself sees the same numbers.
constexpr double sum_tolerance = 1e-12;
// As many float32 terms, where ghosts are nodes of their own and the model adds in another order.
constexpr double float32_tolerance = 1e-4;

std::vector<Structure> structures() {
  unsigned state = 3;
  const auto random = [&state] {
    return static_cast<double>((state = 1664525u * state + 1013904223u) >> 8) / (1 << 24);
  };
  const auto atoms = [&](int n, double width) {
    std::vector<double> positions;
    for (int k = 0; k < 3 * n; ++k) positions.push_back(width * random());
    return positions;
  };
  const std::array<double, 9> none = {};
  return {{"cubic", atoms(40, 9.0), {9, 0, 0, 0, 9, 0, 0, 0, 9}, {true, true, true}},
          {"triclinic", atoms(30, 8.0), {8, 0, 0, 2, 7, 0, -1, 1.5, 9}, {true, true, true}},
          {"small cell", atoms(2, 3.0), {3, 0, 0, 0.5, 2.8, 0, 0, 0.3, 3.1}, {true, true, true}},
          {"slab", atoms(12, 6.0), {6, 0, 0, 0, 6, 0, 0, 0, 0}, {true, true, false}},
          {"cluster", atoms(15, 6.0), none, {false, false, false}},
          {"far apart", {0, 0, 0, 50, 0, 0}, none, {false, false, false}},
          {"one atom", {1, 2, 3}, none, {false, false, false}},
          {"no atoms", {}, none, {false, false, false}}};
}

/// Its atoms are of two types.
Setup set_up(const Structure& structure, Layout layout, mlip::NeighbourList& list) {
  std::vector<std::int64_t> types;
  for (std::int64_t atom = 0; atom < structure.n_atoms(); ++atom) types.push_back(atom % 2);
  return mlip::testing::set_up(structure, std::move(types), cutoff, layout, list);
}

constexpr std::array<double, 9> unchanged = {1, 0, 0, 0, 1, 0, 0, 0, 1};  // a cell
constexpr mlip::StepRequest everything{true, true, true, true, true, true};

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double largest = 0.0;
  for (std::size_t k = 0; k < a.size(); ++k) {
    const double difference = std::fabs(a[k] - b[k]);
    if (!(difference <= largest)) largest = difference;  // NaN too
  }
  return largest;
}

double largest(const std::vector<double>& values) {
  return largest_difference(values, std::vector<double>(values.size()));
}

/// All values of a result but the number of edges.
std::vector<std::pair<std::string, std::vector<double>>> named(const mlip::StepResult& result) {
  std::vector<std::pair<std::string, std::vector<double>>> all = {
      {"energies", result.atomic_energies},
      {"forces", result.forces},
      {"virial", {result.virial.begin(), result.virial.end()}},
      {"atom virials", result.atom_virials},
      {"centroid virials", result.centroid_virials}};
  for (const auto& extra : result.extras) all.emplace_back("extra", extra);
  all.emplace_back("features", result.features);
  return all;
}

void expect_equal(const mlip::StepResult& found, const mlip::StepResult& expected, const std::string& what) {
  expect(found.n_edges == expected.n_edges,
         what + ": " + std::to_string(found.n_edges) + " edges, expected " + std::to_string(expected.n_edges));
  const auto a = named(found), b = named(expected);
  expect(a.size() == b.size(), what + ": number of results");
  for (std::size_t k = 0; k < std::min(a.size(), b.size()); ++k)
    expect_near(largest_difference(a[k].second, b[k].second), 0.0, sum_tolerance * std::max(1.0, largest(b[k].second)),
                what + ", " + a[k].first);
}

void test_device_equals_host() {
  for (const auto precision : {mlip::Precision::float32, mlip::Precision::float64})
    for (const Structure& structure : structures()) {
      double energy_of_images = 0.0;
      for (const Layout layout : {Layout::images, Layout::folded, Layout::ghosts}) {
        TestModel on_host(precision), on_device(precision, mlip::testing::emulated_device);
        mlip::StepEvaluator host(on_host.model);
        mlip::StepEvaluator device(on_device.model, mlip::EdgesOn::device);
        mlip::NeighbourList list;
        Setup setup = set_up(structure, layout, list);
        const double length = layout == Layout::images ? 1.0 : 10.0;  // Å, or nm
        const std::string what =
            structure.name + ", layout " + std::to_string(static_cast<int>(layout)) + ", " + mlip::to_string(precision);
        if (layout != Layout::images)
          for (double& x : setup.positions) x /= length;
        for (auto* step : {&host, &device})
          step->set_candidates(setup.candidates, setup.node_types, structure.n_atoms());
        for (int time = 0; time < 3; ++time) {
          mlip::Exchange* exchange = layout == Layout::ghosts ? &setup.exchange : nullptr;
          const auto& expected = host.evaluate(setup.positions.data(), length, everything, exchange);
          const auto& found = device.evaluate(setup.positions.data(), length, everything, exchange);
          expect_equal(found, expected, what);
          if (structure.n_atoms() > 2)
            expect(largest(expected.forces) > 0.1, what + ": forces are large enough to tell");
          expect(device.count_edges(setup.positions.data(), length) == expected.n_edges, what + ": count_edges");
          for (auto* step : {&host, &device})
            expect(step->bytes() >= 64.0 * static_cast<double>(expected.n_edges), what + ": memory of the edges");
          double energy = 0.0;
          for (double value : expected.atomic_energies) energy += value;
          if (time == 0 && layout == Layout::images) energy_of_images = energy;
          if (time == 0)
            expect_near(energy, energy_of_images,
                        (precision == mlip::Precision::float32 ? float32_tolerance : sum_tolerance) *
                            std::max(1.0, std::fabs(energy)),
                        what + ": the energy is that of the other layouts");
          // Some candidates cross the cutoff. Ghosts move with their owners: here, in proportion to where they are.
          for (double& x : setup.positions) x *= 1.002;
        }
        if (layout == Layout::ghosts && structure.periodic[0])
          expect(setup.exchange.n_gathered > 0 && setup.exchange.n_ghosts() > 0, what + ": ghosts took part");
        expect(on_device.backend->edges_sorted, what + ": edges stand centre by centre");
      }
    }
}

/// Positions written where the step keeps them, forces read there, candidates from a copy when atoms have moved far.
void test_in_place() {
  for (const Structure& structure : structures()) {
    TestModel on_host(mlip::Precision::float64);
    TestModel on_device(mlip::Precision::float64, mlip::testing::emulated_device);
    mlip::StepEvaluator host(on_host.model);
    mlip::StepEvaluator device(on_device.model, mlip::EdgesOn::device);
    expect(host.in_place(1) == nullptr, "edges of the host are not made in place");
    const std::int64_t n_atoms = structure.n_atoms();
    mlip::InPlaceStep* const in_place = device.in_place(n_atoms);
    double* const address = in_place->positions();
    mlip::NeighbourList list;
    const Setup setup = set_up(structure, Layout::images, list);
    std::array<double, 9> cell = structure.cell;
    const auto follow = [&] {
      return list.follow(n_atoms, cell, structure.periodic, cutoff,
                         [&](const std::array<double, 9>& map) { return in_place->farthest_move(map); });
    };
    std::vector<double> positions = structure.positions;
    mlip::StepResult found;
    int n_searches = 0, n_cells = 0;
    expect(std::isinf(in_place->farthest_move(unchanged)), structure.name + ": far before the first search");
    for (int time = 0; time < 10; ++time) {
      std::copy(positions.begin(), positions.end(), address);
      const auto is_new = follow();
      if (!is_new) {
        const auto of_list = list.update(positions.data(), n_atoms, cell, structure.periodic, cutoff);
        expect((of_list == mlip::NewCandidates::all) == (time > 0), structure.name + ": the list agrees to search");
        for (auto* step : {&host, &device}) step->set_candidates(list.candidates(), setup.node_types, n_atoms);
        expect_near(in_place->farthest_move(unchanged), 0.0, 0.0, structure.name + ": no move since the search");
        ++n_searches;
      } else {
        expect(list.update(positions.data(), n_atoms, cell, structure.periodic, cutoff) == mlip::NewCandidates::none,
               structure.name + ": the list agrees that no search is due");
        if (*is_new == mlip::NewCandidates::shifts) {
          for (auto* step : {&host, &device}) step->set_shifts();
          ++n_cells;
        }
      }
      const auto& expected = host.evaluate(positions.data(), 1.0, everything);
      in_place->evaluate_in_place(everything, found);
      expect(found.forces.empty(), structure.name + ": forces stay where they are");
      found.forces.assign(in_place->forces(), in_place->forces() + 3 * n_atoms);
      expect_equal(found, expected, structure.name + ", in place");
      expect(in_place->positions() == address, structure.name + ": the address stays");
      for (std::size_t k = 0; k < positions.size(); ++k)
        positions[k] += 0.05 * std::sin(1.0 + 7.0 * static_cast<double>(k));
      if (time < 5) continue;  // a barostat
      for (double& x : positions) x *= 0.996;
      for (double& x : cell) x *= 0.996;
    }
    if (n_atoms > 2) expect(n_searches > 1 && n_searches < 10, structure.name + ": some steps search, others do not");
    if (n_atoms > 2 && structure.periodic[0]) expect(n_cells > 0, structure.name + ": shifts follow the cell");
    if (n_atoms > 0) {
      address[3 * n_atoms - 1] = std::nan("");
      expect(std::isnan(in_place->farthest_move(unchanged)) && !follow(), structure.name + ": NaN is far");
    }
  }
}

void test_what_was_not_asked_for() {
  const Structure structure = structures()[0];
  for (const auto edges_on : {mlip::EdgesOn::host, mlip::EdgesOn::device}) {
    TestModel model(mlip::Precision::float64);
    mlip::StepEvaluator step(model.model, edges_on);
    mlip::NeighbourList list;
    const Setup setup = set_up(structure, Layout::images, list);
    step.set_candidates(setup.candidates, setup.node_types, structure.n_atoms());
    const mlip::StepResult all = step.evaluate(setup.positions.data(), 1.0, everything);
    const auto& energies = step.evaluate(setup.positions.data(), 1.0, {.forces = false});
    expect(model.backend->only_energies_wanted, "no gradients for energies alone");
    expect(energies.atomic_energies == all.atomic_energies, "the same energies");
    expect(energies.forces.empty() && energies.atom_virials.empty() && energies.centroid_virials.empty() &&
               energies.extras.empty() && energies.virial == std::array<double, 9>{},
           "nothing but energies");
    const auto& virial = step.evaluate(setup.positions.data(), 1.0, {.forces = false, .virial = true});
    expect(!model.backend->only_energies_wanted && virial.virial == all.virial && virial.forces.empty(),
           "the virial alone");
  }
}

/// A product [3, n_edges] by [n_edges, 3] is one tile for a GPU's matrix library: one of its processors does it all.
/// And with kernels no sum depends on the order in which a GPU's threads run.
void test_operators_of_a_step(bool kernels) {
  const Structure structure = structures()[0];
  TestModel model(mlip::Precision::float64);
  mlip::StepEvaluator step(model.model, mlip::EdgesOn::device);
  mlip::NeighbourList list;
  const Setup setup = set_up(structure, Layout::images, list);
  step.set_candidates(setup.candidates, setup.node_types, structure.n_atoms());
  {
    const CountedOperators counted;
    step.evaluate(setup.positions.data(), 1.0, everything);
    expect(counted["aten::mm"] == 0 && counted["aten::matmul"] == 0, "the virial is no matrix product");
    expect(counted["aten::index_add_"] == (kernels ? 0 : 5), "forces and virials are summed by torch without kernels");
    expect(counted["aten::nonzero"] == (kernels ? 0 : 1), "edges are found by torch without kernels alone");
  }
  if (!kernels) return;
  const CountedOperators counted;
  step.evaluate(setup.positions.data(), 1.0, {.forces = true, .virial = true});
  const int of_model = 1;  // what TwoShells looks at
  expect(counted["aten::_local_scalar_dense"] == 1 + of_model, "one number is read, that of edges");
}

/// Notes what a model is given.
class Watching : public TwoShells {
 public:
  std::weak_ptr<mlip::gpu::EdgesByNode> order;
  std::vector<const void*> types;
  std::vector<at::Float32MatmulPrecision> products;
  bool writes_types = false;
  int n_checks = -1;  // of the edges

  mlip::ModelOutputs run(const mlip::ModelInputs& inputs, bool only_energies) override {
    const std::int64_t n_nodes = inputs.node_types.size(0);
    {
      const CountedOperators counted;
      order = mlip::gpu::EdgesByNode::of(inputs.edge_index, inputs.n_owned, n_nodes);
      n_checks = counted["aten::any"];
    }
    expect_order(inputs.edge_index, inputs.n_owned);
    expect(!order.expired(), "the order of edges is kept while the model runs");
    types.push_back(inputs.node_types.const_data_ptr());
    products.push_back(at::globalContext().float32MatmulPrecision());
    mlip::ModelOutputs found = TwoShells::run(inputs, only_energies);
    if (writes_types) inputs.node_types.zero_();
    return found;
  }

 private:
  void expect_order(const at::Tensor& edge_index, std::int64_t n_owned) const {
    const at::Tensor counts = at::bincount(edge_index[0], {}, n_owned);
    const at::Tensor first = order.lock()->first_of_centre;
    expect(first.slice(0, 1).sub(first.slice(0, 0, -1)).equal(counts), "edges of each centre");
  }
};

void test_what_a_model_is_given() {
  const Structure structure = structures()[0];
  auto owned = std::make_unique<Watching>();
  Watching& backend = *owned;
  mlip::Model model(mlip::testing::contract_of(mlip::Precision::float32), std::move(owned), "cpu");
  expect(backend.n_checks == 1, "edges of anybody else are looked at");
  expect(backend.order.expired(), "the order of edges is forgotten after an evaluation");
  mlip::StepEvaluator step(model, mlip::EdgesOn::device);
  mlip::NeighbourList list;
  const Setup setup = set_up(structure, Layout::images, list);
  const auto evaluate = [&] { return step.evaluate(setup.positions.data(), 1.0, {}).atomic_energies; };

  step.set_candidates(setup.candidates, setup.node_types, structure.n_atoms());
  backend.types.clear();
  const std::vector<double> energies = evaluate();
  evaluate();
  expect(backend.n_checks == 0, "edges of a step are known to be sound: the host does not wait to see");
  expect(backend.types[0] == backend.types[1], "types stay in their place between two searches");
  backend.writes_types = true;
  evaluate();
  backend.writes_types = false;
  expect(evaluate() == energies, "what a model writes into them is not seen again");

  // A script's own choice does not reach the model, and is there again afterwards.
  for (const char* chosen : {"medium", "high"}) {
    at::globalContext().setFloat32MatmulPrecision(chosen);
    const auto before = at::globalContext().float32MatmulPrecision();
    backend.products.clear();
    evaluate();
    expect(backend.products.at(0) == at::Float32MatmulPrecision::HIGHEST, std::string("full precision, not ") + chosen);
    expect(at::globalContext().float32MatmulPrecision() == before, std::string("restored: ") + chosen);
  }
  at::globalContext().setFloat32MatmulPrecision("highest");
  {
    const mlip::ProductsScope asked(mlip::Products::tf32);
    expect(at::globalContext().float32MatmulPrecision() == at::Float32MatmulPrecision::HIGH, "TF32 where asked for");
  }
  expect(at::globalContext().float32MatmulPrecision() == at::Float32MatmulPrecision::HIGHEST, "and there alone");
  expect_error([] { mlip::parse_products("bf16"); }, "precision: 'bf16' is not one of full, tf32");
}

/// A model on a GPU runs on a thread of its own while the engine's communicates: the same one in every step, since each
/// new one costs the pools of threads that belong to it.
void test_thread_of_a_device() {
  class Named : public TwoShells {
   public:
    std::vector<std::thread::id> threads;
    std::vector<int> runs_of_thread;  // a new thread may have the name of one that has ended
    mlip::ModelOutputs run(const mlip::ModelInputs& inputs, bool only_energies) override {
      static thread_local int n_runs = 0;
      runs_of_thread.push_back(++n_runs);
      threads.push_back(std::this_thread::get_id());
      return TwoShells::run(inputs, only_energies);
    }
  };
  auto owned = std::make_unique<Named>();
  Named& backend = *owned;
  mlip::Model model(mlip::testing::contract_of(mlip::Precision::float64), std::move(owned),
                    mlip::testing::emulated_device.str());
  mlip::StepEvaluator step(model);
  mlip::NeighbourList list;
  const Structure structure = structures()[0];
  Setup setup = set_up(structure, Layout::ghosts, list);
  step.set_candidates(setup.candidates, setup.node_types, structure.n_atoms());
  backend.runs_of_thread.clear();
  backend.threads.clear();
  for (int time = 0; time < 3; ++time) step.evaluate(setup.positions.data(), 1.0, {}, &setup.exchange);
  const int first = backend.runs_of_thread.at(0);
  expect(backend.runs_of_thread == std::vector<int>{first, first + 1, first + 2}, "one thread for all steps");
  expect(backend.threads[0] != std::this_thread::get_id(), "not the engine's");
}

/// Grades and uncertainties of atoms, on the device that has their features.
void test_domain_of_a_device() {
  mlip::DomainOfElement sodium;
  sodium.element = "Na";
  sodium.n_axes = 1;
  sodium.n_points = 3;
  sodium.distance = 0.5;
  sodium.mean = {0.1f, -0.2f};
  sodium.axes = {0.6f, 0.8f};
  sodium.scales = {2.0f, 3.0f};
  sodium.points = {0.0f, 0.1f, 1.0f, 0.2f, -1.0f, 0.0f};
  mlip::DomainRecord record;
  record.n_features = 2;
  record.elements = {sodium};
  record.uncertainty_factor = {0.3, 0.1, -0.2, 0.4};
  const mlip::Contract contract = mlip::testing::contract_of(mlip::Precision::float64);
  const at::Tensor features = at::arange(10, at::kDouble).sin().reshape({5, 2});
  const at::Tensor types = at::arange(5, at::kLong).remainder(2);
  const auto on = [&](at::Device device) {
    const mlip::Domain domain(record, contract, device);
    const at::Tensor x = features.to(device);
    return at::stack({domain.grades(x, types.to(device)), domain.uncertainties(x)}).cpu();
  };
  const at::Tensor expected = on(at::kCPU);
  expect(expected.isfinite().sum().item<int>() == 8 && expected[0][1].isinf().item<bool>(), "chlorine has no domain");
  expect(at::allclose(on(mlip::testing::emulated_device), expected, sum_tolerance, sum_tolerance),
         "grades and uncertainties on a device");
}

void test_virials_add_up() {
  const Structure structure = structures()[1];
  TestModel model(mlip::Precision::float64);
  mlip::StepEvaluator step(model.model, mlip::EdgesOn::device);
  mlip::NeighbourList list;
  const Setup setup = set_up(structure, Layout::images, list);
  step.set_candidates(setup.candidates, setup.node_types, structure.n_atoms());
  const auto& result = step.evaluate(setup.positions.data(), 1.0, everything);
  const int rows[9] = {0, 1, 2, 0, 0, 1, 1, 2, 2}, columns[9] = {0, 1, 2, 1, 2, 2, 0, 0, 1};
  for (int c = 0; c < 9; ++c) {
    const double w = result.virial[3 * rows[c] + columns[c]], transposed = result.virial[3 * columns[c] + rows[c]];
    double atoms = 0.0, centroids = 0.0;
    for (std::int64_t atom = 0; atom < structure.n_atoms(); ++atom) {
      if (c < 6) atoms += result.atom_virials[6 * atom + c];
      centroids += result.centroid_virials[9 * atom + c];
    }
    const double tolerance = sum_tolerance * std::max(1.0, std::fabs(w)) * static_cast<double>(structure.n_atoms());
    if (c < 6) expect_near(atoms, 0.5 * (w + transposed), tolerance, "atoms' virials add up to the total");
    expect_near(centroids, w, tolerance, "centroid virials add up to the total");
  }
}

void test_errors() {
  const Structure structure = structures()[0];
  for (const auto edges_on : {mlip::EdgesOn::host, mlip::EdgesOn::device}) {
    TestModel model(mlip::Precision::float64);
    mlip::StepEvaluator step(model.model, edges_on);
    mlip::NeighbourList list;
    Setup setup = set_up(structure, Layout::images, list);
    setup.positions.insert(setup.positions.end(), 3, std::nan(""));  // an atom that the model does not see
    setup.candidates.node_of.push_back(-1);
    step.set_candidates(setup.candidates, setup.node_types, structure.n_atoms());
    const auto evaluate = [&] { step.evaluate(setup.positions.data(), 1.0, everything); };
    evaluate();
    for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
      const double good = std::exchange(setup.positions[7], bad);
      expect_error(evaluate, "atom positions are not finite (NaN or infinity)");
      setup.positions[7] = good;
    }
    model.backend->energy_factor = std::nan("");
    expect_error(evaluate, "two-shells: the energy is not finite");
    model.backend->energy_factor = 1.0;
    model.backend->missing_energies = 1;
    expect_error(evaluate, "the model returned 39 values of atomic_energies, expected 40");
    model.backend->missing_energies = 0;
    model.backend->out_of_memory = true;
    expect_error(evaluate, "two-shells: out of memory on cpu with 40 atoms and " +
                               std::to_string(step.count_edges(setup.positions.data(), 1.0)) +
                               " edges; 20.00 MiB more");
    model.backend->out_of_memory = false;
    evaluate();

    Setup ghosts = set_up(structure, Layout::ghosts, list);
    step.set_candidates(ghosts.candidates, ghosts.node_types, structure.n_atoms());
    expect_error([&] { step.evaluate(ghosts.positions.data(), 1.0, everything); }, "the engine gave no exchange");
  }
  expect_error([] { mlip::parse_edges_on("gpu"); }, "edges: 'gpu' is not one of auto, host, device");
}

void test_out_of_memory() {
  const auto explain = [](const std::string& text, const std::string& device, mlip::GraphSize size,
                          mlip::FittedStep fitted) {
    return mlip::explain_out_of_memory(std::runtime_error(text), device, size, fitted).value_or("nothing");
  };
  // As TorchScript hands it on.
  const std::string traceback =
      "The following operation failed in the TorchScript interpreter.\nTraceback of TorchScript:\nRuntimeError: " +
      TwoShells::cuda_message();
  std::string found = explain(traceback, "cuda:0", {131072, 131584, 3670016}, {32768, 5200000000});
  expect(found ==
             "out of memory on cuda:0 with 131072 atoms, 512 ghosts and 3670016 edges; 20.00 MiB more were asked for, "
             "the device has 79.15 GiB. The largest step that fitted had 32768 atoms and took 5.2 GB, 159 kB per atom. "
             "Use a smaller system, or LAMMPS with MPI ranks on more GPUs, one rank on each, which share the atoms",
         found);
  found = explain("DefaultCPUAllocator: can't allocate memory: you tried to allocate 800 bytes. Error code 12", "cpu",
                  {8, 8, -1}, {});
  expect(found ==
             "out of memory on cpu with 8 atoms, before their edges were counted; 800 bytes more were asked for. Use a "
             "smaller system, or LAMMPS with MPI ranks on more nodes, which share the atoms",
         found);
  expect(mlip::explain_out_of_memory(std::bad_alloc(), "cpu", {1, 1, 0}, {}).has_value(), "std::bad_alloc");
  expect(explain("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "cuda:0", {1, 1, 0}, {})
             .starts_with("out of memory on cuda:0 with 1 atoms"),
         "what cuBLAS says");
  expect(explain("index 3 is out of bounds", "cuda:0", {1, 1, 0}, {}) == "nothing", "another failure");
}

}  // namespace

/// With the argument "kernels" the device has a GPU's, emulated.
int main(int argc, char** argv) {
  const bool kernels = argc > 1 && std::string(argv[1]) == "kernels";
  mlip::testing::start_emulated_device();
  mlip::gpu::use_runtime(kernels ? &mlip::testing::emulated_kernels() : nullptr);
  test_device_equals_host();
  test_in_place();
  test_what_was_not_asked_for();
  test_operators_of_a_step(kernels);
  test_what_a_model_is_given();
  test_thread_of_a_device();
  test_domain_of_a_device();
  test_virials_add_up();
  test_errors();
  test_out_of_memory();
  return mlip::testing::report();
}
