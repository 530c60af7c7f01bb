#include "core/units.h"

#include "core/error.h"

namespace mlip::units {

EngineUnits lammps_units(const std::string& style) {
  if (style == "metal") return {1.0, 1.0};
  if (style == "real") return {1.0, 1.0 / ev_in_kcal_per_mol};
  if (style == "si") return {metre_in_angstrom, 1.0 / ev_in_joule, 1.0 / dalton_in_kg};
  if (style == "electron") return {bohr_in_angstrom, hartree_in_ev};
  throw Error("units: pair_style mlip works with 'units metal', real, si or electron, the input has 'units " + style +
              "'. Put 'units metal' at the top of the input file");
}

}  // namespace mlip::units
