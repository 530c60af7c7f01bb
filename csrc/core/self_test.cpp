#include "core/self_test.h"

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace mlip {
namespace {

using nlohmann::json;

/// [n][3] -> [3 n]
std::vector<double> flat(const json& rows) {
  std::vector<double> values;
  for (const json& row : rows)
    for (const json& value : row) values.push_back(value.get<double>());
  return values;
}

SelfTestFixture read(const json& structure, const json& bounds) {
  SelfTestFixture fixture;
  fixture.name = structure.at("name").get<std::string>();
  fixture.symbols = structure.at("symbols").get<std::vector<std::string>>();
  fixture.positions = flat(structure.at("positions"));
  const std::vector<double> cell = flat(structure.at("cell"));
  fixture.periodic = structure.at("pbc").get<std::array<bool, 3>>();
  fixture.energy = structure.at("energy").get<double>();
  fixture.atomic_energies = structure.at("atomic_energies").get<std::vector<double>>();
  fixture.forces = flat(structure.at("forces"));
  if (structure.contains("settings"))
    for (const auto& [name, value] : structure.at("settings").items()) {
      if (value.is_string())
        fixture.settings.emplace_back(name, value.get<std::string>());
      else
        fixture.settings.emplace_back(name, value.get<double>());
    }
  if (!structure.at("stress").is_null()) fixture.stress = structure.at("stress").get<std::array<double, 6>>();
  const std::size_t n = fixture.symbols.size();
  if (n == 0 || cell.size() != 9 || fixture.positions.size() != 3 * n || fixture.atomic_energies.size() != n ||
      fixture.forces.size() != 3 * n)
    throw Error("'" + fixture.name + "' has arrays of different lengths");
  std::copy(cell.begin(), cell.end(), fixture.cell.begin());
  fixture.bounds = {bounds.at("energy_per_atom").get<double>(), bounds.at("atomic_energies").get<double>(),
                    bounds.at("forces").get<double>(), bounds.at("stress").get<double>()};
  return fixture;
}

}  // namespace

std::optional<SelfTestFixture> parse_self_test(const std::string& text, const std::string& source) {
  try {
    const json fixtures = json::parse(text);
    const auto self_test = fixtures.find("self_test");
    if (self_test == fixtures.end() || self_test->is_null()) return std::nullopt;
    const auto name = self_test->at("structure").get<std::string>();
    for (const json& structure : fixtures.at("structures"))
      if (structure.at("name") == name) return read(structure, self_test->at("bounds"));
    throw Error("there is no structure '" + name + "'");
  } catch (const std::exception& failure) {
    throw Error("'" + source + "': fixtures: self_test: " + failure.what() +
                ". The file may be damaged: copy it again, or write it anew with: mlip export");
  }
}

}  // namespace mlip
