// In the place of LAMMPS's json_fwd.h, which installations of 22 July 2025 before update 4 lack although their atom.h
// includes it: the one name that atom.h takes from it. Where LAMMPS has the file, LAMMPS's own is found first.
#pragma once

namespace LAMMPS_NS {
class json;
}
