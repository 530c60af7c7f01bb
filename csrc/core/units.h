// Unit conversions at the edge of an engine. Inside, everything is Å, eV, eV/Å.
//
// Defined constants are exact since the 2019 SI; the Hartree and the Bohr radius are the CODATA 2022
// recommended values, like the atomic mass constant. No other file of this project states a physical constant.
#pragma once

#include <string>

namespace mlip::units {

inline constexpr double elementary_charge = 1.602176634e-19;  // C, exact
inline constexpr double avogadro = 6.02214076e23;             // 1/mol, exact
inline constexpr double joule_per_calorie = 4.184;            // thermochemical calorie, exact
inline constexpr double hartree_in_ev = 27.211386245981;      // CODATA 2022
inline constexpr double bohr_in_angstrom = 0.529177210544;    // CODATA 2022
inline constexpr double dalton_in_kg = 1.66053906892e-27;     // CODATA 2022

inline constexpr double ev_in_joule = elementary_charge;
inline constexpr double ev_in_kj_per_mol = ev_in_joule * avogadro / 1000.0;         // 96.485...
inline constexpr double ev_in_kcal_per_mol = ev_in_kj_per_mol / joule_per_calorie;  // 23.060...
inline constexpr double nm_in_angstrom = 10.0;
inline constexpr double metre_in_angstrom = 1e10;

/// What one engine length, energy or mass unit is in Å, eV or Da.
struct EngineUnits {
  double length_in_angstrom;    ///< Å per engine length unit
  double energy_in_ev;          ///< eV per engine energy unit
  double mass_in_dalton = 1.0;  ///< Da (g/mol) per engine mass unit
};

/// The units behind LAMMPS's `units` command for the styles that `pair_style mlip` serves: metal, real, si, electron.
/// @throws mlip::Error for any other style, naming those that work.
EngineUnits lammps_units(const std::string& style);

/// OpenMM: nm and kJ/mol.
inline constexpr EngineUnits openmm_units{nm_in_angstrom, 1.0 / ev_in_kj_per_mol};

}  // namespace mlip::units
