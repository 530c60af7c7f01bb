// Whether a LAMMPS is the one that the plugin was compiled for. A plugin shares LAMMPS's classes, and their members
// move between releases, and between updates of one release: 22 July 2025's second and fourth have different Pairs.
// plugin.cpp has compared the sizes of integers before, without which these functions could not be loaded.
#pragma once

#include <string>

namespace mlip {

/// Asks LAMMPS's C interface, and its own classes only where that has agreed.
/// @param lammps LAMMPS_NS::LAMMPS*
/// @return why the plugin cannot run in it; empty if it can
std::string incompatibility(void* lammps);

}  // namespace mlip
