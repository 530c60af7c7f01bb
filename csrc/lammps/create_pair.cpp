// The one function of libmlip_lammps.so that plugin.cpp calls: refuses a LAMMPS that it was not built for, since the
// layout of LAMMPS's classes changes between releases, and creates pair_style mlip.
#include <string>

#include "compatibility.h"
#include "pair_mlip.h"

/// @param lmp LAMMPS_NS::LAMMPS*
/// @param reason set to why there is no style, where the result is null
/// @return LAMMPS_NS::Pair*
extern "C" void* mlip_create_pair(void* lmp, std::string& reason) {
  reason = mlip::incompatibility(lmp);
  return reason.empty() ? new LAMMPS_NS::PairMLIP(static_cast<LAMMPS_NS::LAMMPS*>(lmp)) : nullptr;
}
