// What a file is held to where it is loaded: one of its fixtures, marked at export, and how far from it a result may
// be.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/settings.h"

namespace mlip {

/// Largest accepted differences from the reference.
struct SelfTestBounds {
  double energy_per_atom = 0.0;  ///< of the total energy, eV/atom
  double atomic_energies = 0.0;  ///< eV
  double forces = 0.0;           ///< eV/Å, per component
  double stress = 0.0;           ///< eV/Å³, per component
};

/// A structure with the original framework's results (python/mlip_deploy/artifact/fixtures.py).
struct SelfTestFixture {
  std::string name;
  std::vector<std::string> symbols;  ///< [n_atoms]
  std::vector<double> positions;     ///< [n_atoms, 3] Å
  std::array<double, 9> cell{};      ///< rows are the cell vectors, Å
  std::array<bool, 3> periodic{};
  double energy = 0.0;                          ///< eV
  std::vector<double> atomic_energies;          ///< [n_atoms] eV
  std::vector<double> forces;                   ///< [n_atoms, 3] eV/Å
  std::optional<std::array<double, 6>> stress;  ///< eV/Å³, xx yy zz yz xz xy, positive in tension
  SelfTestBounds bounds;
  GivenSettings settings;

  std::int64_t n_atoms() const { return static_cast<std::int64_t>(symbols.size()); }
};

/// @param json   the record mlip/fixtures.json
/// @param source names the file in messages
/// @return nothing for a file of a time when none was marked. @throws Error for a record that is not as it should be.
std::optional<SelfTestFixture> parse_self_test(const std::string& json, const std::string& source);

}  // namespace mlip
