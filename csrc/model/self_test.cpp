#include "model/self_test.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/version.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "core/error.h"
#include "model/structure_evaluator.h"

namespace mlip {
namespace {

std::string with_digits(double value, const char* format) {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

/// "Intel(R) Xeon(R) Processor"
std::string processor() {
  std::ifstream information("/proc/cpuinfo");
  for (std::string line; std::getline(information, line);)
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos)
      return line.substr(line.find(": ") + 2);
  return "processor of unknown name";
}

/// Of the operators' loops on the CPU. By torch's dispatcher, since operators stand beside models, not below them.
std::string instruction_set() {
  return c10::Dispatcher::singleton().findSchemaOrThrow("mlip::instruction_set", "").typed<std::string()>().call();
}

std::string where(const Model& model) {
  return "device " + model.device() + " (" + processor() + ", instruction set " + instruction_set() + "), " +
         std::to_string(model_threads()) + " thread(s), back end " + to_string(model.contract().backend) +
         ", torch " TORCH_VERSION;
}

double volume(const std::array<double, 9>& c) {
  return std::fabs(c[0] * (c[4] * c[8] - c[5] * c[7]) - c[1] * (c[3] * c[8] - c[5] * c[6]) +
                   c[2] * (c[3] * c[7] - c[4] * c[6]));
}

/// NaN where there is one.
double largest_difference(const std::vector<double>& found, const std::vector<double>& expected) {
  double largest = found.size() == expected.size() ? 0.0 : std::nan("");
  for (std::size_t k = 0; k < std::min(found.size(), expected.size()); ++k) {
    const double difference = std::fabs(found[k] - expected[k]);
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}

struct Comparison {
  const char* what;
  const char* unit;
  double difference;
  double bound;
  /// How bad it is; NaN is worst.
  double ratio() const { return std::isnan(difference) ? HUGE_VAL : difference / bound; }
};

std::vector<Comparison> compare(const SelfTestFixture& fixture, const StepResult& found) {
  const auto n_atoms = static_cast<double>(fixture.n_atoms());
  const SelfTestBounds& bounds = fixture.bounds;
  double energy = 0.0;
  for (const double value : found.atomic_energies) energy += value;
  std::vector<Comparison> all = {
      {"the energy", "eV/atom", std::fabs(energy - fixture.energy) / n_atoms, bounds.energy_per_atom},
      {"an atom's energy", "eV", largest_difference(found.atomic_energies, fixture.atomic_energies),
       bounds.atomic_energies},
      {"a force", "eV/Å", largest_difference(found.forces, fixture.forces), bounds.forces}};
  if (fixture.stress) {
    constexpr std::array<int, 6> rows = {0, 1, 2, 1, 0, 0}, columns = {0, 1, 2, 2, 2, 1};
    std::vector<double> stress;
    for (int c = 0; c < 6; ++c)
      stress.push_back(-0.5 * (found.virial[3 * rows[c] + columns[c]] + found.virial[3 * columns[c] + rows[c]]) /
                       volume(fixture.cell));
    all.push_back({"the stress", "eV/Å³", largest_difference(stress, {fixture.stress->begin(), fixture.stress->end()}),
                   bounds.stress});
  }
  return all;
}

}  // namespace

std::string run_self_test(Model& model, const SelfTestFixture& fixture) {
  const std::string structure = "'" + fixture.name + "' (" + std::to_string(fixture.n_atoms()) + " atoms)";
  const auto fail = [&](const std::string& what) {
    throw Error("'" + model.path() + "': self-test failed: " + what + ". It ran on " + where(model) +
                ". Results would be wrong here: the file is damaged, or code runs that is wrong for this processor. "
                "Type: mlip check " +
                model.path());
  };
  const auto start = std::chrono::steady_clock::now();
  StepResult found;
  try {
    std::vector<std::int64_t> types;
    for (const std::string& symbol : fixture.symbols) types.push_back(model.contract().type_index(symbol));
    StructureEvaluator evaluator(model);
    found = evaluator.evaluate(fixture.positions.data(), types, fixture.cell, fixture.periodic,
                               {.forces = true, .virial = fixture.stress.has_value()},
                               {SettingValues(model.contract().settings, fixture.settings).values()});
  } catch (const Error& failure) {
    fail(structure + ": " + failure.what());
  }
  const auto all = compare(fixture, found);
  const auto worst =
      std::max_element(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.ratio() < b.ratio(); });
  if (!(worst->ratio() <= 1.0))
    fail(std::string(worst->what) + " of " + structure + " is off by " + with_digits(worst->difference, "%.2g") + " " +
         worst->unit + " from the reference in the file, " + with_digits(worst->bound, "%.2g") + " is accepted");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return "passed (" + with_digits(all.front().difference, "%.1e") + " eV/atom, " + with_digits(1e3 * seconds, "%.0f") +
         " ms)";
}

}  // namespace mlip
