// pair_style mutant FAULT: a smooth pair potential with one fault, chosen by its name; "none" is sound. `mlip conform`
// must find each (test_faults.py). One plugin, so that it is compiled once.
//
//   phi(r) = -D (2 e^(-a (r - R)) - e^(-2 a (r - R))) (1 - (r / cutoff)^2)^3,  D by the elements of pair_coeff
#include <mpi.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "fix.h"
#include "force.h"
#include "lammps.h"
#include "lammps/plugin.h"
#include "memory.h"
#include "modify.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "pair.h"
#include "update.h"

namespace LAMMPS_NS {

namespace {
constexpr double range = 5.0, steepness = 1.4, bond = 2.6;

double strength_of(const std::string& element) { return element == "Ni" ? 0.4 : element == "Al" ? 0.25 : 0.3; }
}  // namespace

class PairMutant : public Pair {
 public:
  explicit PairMutant(LAMMPS* lmp) : Pair(lmp) {
    no_virial_fdotr_compute = 1;
    manybody_flag = 1;
    one_coeff = 1;
    restartinfo = 0;
    single_enable = 0;
  }

  ~PairMutant() override {
    if (allocated) {
      memory->destroy(setflag);
      memory->destroy(cutsq);
    }
  }

  void settings(int narg, char** arg) override {
    if (narg != 1) error->all(FLERR, "pair_style mutant: expected the name of a fault");
    fault = arg[0];
    started_at = update->ntimestep;
  }

  void coeff(int narg, char** arg) override {
    const int n = atom->ntypes;
    if (narg != 3 + n) error->all(FLERR, "pair_coeff: expected * * FILE and an element for each type");
    memory->create(setflag, n + 1, n + 1, "pair:setflag");
    memory->create(cutsq, n + 1, n + 1, "pair:cutsq");
    allocated = 1;
    strength.assign(1, 0.0);
    for (int i = 1; i <= n; i++) {
      strength.push_back(is("types") ? strength_of(i == 1 ? "Ni" : "Al") : strength_of(arg[2 + i]));
      for (int j = 1; j <= n; j++) setflag[i][j] = 1;
    }
  }

  void init_style() override {
    if (std::string(update->unit_style) != "metal" && !is("units")) error->all(FLERR, "pair_style mutant is in metal");
    neighbor->add_request(this);
    known.clear();
    knows = false;
  }

  double init_one(int i, int j) override {
    setflag[j][i] = 1;
    return range;
  }

  void compute(int eflag, int vflag) override {
    ev_init(eflag, vflag);
    if (is("empty") && atom->nlocal == 0) return;  // and the others wait
    if (is("empty")) {
      int n = atom->nlocal, most = 0;
      MPI_Allreduce(&n, &most, 1, MPI_INT, MPI_MAX, world);
    }
    if (is("atomic-energies")) eflag_atom = 0;
    if (is("atomic-virials")) vflag_atom = 0;
    if (is("virial-with-energy") && !eflag_either) vflag_either = vflag_global = 0;
    evflag = eflag_either || vflag_either;
    if (is("sets"))
      for (int i = 0; i < atom->nlocal + atom->nghost; i++) atom->f[i][0] = atom->f[i][1] = atom->f[i][2] = 0.0;

    if (is("own-pairs") || is("wide"))
      all_pairs();
    else
      listed_pairs();
    knows = true;

    if (is("by-step")) recall();
    if (is("minimize") && update->whichflag == 2) eng_vdwl = 0.0;
    if (is("extensive")) eng_vdwl += 1e-4 * static_cast<double>(atom->natoms) * atom->nlocal;
    if (is("offset")) eng_vdwl += 0.1 * atom->nlocal;
    if (is("langevin") && !modify->get_fix_by_style("langevin").empty())
      for (int i = 0; i < atom->nlocal; i++) atom->f[i][0] *= 0.9;
    if (is("field"))
      for (int i = 0; i < atom->nlocal; i++) eng_vdwl += 0.01 * std::sin(atom->x[i][0]);
  }

 private:
  std::string fault;
  bigint started_at = 0;
  std::vector<double> strength;
  std::map<bigint, std::vector<double>> of_step;  // x components of the forces, for "by-step"
  std::set<std::pair<tagint, tagint>> known;      // pairs of the first step of a run, for "stale"
  bool knows = false;

  bool is(const char* name) const { return fault == name; }

  /// Forces of the first time that a step had this number.
  void recall() {
    std::vector<double>& kept = of_step[update->ntimestep];
    for (int i = static_cast<int>(kept.size()); i < atom->nlocal; i++) kept.push_back(atom->f[i][0]);
    for (int i = 0; i < atom->nlocal; i++) atom->f[i][0] = kept[i];
  }

  void listed_pairs() {
    const int nlocal = atom->nlocal;
    bool any = false;
    for (int ii = 0; ii < list->inum; ii++) {
      const int i = list->ilist[ii];
      for (int jj = 0; jj < list->numneigh[i]; jj++) {
        const int j = list->firstneigh[i][jj] & NEIGHMASK;
        any = true;
        if (is("ids") && (atom->tag[i] > atom->natoms || atom->tag[j] > atom->natoms)) continue;
        if (is("parallel") && comm->nprocs > 1 && j >= nlocal) continue;
        if (is("nearest") && !nearest(i, j)) continue;
        if (is("stale") && !seen(i, j)) continue;
        pair(i, j, range, is("newton") || force->newton_pair, false);
      }
    }
    if (is("lone") && !any && comm->nprocs == 1) eng_vdwl = std::numeric_limits<double>::quiet_NaN();
  }

  /// Every pair here, whatever LAMMPS lists. Each is met from both sides.
  void all_pairs() {
    const double reach = is("wide") ? comm->get_comm_cutoff() : range;
    for (int i = 0; i < atom->nlocal; i++)
      for (int j = 0; j < atom->nlocal + atom->nghost; j++)
        if (j != i) pair(i, j, reach, false, true);
  }

  bool nearest(int i, int j) const {
    double d[3], image[3];
    for (int k = 0; k < 3; k++) image[k] = d[k] = atom->x[i][k] - atom->x[j][k];
    domain->minimum_image(FLERR, image[0], image[1], image[2]);
    return std::abs(image[0] - d[0]) + std::abs(image[1] - d[1]) + std::abs(image[2] - d[2]) < 1e-9;
  }

  bool seen(int i, int j) {
    const std::pair<tagint, tagint> key(std::min(atom->tag[i], atom->tag[j]), std::max(atom->tag[i], atom->tag[j]));
    double square = 0.0;
    for (int k = 0; k < 3; k++) square += std::pow(atom->x[i][k] - atom->x[j][k], 2);
    if (!knows && square < range * range) known.insert(key);
    return known.count(key) > 0;
  }

  void pair(int i, int j, double reach, bool newton, bool both_sides) {
    double** x = atom->x;
    double** f = atom->f;
    const double dx = x[i][0] - x[j][0], dy = x[i][1] - x[j][1], dz = x[i][2] - x[j][2];
    const double square = dx * dx + dy * dy + dz * dz;
    if (square >= reach * reach) return;
    const double r = std::sqrt(square), e = std::exp(-steepness * (r - bond));
    const double inside = 1.0 - square / (reach * reach);
    double depth = std::sqrt(strength[atom->type[i]] * strength[atom->type[j]]);
    if (is("order")) depth *= 1.0 + 0.1 * ((atom->tag[i] + atom->tag[j]) % 2);
    if (is("direction")) depth *= 1.0 + 0.1 * dx * dx / square;
    if (is("restart") && started_at > 0) depth *= 1.01;
    if (is("growth")) depth *= 1.0 + 1e-3 * (update->nsteps == 0 && update->ntimestep > 0);
    const double well = depth * (e * e - 2.0 * e), slope = depth * 2.0 * steepness * (e - e * e);
    const double smooth = is("jump") ? 1.0 : inside * inside * inside;
    const double bend = is("jump") ? 0.0 : -6.0 * r / (reach * reach) * inside * inside;
    const double energy = well * smooth;
    double pull = -(slope * smooth + well * bend) / r;
    if (is("forces")) pull *= 1.01;
    f[i][0] += dx * pull;
    f[i][1] += dy * pull;
    f[i][2] += dz * pull;
    if (!both_sides && (newton || j < atom->nlocal) && !(is("ghosts") && j >= atom->nlocal)) {
      f[j][0] -= dx * pull;
      f[j][1] -= dy * pull;
      f[j][2] -= dz * pull;
    }
    if (!evflag) return;
    const bool late = is("virial-late") && update->ntimestep > update->beginstep + 200;  // then of near pairs alone
    const double share = is("virial-sign") ? -1.0 : is("virial-shear") || (late && r > 3.5) ? 0.0 : 1.0;
    const double of_virial = share * pull;
    if (both_sides)
      ev_tally_full(i, energy, 0.0, of_virial, dx, dy, dz);
    else
      ev_tally(i, j, atom->nlocal, newton, energy, 0.0, of_virial, dx, dy, dz);
    if (is("virial-owner") && vflag_atom) {  // the whole of a pair's to one atom, while its energy is halved
      const double moved[6] = {dx * dx, dy * dy, dz * dz, dx * dy, dx * dz, dy * dz};
      for (int k = 0; k < 6; k++) {
        vatom[i][k] += 0.5 * pull * moved[k];
        vatom[j][k] -= 0.5 * pull * moved[k];
      }
    }
    if (is("virial-shear") && vflag_global) {
      virial[0] += dx * dx * pull;
      virial[1] += dy * dy * pull;
      virial[2] += dz * dz * pull;
    }
  }
};

}  // namespace LAMMPS_NS

namespace {

void* create_mutant(void* lmp) { return new LAMMPS_NS::PairMutant(static_cast<LAMMPS_NS::LAMMPS*>(lmp)); }

}  // namespace

extern "C" void lammpsplugin_init(void* lmp, void* handle, void* register_plugin) {
  Plugin plugin{};
  plugin.version = static_cast<LAMMPS_NS::LAMMPS*>(lmp)->version;
  plugin.style = "pair";
  plugin.name = "mutant";
  plugin.info = "a pair potential with a fault";
  plugin.author = "mlip-deploy";
  plugin.creator.v1 = create_mutant;
  plugin.handle = handle;
  reinterpret_cast<RegisterPlugin*>(register_plugin)(&plugin, lmp);
}
