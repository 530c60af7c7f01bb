// lmp-mlip: runs a LAMMPS that was built without the PLUGIN package, and so cannot load mlipplugin.so itself. It opens
// LAMMPS as a library, adds pair_style mlip and fix mlip/guard from the mlipplugin.so beside it, and takes the options
// and inputs of lmp. `mlip deploy lammps` compiles it.
//
// It is linked with liblammps alone: its MPI is the one that LAMMPS was linked with.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <filesystem>

#include "exceptions.h"
#include "force.h"
#include "input.h"
#include "lammps.h"
#include "library.h"
#include "modify.h"
#include "plugin.h"

namespace {

PluginInit* plugin_init = nullptr;  // of mlipplugin.so
void* plugin_library = nullptr;

/// Opens mlipplugin.so; says why if that does not work.
bool open_plugin() {
  const auto path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "mlipplugin.so";
  plugin_library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (plugin_library) plugin_init = reinterpret_cast<PluginInit*>(dlsym(plugin_library, "lammpsplugin_init"));
  if (!plugin_init) std::fprintf(stderr, "lmp-mlip: %s. Type: mlip deploy lammps --lammps-root DIR\n", dlerror());
  return plugin_init;
}

/// In the place of the PLUGIN package's function.
void add_style(void* description, void* lammps) {
  using namespace LAMMPS_NS;
  const auto* plugin = static_cast<const Plugin*>(description);
  auto* lmp = static_cast<LAMMPS*>(lammps);
  if (std::strcmp(plugin->style, "pair") == 0)
    (*lmp->force->pair_map)[plugin->name] = reinterpret_cast<Force::PairCreator>(plugin->creator.v1);
  else
    (*lmp->modify->fix_map)[plugin->name] = reinterpret_cast<Modify::FixCreator>(plugin->creator.v2);
}

/// Ends all ranks, for an error that one of them met alone.
int abort_all(const LAMMPS_NS::LAMMPSAbortException& error) {
  const auto ranks = [](const auto& e) {  // releases before 2024 have the member alone
    if constexpr (requires { e.get_universe(); })
      return e.get_universe();
    else
      return e.universe;
  };
  const auto abort = reinterpret_cast<decltype(&MPI_Abort)>(dlsym(RTLD_DEFAULT, "MPI_Abort"));
  if (abort) abort(ranks(error), 1);
  return 1;  // a serial LAMMPS
}

}  // namespace

/// Stands in front of LAMMPS's own, which it calls: LAMMPS makes its lists of styles anew with each input command
/// `clear`.
void LAMMPS_NS::LAMMPS::post_create() {
  using Original = void(LAMMPS*);
  static auto* const original = reinterpret_cast<Original*>(dlsym(RTLD_NEXT, "_ZN9LAMMPS_NS6LAMMPS11post_createEv"));
  plugin_init(this, plugin_library, reinterpret_cast<void*>(&add_style));
  original(this);
}

int main(int argc, char** argv) {
  for (int k = 1; k < argc; ++k)
    if (std::strcmp(argv[k], "-mdi") == 0) {
      std::fprintf(stderr,
                   "lmp-mlip: -mdi is not supported. Use a LAMMPS with the PLUGIN package: cmake -DPKG_PLUGIN=on\n");
      return 1;
    }
  if (!open_plugin()) return 1;
  lammps_mpi_init();
  int status = 1;
  try {
    if (void* lammps = lammps_open_no_mpi(argc, argv, nullptr)) {
      static_cast<LAMMPS_NS::LAMMPS*>(lammps)->input->file();
      lammps_close(lammps);
      status = 0;
    }
  } catch (const LAMMPS_NS::LAMMPSAbortException& error) {
    return abort_all(error);
  } catch (const LAMMPS_NS::LAMMPSException&) {  // of all ranks; LAMMPS has printed it
  }
  lammps_kokkos_finalize();
  lammps_python_finalize();
  lammps_mpi_finalize();
  return status;
}
