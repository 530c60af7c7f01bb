// The functions of libmlip_lammps.so that plugin.cpp calls: each refuses a LAMMPS that it was not built for, since the
// layout of LAMMPS's classes changes between releases, and creates a style.
#include <string>

#include "compatibility.h"
#include "fix_mlip_guard.h"
#include "pair_mlip.h"

/// @param lmp LAMMPS_NS::LAMMPS*
/// @param reason set to why there is no style, where the result is null
/// @return LAMMPS_NS::Pair*
extern "C" void* mlip_create_pair(void* lmp, std::string& reason) {
  reason = mlip::incompatibility(lmp);
  return reason.empty() ? new LAMMPS_NS::PairMLIP(static_cast<LAMMPS_NS::LAMMPS*>(lmp)) : nullptr;
}

/// The same for fix mlip/guard.
/// @param narg, arg words of the fix command, from its id on
/// @return LAMMPS_NS::Fix*
extern "C" void* mlip_create_guard(void* lmp, int narg, char** arg, std::string& reason) {
  reason = mlip::incompatibility(lmp);
  return reason.empty() ? new LAMMPS_NS::FixMLIPGuard(static_cast<LAMMPS_NS::LAMMPS*>(lmp), narg, arg) : nullptr;
}
