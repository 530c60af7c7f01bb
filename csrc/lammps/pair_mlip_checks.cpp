// What the rest of an input script may not do, since it would give another energy without a word: settings that do not
// fit, pairs that LAMMPS leaves out of the model's neighbour list, atoms that change while that list stays.
#include <algorithm>
#include <vector>

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "force.h"
#include "group.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "pair_mlip.h"
#include "update.h"

using namespace LAMMPS_NS;

namespace {
/// The group of `comm_modify group`, which Comm shows to its own kind only; 0 is `all`.
struct BorderGroup : Comm {
  static int of(const Comm& comm) { return comm.*(&BorderGroup::bordergroup); }
};
}  // namespace

void PairMLIP::check_input() {
  if (domain->dimension != 3)
    error->all(
        FLERR,
        "pair_style mlip needs 'dimension 3': a 2d run has no periodic images along z. For a film or a sheet use "
        "'boundary p p f'");
  for (const auto& model : models_)
    if (model->contract().positions == mlip::Positions::periodic &&
        !(domain->xperiodic && domain->yperiodic && domain->zperiodic))
      error->all(
          FLERR,
          "pair_style mlip: {} needs a box that is periodic in three directions. Use 'boundary p p p', with vacuum "
          "around a molecule or beside a slab",
          model->contract().model_name);
  if (atom->tag_enable == 0)
    error->all(FLERR, "pair_style mlip needs atom ids. Remove 'atom_modify id no' from the input");
  if (force->newton_pair == 0)
    error->all(FLERR,
               "pair_style mlip needs 'newton on': forces on ghost atoms go back to their owners. Put 'newton on' "
               "at the top of the input");
  constexpr double largest_skin = 10.0;  // Å
  if (neighbor->skin * units_.length_in_angstrom > largest_skin)
    error->all(FLERR,
               "pair_style mlip: the neighbour skin is {:.3g} Å, which would make millions of ghosts (the default of "
               "'units si' is 1 mm). Add: neighbor {:.3g} bin",
               neighbor->skin * units_.length_in_angstrom, 1.0 / units_.length_in_angstrom);
  if (most_hops() > 1 && comm->mode != Comm::SINGLE)
    error->all(FLERR,
               "pair_style mlip: {} runs in halo mode, which needs one ghost cutoff for all types. Remove 'comm_modify "
               "mode multi' from the input",
               model_->contract().model_name);
  if (neighbor->includegroup)
    error->all(
        FLERR,
        "pair_style mlip: 'neigh_modify include' hides neighbours from the model. Add: neigh_modify include all");
  if (BorderGroup::of(*comm) != 0)
    error->all(
        FLERR,
        "pair_style mlip: 'comm_modify group' leaves ghosts out that the model needs. Add: comm_modify group all");
}

std::string PairMLIP::name_of_type(int type) const {
  const int element = type_to_element_[type];
  return fmt::format("{} ({})", type, element < 0 ? "NULL" : model_->contract().elements[element]);
}

void PairMLIP::check_hidden_pairs() {
  check_other_styles();
  check_exclusions();
  if (atom->molecular != Atom::ATOMIC) check_special_bonds();
}

// A hybrid style gives each of its styles a list without the pairs of types that are another's.
void PairMLIP::check_other_styles() {
  if (list->ijskip == nullptr) return;
  for (int i = 1; i <= atom->ntypes; ++i)
    for (int j = i; j <= atom->ntypes; ++j) {
      if (type_to_element_[i] < 0 || type_to_element_[j] < 0 || !list->ijskip[i][j]) continue;
      const std::string cure = utils::strmatch(force->pair_style, "^hybrid/")
                                   ? fmt::format("Remove 'pair_coeff {} {} none'", i, j)
                                   : std::string("Type: pair_style hybrid/overlay ..., which adds its styles up");
      error->all(FLERR,
                 "pair_style mlip: pairs of types {} and {} go to another style of 'pair_style {}', and the energy "
                 "of a model without some of its pairs is wrong. {}",
                 name_of_type(i), name_of_type(j), force->pair_style, cure);
    }
}

void PairMLIP::check_exclusions() {
  absent_ = 0;
  if (neighbor->nex_type + neighbor->nex_group + neighbor->nex_mol == 0) return;
  const char* const cure =
      "pair_style mlip: 'neigh_modify exclude {}' hides neighbours from the model. Add: neigh_modify exclude none";
  for (int k = 0; k < neighbor->nex_type; ++k)
    if (type_to_element_[neighbor->ex1_type[k]] >= 0 && type_to_element_[neighbor->ex2_type[k]] >= 0)
      error->all(FLERR, cure, "type");
  // Groups of which some atom is the model's.
  int mine = 0;
  for (int i = 0; i < atom->nlocal; ++i)
    if (type_to_element_[atom->type[i]] >= 0) mine |= atom->mask[i];
  int modelled = 0;
  MPI_Allreduce(&mine, &modelled, 1, MPI_INT, MPI_BOR, world);
  for (int k = 0; k < neighbor->nex_mol; ++k)
    if (modelled & group->bitmask[neighbor->ex_mol_group[k]]) error->all(FLERR, cure, "molecule");
  for (int k = 0; k < neighbor->nex_group; ++k) {
    const int first = neighbor->ex1_group[k];
    const int second = neighbor->ex2_group[k];
    // Group 0 is `all`. Fix gcmc takes an atom out in this way to learn the energy without it.
    if ((first == 0) != (second == 0))
      absent_ |= group->bitmask[first == 0 ? second : first];
    else if ((modelled & group->bitmask[first]) && (modelled & group->bitmask[second]))
      error->all(FLERR, cure, "group");
  }
}

// special_bonds of weight zero drop bonded pairs from the list.
void PairMLIP::check_special_bonds() {
  const int* const kept = neighbor->special_flag;  // [4], 0: dropped
  if (kept[1] && kept[2] && kept[3]) return;
  int mine[4] = {};
  for (int i = 0; i < atom->nlocal; ++i) {
    if (type_to_element_[atom->type[i]] < 0) continue;
    // The bonds of a molecule template are not in reach of a plugin: any may be there.
    if (atom->molecular == Atom::TEMPLATE) {
      std::fill(mine + 1, mine + 4, 1);
      break;
    }
    int next = 0;
    for (int k = 1; k <= 3; ++k)
      for (; next < atom->nspecial[i][k - 1]; ++next) {
        const int j = atom->map(atom->special[i][next]);
        if (j >= 0 && type_to_element_[atom->type[j]] >= 0) mine[k] = 1;
      }
  }
  int bonded[4];
  MPI_Allreduce(mine, bonded, 4, MPI_INT, MPI_MAX, world);
  std::string hidden;
  std::vector<std::string> lj, coul;
  for (int k = 1; k <= 3; ++k) {
    const bool hides = bonded[k] && !kept[k];
    if (hides) hidden += fmt::format("{}1-{}", hidden.empty() ? "" : ", ", k + 1);
    lj.push_back(hides ? "1e-30" : fmt::format("{:g}", force->special_lj[k]));
    coul.push_back(hides ? "1e-30" : fmt::format("{:g}", force->special_coul[k]));
  }
  if (hidden.empty()) return;
  std::string line = "special_bonds ";
  if (lj == coul)
    line += fmt::format("lj/coul {}", utils::join_words(lj, " "));
  else
    line += fmt::format("lj {} coul {}", utils::join_words(lj, " "), utils::join_words(coul, " "));
  if (force->special_angle) line += " angle yes";
  if (force->special_dihedral) line += " dihedral yes";
  error->all(FLERR,
             "pair_style mlip: special_bonds hides {} neighbours from the model. A weight that is not quite zero keeps "
             "them, and any force field beside the model as it is. Add: {}",
             hidden, line);
}

// `set`, fix atom/swap and their like may change types without a new list; a `run N pre no` after other commands keeps
// a list whose atoms are gone or have other indices. The sum over ranks takes 1 µs of the 830 µs of a step of 256
// Lennard-Jones atoms on two ranks of one node.
bool PairMLIP::types_have_changed() {
  enum { same, other_types, other_model, other_atoms };
  int found = same;
  int atom_found = -1;
  const auto n_local = static_cast<std::size_t>(atom->nlocal);
  if (n_local != tag_at_rebuild_.size() || !std::equal(tag_at_rebuild_.begin(), tag_at_rebuild_.end(), atom->tag)) {
    found = other_atoms;
  } else if (!std::equal(type_at_rebuild_.begin(), type_at_rebuild_.end(), atom->type)) {
    found = other_types;
    for (std::size_t i = 0; i < n_local && found != other_model; ++i)
      if ((type_to_element_[type_at_rebuild_[i]] < 0) != (type_to_element_[atom->type[i]] < 0)) {
        found = other_model;
        atom_found = static_cast<int>(i);
      }
  }
  struct {
    int found, rank;
  } mine{found, comm->me}, worst{found, comm->me};
  if (comm->nprocs > 1) MPI_Allreduce(&mine, &worst, 1, MPI_2INT, MPI_MAXLOC, world);
  if (worst.found == other_atoms)
    error->all(FLERR,
               "pair_style mlip: atoms have other indices than when the neighbour list was built. Type: run N pre yes");
  if (worst.found == other_model) {
    // What rank `worst.rank` found, on all of them.
    bigint change[3] = {};
    if (worst.rank == comm->me) {
      change[0] = atom->tag[atom_found];
      change[1] = type_at_rebuild_[atom_found];
      change[2] = atom->type[atom_found];
    }
    MPI_Bcast(change, 3, MPI_LMP_BIGINT, worst.rank, world);
    error->all(FLERR,
               "pair_style mlip: atom {} has changed from type {} to type {} since the neighbour list was built, which "
               "lacks its pairs. Type: run N pre yes",
               change[0], name_of_type(static_cast<int>(change[1])), name_of_type(static_cast<int>(change[2])));
  }
  return worst.found == other_types;
}
