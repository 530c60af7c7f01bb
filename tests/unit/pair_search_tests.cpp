// The search for pairs on a GPU, its kernels run by the emulator, beside vesin's on the host: the same pairs for cells
// of all kinds, and the same energies and forces of a step.
#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/neighbours.h"
#include "gpu/runtime.h"
#include "model/device_pair_search.h"
#include "model/structure_evaluator.h"
#include "unit/emulated_device.h"
#include "unit/emulated_kernels.h"
#include "unit/expect.h"
#include "unit/two_shells.h"

namespace {

using mlip::testing::emulated_kernels;
using mlip::testing::expect;
using mlip::testing::expect_error;
using mlip::testing::expect_near;
using mlip::testing::TestModel;

// Å. Distances of float64 positions up to 10^6 Å from the origin, beside the margin of the search, 1e-6.
constexpr double rounding = 2e-6;
// Sums of about a hundred float64 terms of order 1 in another order.
constexpr double sum_tolerance = 1e-12;

constexpr mlip::Box cubic(double edge) {
  return {mlip::Vector{edge, 0, 0}, mlip::Vector{0, edge, 0}, mlip::Vector{0, 0, edge}};
}

struct Lists {
  std::vector<std::int64_t> first;
  std::vector<int> neighbours, images;
  std::vector<std::array<int, 3>> shifts;
  bool operator==(const Lists&) const = default;
};

struct Structure {
  std::string name;
  std::vector<double> positions;  // [n_atoms, 3] Å
  mlip::Box box;
  std::array<bool, 3> periodic;

  std::int64_t n_atoms() const { return static_cast<std::int64_t>(positions.size() / 3); }

  Lists found_by(mlip::PairSearch& search, double cutoff) const {
    Lists lists;
    search.find(positions.data(), n_atoms(), box, periodic, cutoff,
                {lists.first, lists.neighbours, lists.images, lists.shifts});
    return lists;
  }

  double distance(int i, int j, const std::array<int, 3>& shift) const {
    mlip::Vector r;
    for (int axis = 0; axis < 3; ++axis)
      r[axis] = positions[3 * j + axis] - positions[3 * i + axis] + shift[0] * box[0][axis] + shift[1] * box[1][axis] +
                shift[2] * box[2][axis];
    return mlip::norm(r);
  }
};

class Random {
 public:
  explicit Random(unsigned state) : state_(state) {}
  /// In [0, 1).
  double operator()() { return static_cast<double>((state_ = 1664525u * state_ + 1013904223u) >> 8) / (1 << 24); }

 private:
  unsigned state_;
};

/// At random places of a box, and some of them in other images of the cell, up to `far` cells away.
Structure random_structure(std::string name, int n, const mlip::Box& box, std::array<bool, 3> periodic, int far,
                           unsigned seed) {
  Structure made{std::move(name), {}, box, periodic};
  Random random(seed);
  for (int atom = 0; atom < n; ++atom) {
    mlip::Vector fraction;
    for (int k = 0; k < 3; ++k)
      fraction[k] = random() + (far > 0 && periodic[k] ? std::floor((2 * far + 1) * random()) - far : 0.0);
    for (int axis = 0; axis < 3; ++axis)
      made.positions.push_back(fraction[0] * box[0][axis] + fraction[1] * box[1][axis] + fraction[2] * box[2][axis]);
  }
  return made;
}

/// In directions that are not periodic unit vectors perpendicular to the others, as NeighbourList completes cells.
mlip::Box opened(mlip::Box box, const std::array<bool, 3>& periodic, double extent) {
  const auto scaled = [](mlip::Vector v, double length) {
    const double factor = length / mlip::norm(v);
    for (double& x : v) x *= factor;
    return v;
  };
  if (std::count(periodic.begin(), periodic.end(), true) == 0) return cubic(extent);
  for (int k = 0; k < 3; ++k) {
    const int next = (k + 1) % 3, last = (k + 2) % 3;
    if (periodic[k] && !periodic[next] && !periodic[last]) {
      const mlip::Vector axis =
          std::fabs(box[k][0]) < 0.6 * mlip::norm(box[k]) ? mlip::Vector{1, 0, 0} : mlip::Vector{0, 1, 0};
      box[next] = scaled(mlip::cross(box[k], axis), extent);
      box[last] = scaled(mlip::cross(box[k], box[next]), extent);
    }
    if (!periodic[k] && periodic[next] && periodic[last]) box[k] = scaled(mlip::cross(box[next], box[last]), extent);
  }
  return box;
}

/// Simple cubic, 512 atoms 2 Å apart: planes of atoms are planes between bins, and shells lie at the very cutoff.
Structure lattice() {
  Structure made{"lattice", {}, cubic(16.0), {true, true, true}};
  for (int k = 0; k < 512; ++k)
    made.positions.insert(made.positions.end(), {2.0 * (k / 64), 2.0 * (k / 8 % 8), 2.0 * (k % 8)});
  return made;
}

std::vector<Structure> structures() {
  const mlip::Box triclinic = {mlip::Vector{14, 0, 0}, mlip::Vector{6, 13, 0}, mlip::Vector{-5, 4, 15}},
                  flat = {mlip::Vector{3, 0, 0}, mlip::Vector{2.5, 1.5, 0}, mlip::Vector{0.5, -1, 2}},
                  left_handed = {mlip::Vector{0, 9, 1}, mlip::Vector{11, 0, 2}, mlip::Vector{1, 1, 10}};
  std::vector<Structure> all;
  unsigned seed = 7;
  for (int mask = 0; mask < 8; ++mask) {
    const std::array<bool, 3> periodic = {(mask & 1) != 0, (mask & 2) != 0, (mask & 4) != 0};
    const std::string of = " periodic in " + std::to_string(mask);
    const auto add = [&](const std::string& name, int n, const mlip::Box& box, int far) {
      Structure made = random_structure(name + of, n, opened(box, periodic, 25.0), periodic, far, ++seed);
      for (int k = 0; k < 3; ++k)
        if (!periodic[k])
          for (double& x : made.box[k]) x /= 25.0;
      all.push_back(std::move(made));
    };
    add("cubic", 150, cubic(17.0), 0);
    add("triclinic", 120, triclinic, 0);
    add("triclinic, far outside", 120, triclinic, mask == 7 ? 40 : 2);
    add("left-handed", 80, left_handed, 2);
    add("cell smaller than the cutoff", 5, flat, 3);
  }
  all.push_back(random_structure("10^5 cells away", 40, triclinic, {true, true, true}, 100000, 3));
  all.push_back({"one atom, its images alone", {0.3, -7.0, 100.0}, cubic(2.0), {true, true, true}});
  all.push_back({"one atom", {0.3, -7.0, 100.0}, cubic(1.0), {false, false, false}});
  all.push_back({"at the same place", {1, 2, 3, 1, 2, 3, 11, 2, 3}, cubic(10.0), {true, true, true}});
  all.push_back({"at the same place, open", {1, 2, 3, 1, 2, 3, 9, 2, 3}, cubic(1.0), {false, false, false}});
  all.push_back({"in a plane", {0, 0, 0, 1, 0, 0, 0, 2, 0, 3, 3, 0, 20, 3, 0}, cubic(1.0), {false, false, false}});
  all.push_back(
      {"far apart", {0, 0, 0, 1e6, 2e6, 2e6, 1e6, 2e6, 2e6 + 3, -5e5, 1, 1}, cubic(1.0), {false, false, false}});
  all.push_back({"on the faces", {0, 0, 0, 10, 0, 0, -1e-17, 5, 10, 5, -1e-300, 20}, cubic(10.0), {true, true, true}});
  // All in one bin.
  Structure crowd = random_structure("in one bin", 60, cubic(1.0), {false, false, false}, 0, 11);
  all.push_back(crowd);
  crowd.name = "in one bin of a large cell";
  crowd.box = cubic(200.0);
  crowd.periodic = {true, true, true};
  all.push_back(crowd);
  all.push_back(lattice());
  return all;
}

using Pair = std::tuple<int, int, std::array<int, 3>>;

/// In ascending order.
std::vector<Pair> pairs_of(const Structure& structure, const Lists& lists) {
  std::vector<Pair> pairs;
  for (int i = 0; i < structure.n_atoms(); ++i)
    for (std::int64_t k = lists.first[i]; k < lists.first[i + 1]; ++k)
      pairs.emplace_back(i, lists.neighbours[k],
                         lists.images.empty() ? std::array<int, 3>{} : lists.shifts[lists.images[k]]);
  std::sort(pairs.begin(), pairs.end());
  return pairs;
}

/// The pairs of one list that are not in the other, each of them once.
int missing(const std::vector<Pair>& pairs, const std::vector<Pair>& among, const Structure& structure, double cutoff) {
  std::vector<Pair> lacking;
  std::set_difference(pairs.begin(), pairs.end(), among.begin(), among.end(), std::back_inserter(lacking));
  // At the very cutoff either may have it: the step looks again.
  return static_cast<int>(std::count_if(lacking.begin(), lacking.end(), [&](const Pair& pair) {
    const auto& [i, j, shift] = pair;
    return std::fabs(structure.distance(i, j, shift) - cutoff) > rounding;
  }));
}

void test_pairs() {
  TestModel model(mlip::Precision::float64, mlip::testing::emulated_device);
  const auto on_device = mlip::make_device_pair_search(model.model, mlip::EdgesOn::by_model);
  mlip::HostPairSearch on_host;
  std::size_t most = 0;
  for (const Structure& structure : structures())
    for (const double cutoff : {1.9, 4.0, 6.0}) {
      const std::string what = structure.name + ", cutoff " + std::to_string(cutoff);
      const Lists lists = structure.found_by(*on_device, cutoff);
      const bool any_periodic = std::count(structure.periodic.begin(), structure.periodic.end(), true) > 0;
      expect(lists.first.size() == static_cast<std::size_t>(structure.n_atoms() + 1) &&
                 lists.first.back() == static_cast<std::int64_t>(lists.neighbours.size()) &&
                 lists.images.size() == (any_periodic ? lists.neighbours.size() : 0),
             what + ": lengths of the lists");
      const auto found = pairs_of(structure, lists),
                 expected = pairs_of(structure, structure.found_by(on_host, cutoff));
      most = std::max(most, expected.size());
      expect(std::adjacent_find(found.begin(), found.end()) == found.end(), what + ": each pair once");
      const int lacking = missing(expected, found, structure, cutoff),
                more = missing(found, expected, structure, cutoff);
      expect(lacking == 0 && more == 0, what + ": " + std::to_string(lacking) + " pairs are missing and " +
                                            std::to_string(more) + " too many of " + std::to_string(expected.size()));
      expect(structure.found_by(*on_device, cutoff) == lists, what + ": the same order again");
      emulated_kernels().run_backwards(true);
      expect(structure.found_by(*on_device, cutoff) == lists, what + ": the same order by threads that run backwards");
      emulated_kernels().run_backwards(false);
    }
  expect(most > 10000, "pairs were found");
  mlip::NeighbourList none;
  none.use_search(on_device.get());
  none.update(nullptr, 0, mlip::flat(cubic(5.0)), {true, true, true}, 4.0);
  expect(none.candidates().n_candidates() == 0 && none.candidates().first.size() == 1, "no atoms, no pairs");
  const Structure lost{"", {0, 0, 0, 1e13, 0, 0}, cubic(10.0), {true, true, true}};
  expect_error([&] { lost.found_by(*on_device, 4.0); }, "too many cells apart");
}

/// The search looks a little farther, so that rounding there costs no edge: the step draws the line.
void test_pairs_at_the_cutoff() {
  TestModel model(mlip::Precision::float64, mlip::testing::emulated_device);
  const auto on_device = mlip::make_device_pair_search(model.model, mlip::EdgesOn::by_model);
  const Structure crystal = lattice();
  for (const auto& [cutoff, shells] : {std::pair(2.0, 6), {std::sqrt(12.0), 26}, {4.0, 32}}) {
    const auto found = pairs_of(crystal, crystal.found_by(*on_device, cutoff));
    expect(static_cast<int>(found.size()) == 512 * shells, "pairs up to the cutoff: " + std::to_string(found.size()));
  }
}

void test_where_it_is_used() {
  TestModel on_cpu(mlip::Precision::float64), on_device(mlip::Precision::float64, mlip::testing::emulated_device);
  using mlip::EdgesOn;
  const auto is_made = [](TestModel& model, EdgesOn edges_on) {
    return mlip::make_device_pair_search(model.model, edges_on) != nullptr;
  };
  expect(is_made(on_device, EdgesOn::by_model) && !is_made(on_device, EdgesOn::host), "where edges are");
  expect(!is_made(on_cpu, EdgesOn::by_model), "on the CPU by vesin");
  mlip::gpu::use_runtime(nullptr);
  expect(!is_made(on_device, EdgesOn::by_model), "not without kernels");
  mlip::gpu::use_runtime(&emulated_kernels());
}

/// Steps with a search on the device and on the host, of the same model.
void test_steps() {
  TestModel on_host(mlip::Precision::float64), on_device(mlip::Precision::float64, mlip::testing::emulated_device);
  mlip::StructureEvaluator host(on_host.model), device(on_device.model);
  const auto searches = [] {
    const auto& sources = emulated_kernels().sources();
    return std::count(sources.begin(), sources.end(), mlip::pair_search_source());
  };
  expect(searches() == 0, "nothing has been searched yet");
  const mlip::Box box = {mlip::Vector{33, 0, 0}, mlip::Vector{6, 31, 0}, mlip::Vector{-5, 4, 35}};
  Structure structure = random_structure("a step", mlip::fewest_atoms_of_device_search, box, {true, true, true}, 3, 5);
  std::vector<std::int64_t> types;
  for (std::int64_t atom = 0; atom < structure.n_atoms(); ++atom) types.push_back(atom % 2);
  std::array<double, 9> cell = mlip::flat(box);
  Random random(9);
  for (int step = 0; step < 4; ++step) {
    const auto evaluated = [&](mlip::StructureEvaluator& by) {
      return by.evaluate(structure.positions.data(), types, cell, structure.periodic, {.forces = true, .virial = true});
    };
    const mlip::StepResult expected = evaluated(host), found = evaluated(device);
    const std::string what = "step " + std::to_string(step);
    expect(found.n_edges == expected.n_edges && found.n_edges > 10000,
           what + ": " + std::to_string(found.n_edges) + " edges, expected " + std::to_string(expected.n_edges));
    const auto compare = [&](const auto& a, const auto& b, const std::string& name) {
      double largest = 0.0, difference = 0.0;
      for (std::size_t k = 0; k < b.size(); ++k) {
        largest = std::max(largest, std::fabs(b[k]));
        difference = std::max(difference, std::fabs(a[k] - b[k]));
      }
      expect(a.size() == b.size() && largest > 0.1, what + ": there are " + name);
      expect_near(difference, 0.0, sum_tolerance * std::max(1.0, largest), what + ", " + name);
    };
    compare(found.atomic_energies, expected.atomic_energies, "energies");
    compare(found.forces, expected.forces, "forces");
    compare(found.virial, expected.virial, "virial");
    if (step == 1) {  // a barostat: the next one keeps its candidates
      for (double& x : structure.positions) x *= 0.999;
      for (double& x : cell) x *= 0.999;
    } else {
      for (double& x : structure.positions) x += 0.6 * (random() - 0.5);
    }
  }
  expect(searches() == 1, "the device has searched");
}

void test_out_of_memory() {
  TestModel model(mlip::Precision::float64, mlip::testing::emulated_device);
  const auto search = mlip::make_device_pair_search(model.model, mlip::EdgesOn::by_model);
  const Structure structure = structures().front();
  int n_failed = 0;
  for (bool failed = true; failed; ++n_failed) {
    mlip::testing::run_out_of_memory_after(n_failed);
    failed = false;
    try {
      structure.found_by(*search, 4.0);
    } catch (const mlip::Error& error) {
      failed = true;
      const std::string expected = "two-shells: out of memory on " + mlip::testing::emulated_device.str() +
                                   " with 150 atoms, before their edges were counted";
      expect(std::string(error.what()).starts_with(expected), error.what());
    }
    mlip::testing::run_out_of_memory_after(-1);
  }
  expect(n_failed > 10, "allocations failed at many places: " + std::to_string(n_failed));
}

}  // namespace

int main() {
  mlip::testing::start_emulated_device();
  mlip::gpu::use_runtime(&emulated_kernels());
  test_steps();
  test_pairs();
  test_pairs_at_the_cutoff();
  test_where_it_is_used();
  test_out_of_memory();
  return mlip::testing::report();
}
