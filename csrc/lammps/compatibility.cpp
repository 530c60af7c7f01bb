#include "compatibility.h"

#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "atom.h"
#include "domain.h"
#include "force.h"
#include "lammps.h"
#include "library.h"
#include "pair.h"
#include "update.h"

namespace mlip {
namespace {

/// The number of a release's update, 0 for the release itself, -1 where nobody says. LAMMPS gives it away in git's name
/// of its sources alone: "stable_22Jul2025_update4".
int running_update() {
  const std::string sources = LAMMPS_NS::LAMMPS::git_descriptor();
  if (sources.rfind("stable_", 0) != 0) return -1;
  const std::size_t update = sources.find("_update");
  if (update == std::string::npos) return sources.find('-') == std::string::npos ? 0 : -1;
  const std::string number = sources.substr(update + std::strlen("_update"));
  return !number.empty() && number.find_first_not_of("0123456789") == std::string::npos ? std::stoi(number) : -1;
}

std::string another_version(void* lammps) {
  const auto describe = [](int version, int update) {
    return "version " + std::to_string(version) + (update < 0 ? "" : " update " + std::to_string(update));
  };
  const int version = lammps_version(lammps);
  const int update = running_update();
  const bool same_update = update < 0 || MLIP_LAMMPS_UPDATE < 0 || update == MLIP_LAMMPS_UPDATE;
  if (version == MLIP_LAMMPS_VERSION && same_update) return "";
  return "was built for LAMMPS " + describe(MLIP_LAMMPS_VERSION, same_update ? -1 : MLIP_LAMMPS_UPDATE) + ", this is " +
         describe(version, same_update ? -1 : update);
}

std::string other_headers(const std::string& name) {
  return "was built with headers in which LAMMPS's class " + name + " has its members elsewhere than in this LAMMPS";
}

/// Members whose address LAMMPS tells.
std::string moved_members(void* lammps) {
  const auto* const lmp = static_cast<LAMMPS_NS::LAMMPS*>(lammps);
  struct Member {
    const char* class_name;
    const char* name;
    const void* expected;
  };
  const Member members[] = {
      {"Atom", "natoms", &lmp->atom->natoms},           {"Atom", "nlocal", &lmp->atom->nlocal},
      {"Atom", "nghost", &lmp->atom->nghost},           {"Atom", "ntypes", &lmp->atom->ntypes},
      {"Atom", "map_style", &lmp->atom->map_style},     {"Update", "ntimestep", &lmp->update->ntimestep},
      {"Update", "units", lmp->update->unit_style},     {"Force", "nktv2p", &lmp->force->nktv2p},
      {"Force", "special_lj", lmp->force->special_lj},  {"Domain", "boxlo", lmp->domain->boxlo},
      {"Domain", "triclinic", &lmp->domain->triclinic},
  };
  for (const Member& member : members)
    if (const void* found = lammps_extract_global(lammps, member.name); found && found != member.expected)
      return other_headers(member.class_name);
  return "";
}

/// A Pair of the plugin's that LAMMPS has constructed, for what LAMMPS writes into a new one and where.
class FreshPair : public LAMMPS_NS::Pair {
 public:
  using Pair::Pair;
  void compute(int, int) override {}
  void settings(int, char**) override {}
  void coeff(int, char**) override {}

  bool as_expected() const {
    for (const int value :
         {comm_forward, born_matrix_enable, respa_enable, one_coeff, manybody_flag, no_virial_fdotr_compute, ghostneigh,
          suffix_flag, dispersionflag, centroidstressflag, tail_flag, nextra, allocated, maxcvatom, copymode})
      if (value != 0) return false;
    for (const int value : {single_enable, restartinfo, writedata + 1, reinitflag, compute_flag, mixed_flag, trim_flag})
      if (value != 1) return false;
    return eng_vdwl == 0.0 && setflag == nullptr && cutsq == nullptr && ncoultablebits == 12 && ndisptablebits == 12 &&
           tabinner == std::sqrt(2.0) && tabinner_disp == std::sqrt(2.0) &&
           datamask_read == std::numeric_limits<decltype(datamask_read)>::max();  // 64 bits in 2026, 32 before
  }
};

/// The base class of the pair style, whose constructor is LAMMPS's: in memory with room to spare, filled with bytes
/// that no constructor writes, it must come out with its defaults where the headers have them, and nothing beyond its
/// end.
std::string other_pair(void* lammps) {
  constexpr std::size_t size = sizeof(FreshPair);
  constexpr std::size_t room = size + 4096;
  constexpr unsigned char blank = 0xA5;
  const auto memory = std::make_unique<std::byte[]>(room);  // aligned as for any object
  // volatile: the compiler may not leave out bytes because an object begins there
  volatile auto* bytes = reinterpret_cast<volatile unsigned char*>(memory.get());
  for (std::size_t k = 0; k < room; ++k) bytes[k] = blank;
  auto* pair = new (memory.get()) FreshPair(static_cast<LAMMPS_NS::LAMMPS*>(lammps));
  bool same = pair->as_expected();
  for (std::size_t k = size; k < room; ++k) same = same && bytes[k] == blank;
  pair->FreshPair::~FreshPair();
  return same ? "" : other_headers("Pair");
}

}  // namespace

std::string incompatibility(void* lammps) {
  for (const auto check : {another_version, moved_members, other_pair})
    if (std::string reason = check(lammps); !reason.empty()) return reason;
  return "";
}

}  // namespace mlip
