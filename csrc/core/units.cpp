#include "core/units.h"

#include "core/error.h"

namespace mlip::units {

EngineUnits lammps_units(const std::string& style) {
  if (style == "metal") return {1.0, 1.0};
  if (style == "real") return {1.0, 1.0 / ev_in_kcal_per_mol};
  throw Error("units: pair_style mlip works with 'units metal' or 'units real', the input has 'units " + style +
              "'. Put 'units metal' at the top of the input file");
}

}  // namespace mlip::units
