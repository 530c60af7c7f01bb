// Whole structures in many threads, and after evaluations that failed at each place where they can.
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "model/structure_evaluator.h"
#include "unit/expect.h"
#include "unit/two_shells.h"

namespace {

using mlip::testing::expect;
using mlip::testing::expect_error;
using mlip::testing::expect_near;
using mlip::testing::TestModel;

constexpr mlip::StepRequest everything{true, true, true, true, true};

struct Structure {
  std::vector<double> positions;  // [n_atoms, 3] Å
  std::vector<std::int64_t> types;
  std::array<double, 9> cell;
  std::array<bool, 3> periodic{true, true, true};

  Structure scaled(double factor) const {
    Structure made = *this;
    for (double& x : made.positions) x *= factor;
    for (double& x : made.cell) x *= factor;
    return made;
  }

  mlip::StepResult evaluated_by(mlip::StructureEvaluator& evaluator) const {
    return evaluator.evaluate(positions.data(), types, cell, periodic, everything);
  }
};

/// Atoms at random places of a cube.
Structure structure(int n_atoms, double width, unsigned state) {
  Structure made;
  made.cell = {width, 0, 0, 0, width, 0, 0, 0, width};
  for (int k = 0; k < 3 * n_atoms; ++k) {
    state = 1664525u * state + 1013904223u;
    made.positions.push_back(width * static_cast<double>(state >> 8) / (1 << 24));
  }
  for (int k = 0; k < n_atoms; ++k) made.types.push_back((k + state) % 2);
  return made;
}

/// The same code on the same numbers: equal to the last digit, but for the order of neighbours with and without skin.
bool same(const mlip::StepResult& a, const mlip::StepResult& b) {
  const auto near = [](const auto& x, const auto& y) {
    if (x.size() != y.size()) return false;
    for (std::size_t k = 0; k < x.size(); ++k)
      if (!(std::fabs(x[k] - y[k]) <= 1e-12 * std::max(1.0, std::fabs(y[k])))) return false;
    return true;
  };
  return a.n_edges == b.n_edges && near(a.atomic_energies, b.atomic_energies) && near(a.forces, b.forces) &&
         near(a.virial, b.virial) && near(a.centroid_virials, b.centroid_virials) && near(a.extras[0], b.extras[0]);
}

mlip::StepResult of_a_fresh_object(const Structure& structure, mlip::EdgesOn edges_on) {
  TestModel model(mlip::Precision::float64);
  mlip::StructureEvaluator evaluator(model.model, edges_on);
  return structure.evaluated_by(evaluator);
}

void test_threads(mlip::EdgesOn edges_on) {
  TestModel model(mlip::Precision::float64);
  mlip::StructureEvaluator evaluator(model.model, edges_on);
  std::vector<Structure> structures;
  std::vector<mlip::StepResult> expected;
  for (unsigned k = 0; k < 4; ++k) {
    structures.push_back(structure(20 + 7 * static_cast<int>(k % 2), 7.0, k));
    expected.push_back(of_a_fresh_object(structures.back(), edges_on));
  }
  constexpr int n_threads = 4, n_rounds = 25;
  std::array<int, n_threads> wrong{};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < n_threads; ++thread)
    threads.emplace_back([&, thread] {
      for (int round = 0; round < n_rounds; ++round) {
        const auto k = static_cast<std::size_t>(thread + round) % structures.size();
        wrong[static_cast<std::size_t>(thread)] += !same(structures[k].evaluated_by(evaluator), expected[k]);
        evaluator.seconds();
      }
    });
  for (auto& thread : threads) thread.join();
  for (const int n : wrong) expect(n == 0, std::to_string(n) + " of 25 results in a thread are those of others");
}

/// Memory of tensors that runs out at one allocation from now.
class FailingAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (left_ && (*left_)-- == 0)
      throw std::runtime_error("DefaultCPUAllocator: can't allocate memory: you tried to allocate " +
                               std::to_string(bytes) + " bytes.");
    return c10::GetDefaultCPUAllocator()->allocate(bytes);
  }
  void copy_data(void* target, const void* source, std::size_t bytes) const override {
    c10::GetDefaultCPUAllocator()->copy_data(target, source, bytes);
  }
  void fail_after(std::optional<int> n_allocations) { left_ = n_allocations; }

 private:
  std::optional<int> left_;
};

/// A fault before, in and after the model, at each allocation; then a good structure on the same lattice.
void test_failed_evaluations(mlip::EdgesOn edges_on) {
  static FailingAllocator memory;
  c10::SetCPUAllocator(&memory, 100);
  TestModel model(mlip::Precision::float64);
  mlip::StructureEvaluator evaluator(model.model, edges_on);
  const Structure before = structure(24, 7.0, 1);
  Structure after = before;
  for (auto& type : after.types) type = 1 - type;
  const mlip::StepResult expected = of_a_fresh_object(after, edges_on);
  expect(!same(of_a_fresh_object(before, edges_on), expected), "the elements matter");

  const auto fails = [&](const std::string& what, const std::string& message, const Structure& bad, auto set,
                         auto undo) {
    before.evaluated_by(evaluator);
    before.evaluated_by(evaluator);  // now with candidates that may stay
    set();
    expect_error([&] { bad.evaluated_by(evaluator); }, message);
    undo();
    expect(same(after.evaluated_by(evaluator), expected), what + ": the next result is that of a fresh object");
  };
  const auto nothing = [] {};
  Structure bad = after;
  bad.positions[7] = std::nan("");
  fails("NaN", "not finite", bad, nothing, nothing);
  bad = after;
  bad.cell = {7, 0, 0, 7, 0, 0, 0, 0, 7};
  fails("no volume", "the periodic cell has no volume", bad, nothing, nothing);
  bool& out_of_memory = model.backend->out_of_memory;
  fails("in the model", "out of memory", after, [&] { out_of_memory = true; }, [&] { out_of_memory = false; });
  double& factor = model.backend->energy_factor;
  fails("NaN from the model", "the energy is not finite", after, [&] { factor = std::nan(""); }, [&] { factor = 1.0; });
  std::int64_t& missing = model.backend->missing_energies;
  fails("a wrong number", "values of atomic_energies", after, [&] { missing = 1; }, [&] { missing = 0; });

  const auto fails_at_each_allocation = [&](const std::string& what, const Structure& next) {
    const mlip::StepResult of_next = of_a_fresh_object(next, edges_on);
    int n_failed = 0;
    for (bool failed = true; failed; ++n_failed) {
      before.evaluated_by(evaluator);
      before.evaluated_by(evaluator);
      memory.fail_after(n_failed);
      failed = false;
      try {
        next.evaluated_by(evaluator);
      } catch (const mlip::Error& error) {
        failed = std::string(error.what()).find("out of memory") != std::string::npos;
        expect(failed, error.what());
      }
      memory.fail_after(std::nullopt);
      expect(same(next.evaluated_by(evaluator), of_next), what + ": after allocation " + std::to_string(n_failed) +
                                                              " failed the next result is that of a fresh object");
    }
    expect(n_failed > 10, "allocations failed at many places: " + std::to_string(n_failed));
  };
  fails_at_each_allocation("other elements", after);
  fails_at_each_allocation("another cell", before.scaled(0.998));
}

/// Under a barostat candidates stay while the cell changes.
void test_changing_cell(mlip::EdgesOn edges_on) {
  TestModel model(mlip::Precision::float64);
  mlip::StructureEvaluator evaluator(model.model, edges_on);
  Structure atoms = structure(24, 7.0, 1);
  std::vector<double> energies;
  for (int step = 0; step < 40; ++step) {
    const mlip::StepResult found = atoms.evaluated_by(evaluator);
    expect(same(found, of_a_fresh_object(atoms, edges_on)), "a step in a cell of another step's");
    energies.push_back(found.atomic_energies[0]);
    atoms = atoms.scaled(step < 20 ? 0.997 : 1.005);
  }
  const auto [lowest, highest] = std::minmax_element(energies.begin(), energies.end());
  expect(*highest - *lowest > 0.1, "the cell matters");
}

/// The second member's energies and forces are three times the first's: their mean is twice, and they deviate by once.
void test_committee(mlip::EdgesOn edges_on) {
  TestModel first(mlip::Precision::float64), second(mlip::Precision::float64);
  second.backend->energy_factor = 3.0;
  const Structure atoms = structure(24, 7.0, 1);
  const mlip::StepResult alone = of_a_fresh_object(atoms, edges_on);
  for (const auto drive : {mlip::Drive::first, mlip::Drive::mean}) {
    mlip::StructureEvaluator evaluator({&first.model, &second.model}, drive, edges_on);
    mlip::Deviation deviation;
    const mlip::StepResult result =
        evaluator.evaluate(atoms.positions.data(), atoms.types, atoms.cell, atoms.periodic, everything, {}, &deviation);
    const double factor = drive == mlip::Drive::mean ? 2.0 : 1.0;
    double largest = 0.0;
    for (std::size_t k = 0; k < atoms.types.size(); ++k) {
      const double* force = alone.forces.data() + 3 * k;
      const double length = std::hypot(force[0], force[1], force[2]);
      largest = std::max(largest, length);
      expect_near(deviation.of_atoms[k], length, 1e-12, "the deviation of a force");
      expect_near(result.forces[3 * k], factor * force[0], 1e-12, "a force");
      expect_near(result.atomic_energies[k], factor * alone.atomic_energies[k], 1e-12, "an atom's energy");
      expect_near(result.centroid_virials[9 * k], factor * alone.centroid_virials[9 * k], 1e-11, "an atom's virial");
    }
    expect_near(result.virial[1], factor * alone.virial[1], 1e-11, "the virial");
    expect_near(deviation.summary[3], largest, 1e-12, "the largest deviation of a force");
    double largest_virial = 0.0;
    for (const double component : alone.virial) largest_virial = std::max(largest_virial, std::fabs(component));
    expect_near(deviation.summary[0], largest_virial / 24, 1e-12, "the largest deviation of a virial");
  }
}

}  // namespace

int main() {
  for (const auto edges_on : {mlip::EdgesOn::host, mlip::EdgesOn::device}) {
    test_threads(edges_on);
    test_failed_evaluations(edges_on);
    test_changing_cell(edges_on);
    test_committee(edges_on);
  }
  return mlip::testing::report();
}
