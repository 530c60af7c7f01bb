#include "pair_mlip.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <unordered_map>

#include "atom.h"
#include "comm.h"
#include "core/error.h"
#include "domain.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"
#include "utils.h"

using namespace LAMMPS_NS;

namespace {
using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }
}  // namespace

PairMLIP::PairMLIP(LAMMPS* lmp) : Pair(lmp) {
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  single_enable = 0;
  writedata = 0;
  // The virial comes from edge gradients; forces on folded ghosts would make r·F wrong.
  no_virial_fdotr_compute = 1;
  centroidstressflag = CENTROID_NOTAVAIL;
}

PairMLIP::~PairMLIP() {
  if (allocated) {
    memory->destroy(setflag);
    memory->destroy(cutsq);
  }
}

void PairMLIP::allocate() {
  const int n = atom->ntypes;
  memory->create(setflag, n + 1, n + 1, "pair:setflag");
  memory->create(cutsq, n + 1, n + 1, "pair:cutsq");
  for (int i = 0; i <= n; ++i)
    for (int j = 0; j <= n; ++j) setflag[i][j] = 0;
  allocated = 1;
}

void PairMLIP::settings(int narg, char** arg) {
  options_ = {};
  for (int k = 0; k < narg; k += 2) {
    const std::string keyword = arg[k];
    if (keyword != "device" && keyword != "threads")
      error->all(FLERR,
                 "pair_style mlip: unknown keyword '{}'. Expected: pair_style mlip "
                 "[device cpu|cuda|cuda:N|auto] [threads N]",
                 keyword);
    if (k + 1 == narg) error->all(FLERR, "pair_style mlip: keyword '{}' needs a value", keyword);
    if (keyword == "device") {
      options_.device = arg[k + 1];
    } else {
      options_.threads = utils::inumeric(FLERR, arg[k + 1], false, lmp);
      if (options_.threads < 1)
        error->all(FLERR, "pair_style mlip: threads is {}, expected 1 or more", options_.threads);
    }
  }
}

void PairMLIP::coeff(int narg, char** arg) {
  const std::string usage = "pair_coeff * * FILE.mlip.pt El1 El2 ... (one element per atom type)";
  if (narg < 3) error->all(FLERR, "pair_coeff: expected '{}'", usage);
  const int n_types = atom->ntypes;
  if (narg - 3 != n_types) {
    std::string found;
    for (int k = 3; k < narg; ++k) found += std::string(" ") + arg[k];
    error->all(FLERR, "pair_coeff: found {} element(s){}{} for {} atom type(s). Expected '{}'", narg - 3,
               found.empty() ? "" : ":", found, n_types, usage);
  }

  try {
    model_ = std::make_unique<mlip::Model>(arg[2], options_);
  } catch (const mlip::Error& failure) {
    error->all(FLERR, "pair_coeff: {}", failure.what());
  }
  const auto& contract = model_->contract();

  if (!allocated) allocate();
  type_to_element_.assign(n_types + 1, -1);
  for (int type = 1; type <= n_types; ++type) {
    const std::string symbol = arg[type + 2];
    if (symbol == "NULL") continue;
    try {
      type_to_element_[type] = contract.type_index(symbol);
    } catch (const mlip::Error& failure) {
      error->all(FLERR,
                 "pair_coeff: type {} is {}, see: mlip info {}. Use a supported symbol, or NULL if another "
                 "style handles it",
                 type, failure.what(), arg[2]);
    }
  }
  int n_set = 0;
  for (int i = 1; i <= n_types; ++i)
    for (int j = i; j <= n_types; ++j)
      if (type_to_element_[i] >= 0 && type_to_element_[j] >= 0) {
        setflag[i][j] = 1;
        ++n_set;
      }
  if (n_set == 0) error->all(FLERR, "pair_coeff: every atom type is NULL, so pair_style mlip has nothing to do");

  // LAMMPS sizes its buffers from these before the first exchange.
  comm_forward = comm_reverse = static_cast<int>((model_->exchange_bytes() + 7) / 8);
  setup_printed_ = false;
}

void PairMLIP::init_style() {
  if (!model_) error->all(FLERR, "pair_style mlip: no model. Add: pair_coeff * * FILE.mlip.pt El1 El2 ...");
  try {
    units_ = mlip::units::lammps_units(update->unit_style);
  } catch (const mlip::Error& failure) {
    error->all(FLERR, "{}", failure.what());
  }
  if (atom->tag_enable == 0)
    error->all(FLERR, "pair_style mlip needs atom ids. Remove 'atom_modify id no' from the input");
  if (force->newton_pair == 0)
    error->all(FLERR,
               "pair_style mlip needs 'newton on': forces on ghost atoms go back to their owners. Put 'newton on' "
               "at the top of the input");
  // Both drop pairs from the neighbour list, and a many-body energy without some of its neighbours is wrong.
  if (neighbor->nex_type || neighbor->nex_group || neighbor->nex_mol)
    error->all(
        FLERR,
        "pair_style mlip: 'neigh_modify exclude' hides neighbours from the model. Add: neigh_modify exclude none");
  if (atom->molecular != Atom::ATOMIC)
    for (int k = 1; k <= 3; ++k)
      if (force->special_lj[k] == 0.0 && force->special_coul[k] == 0.0)
        error->all(FLERR,
                   "pair_style mlip: special_bonds hides 1-{} neighbours from the model. Add: special_bonds lj/coul "
                   "1.0 1.0 1.0",
                   k + 1);
  if (comm->nprocs > 1 && model_->contract().parallel == mlip::Parallel::halo)
    error->all(FLERR,
               "pair_style mlip: {} passes messages without exchange points (mode halo) and runs on one MPI rank, "
               "this run has {}",
               model_->contract().model_name, comm->nprocs);

  neighbor->add_request(this, NeighConst::REQ_FULL);
  if (!setup_printed_) print_setup();
  setup_printed_ = true;
  seconds_total_ = 0.0;
  backend_at_start_ = model_->seconds_in_backend();
  n_evaluations_ = 0;
}

void PairMLIP::print_setup() {
  const auto& contract = model_->contract();
  std::string elements;
  for (int type = 1; type <= atom->ntypes; ++type) {
    const int index = type_to_element_[type];
    elements += fmt::format(" {}={}", type, index < 0 ? "NULL" : contract.elements[index]);
  }
  if (comm->me != 0) return;
  const char* mode = comm->nprocs == 1 ? "ghosts folded onto owners" : mlip::to_string(contract.parallel);
  utils::logmesg(lmp,
                 "pair_style mlip\n"
                 "  model     {} ({}), {}\n"
                 "  source    {}, written by {} with torch {}\n"
                 "  energies  {}\n"
                 "  device    {}, {} thread(s) on each of {} MPI rank(s)\n"
                 "  types    {}\n"
                 "  cutoff    {:.3g} Å, {} message-passing layer(s), {}\n",
                 contract.model_name, contract.model_family, mlip::to_string(contract.precision), model_->path(),
                 contract.producer, contract.torch_version, contract.energy_frame, model_->device(),
                 mlip::model_threads(), comm->nprocs, elements, contract.cutoff, contract.message_passing_layers, mode);
}

double PairMLIP::init_one(int i, int j) {
  if (setflag[i][j] == 0) error->all(FLERR, "pair_style mlip: types {} and {} have no pair_coeff", i, j);
  return model_->contract().cutoff / units_.length_in_angstrom;
}

// Once per rebuild of LAMMPS's list: which atoms are nodes, and which pairs may become edges.
void PairMLIP::rebuild_candidates() {
  const int n_local = atom->nlocal;
  const int n_all = n_local + atom->nghost;
  const int* type = atom->type;
  const tagint* tag = atom->tag;
  const bool fold = comm->nprocs == 1;

  candidates_.clear();
  candidates_.node_of.assign(n_all, -1);
  graph_.node_types.clear();
  atom_of_node_.clear();
  auto add_node = [&](int atom_index) {
    candidates_.node_of[atom_index] = graph_.n_nodes();
    graph_.node_types.push_back(type_to_element_[type[atom_index]]);
    atom_of_node_.push_back(atom_index);
  };
  for (int i = 0; i < n_local; ++i)
    if (type_to_element_[type[i]] >= 0) add_node(i);
  graph_.n_owned = graph_.n_nodes();

  if (fold) {
    std::unordered_map<tagint, int> owner;
    owner.reserve(n_local);
    for (int i = 0; i < n_local; ++i) owner.emplace(tag[i], i);
    for (int j = n_local; j < n_all; ++j) {
      const auto found = owner.find(tag[j]);
      if (found != owner.end()) candidates_.node_of[j] = candidates_.node_of[found->second];
    }
  } else {
    for (int j = n_local; j < n_all; ++j)
      if (type_to_element_[type[j]] >= 0) add_node(j);
  }

  for (int ii = 0; ii < list->inum; ++ii) {
    const int i = list->ilist[ii];
    if (candidates_.node_of[i] < 0) continue;
    const int* neighbours = list->firstneigh[i];
    for (int jj = 0; jj < list->numneigh[i]; ++jj) {
      const int j = neighbours[jj] & NEIGHMASK;
      if (candidates_.node_of[j] < 0) continue;
      candidates_.centres.push_back(i);
      candidates_.neighbours.push_back(j);
    }
  }
}

void PairMLIP::compute(int eflag, int vflag) {
  const auto start = Clock::now();
  ev_init(eflag, vflag);
  try {
    if (neighbor->ago == 0) rebuild_candidates();
    evaluate_and_accumulate();
  } catch (const mlip::Error& failure) {
    // One rank may fail alone, so all are taken down with it.
    error->one(FLERR, "pair_style mlip, step {}: {}", update->ntimestep, failure.what());
  }
  seconds_total_ += seconds_since(start);
  ++n_evaluations_;
}

void PairMLIP::evaluate_and_accumulate() {
  static const double no_atoms[3] = {};
  const double* positions = atom->nlocal + atom->nghost > 0 ? atom->x[0] : no_atoms;
  mlip::refresh_edges(candidates_, positions, units_.length_in_angstrom, model_->contract().cutoff, graph_);
  // No early return without atoms: the exchange is collective.
  model_->evaluate(graph_, evaluation_, comm->nprocs > 1 ? &communication_ : nullptr);

  const double energy_scale = 1.0 / units_.energy_in_ev;
  const double force_scale = energy_scale * units_.length_in_angstrom;
  node_forces_.assign(3 * graph_.n_nodes(), 0.0);
  mlip::add_forces(graph_, evaluation_.edge_gradients, force_scale, node_forces_.data());
  double** f = atom->f;
  for (std::size_t node = 0; node < atom_of_node_.size(); ++node)
    for (int axis = 0; axis < 3; ++axis) f[atom_of_node_[node]][axis] += node_forces_[3 * node + axis];

  if (eflag_global)
    for (const double energy : evaluation_.atomic_energies) eng_vdwl += energy_scale * energy;
  if (eflag_atom)
    for (std::int64_t node = 0; node < graph_.n_owned; ++node)
      eatom[atom_of_node_[node]] += energy_scale * evaluation_.atomic_energies[node];
  if (vflag_global) {
    const auto w = mlip::virial(graph_, evaluation_.edge_gradients);
    const double components[6] = {w[0], w[4], w[8], 0.5 * (w[1] + w[3]), 0.5 * (w[2] + w[6]), 0.5 * (w[5] + w[7])};
    for (int c = 0; c < 6; ++c) virial[c] += energy_scale * components[c];
  }
  if (vflag_atom) {
    node_virials_.assign(6 * graph_.n_nodes(), 0.0);
    mlip::add_atom_virials(graph_, evaluation_.edge_gradients, energy_scale, node_virials_.data());
    for (std::size_t node = 0; node < atom_of_node_.size(); ++node)
      for (int c = 0; c < 6; ++c) vatom[atom_of_node_[node]][c] += node_virials_[6 * node + c];
  }
}

void PairMLIP::finish() {
  if (n_evaluations_ == 0 || comm->me != 0) return;
  const double model = model_->seconds_in_backend() - backend_at_start_;
  const double outside = std::max(0.0, seconds_total_ - model);
  utils::logmesg(
      lmp,
      "pair_style mlip: {} evaluations, {} edges on rank 0, model {:.4g} ms each, outside the model {:.4g} ms "
      "({:.2f} %)\n",
      n_evaluations_, graph_.n_edges(), 1e3 * model / n_evaluations_, 1e3 * outside / n_evaluations_,
      100.0 * outside / std::max(model, 1e-12));
}

double PairMLIP::memory_usage() {
  const auto bytes = [](const auto& values) { return static_cast<double>(values.capacity() * sizeof(values[0])); };
  return bytes(candidates_.centres) + bytes(candidates_.neighbours) + bytes(candidates_.node_of) +
         bytes(graph_.node_types) + bytes(graph_.centres) + bytes(graph_.neighbours) + bytes(graph_.vectors) +
         bytes(evaluation_.atomic_energies) + bytes(evaluation_.edge_gradients) + bytes(atom_of_node_) +
         bytes(node_forces_) + bytes(node_virials_);
}

// ---- mlip::Exchange over LAMMPS's communication --------------------------------------------------------------
// A row travels as raw bytes, padded to whole doubles, so float32 features cost half of what doubles would.

int PairMLIP::doubles_per_row() const {
  const std::int64_t bytes = rows_.width * (rows_.precision == mlip::Precision::float32 ? 4 : 8);
  return static_cast<int>((bytes + 7) / 8);
}

void PairMLIP::Communication::gather(const mlip::FeatureRows& rows) {
  pair_.rows_ = rows;
  pair_.comm->forward_comm(&pair_, pair_.doubles_per_row());
}

void PairMLIP::Communication::scatter_add(const mlip::FeatureRows& rows) {
  pair_.rows_ = rows;
  pair_.comm->reverse_comm(&pair_, pair_.doubles_per_row());
}

int PairMLIP::pack_forward_comm(int n, int* list, double* buffer, int /*pbc_flag*/, int* /*pbc*/) {
  const int stride = doubles_per_row();
  const std::size_t bytes = rows_.width * (rows_.precision == mlip::Precision::float32 ? 4 : 8);
  for (int k = 0; k < n; ++k) {
    const std::int64_t node = candidates_.node_of[list[k]];
    if (node >= 0)
      std::memcpy(buffer + static_cast<std::size_t>(k) * stride, static_cast<const char*>(rows_.data) + node * bytes,
                  bytes);
  }
  return n * stride;
}

void PairMLIP::unpack_forward_comm(int n, int first, double* buffer) {
  const int stride = doubles_per_row();
  const std::size_t bytes = rows_.width * (rows_.precision == mlip::Precision::float32 ? 4 : 8);
  for (int k = 0; k < n; ++k) {
    const std::int64_t node = candidates_.node_of[first + k];
    if (node >= 0)
      std::memcpy(static_cast<char*>(rows_.data) + node * bytes, buffer + static_cast<std::size_t>(k) * stride, bytes);
  }
}

int PairMLIP::pack_reverse_comm(int n, int first, double* buffer) {
  const int stride = doubles_per_row();
  const std::size_t bytes = rows_.width * (rows_.precision == mlip::Precision::float32 ? 4 : 8);
  for (int k = 0; k < n; ++k) {
    const std::int64_t node = candidates_.node_of[first + k];
    if (node >= 0)
      std::memcpy(buffer + static_cast<std::size_t>(k) * stride, static_cast<const char*>(rows_.data) + node * bytes,
                  bytes);
  }
  return n * stride;
}

template <typename T>
void PairMLIP::add_rows(int n, const int* list, const double* buffer) {
  const int stride = doubles_per_row();
  for (int k = 0; k < n; ++k) {
    const std::int64_t node = candidates_.node_of[list[k]];
    if (node < 0) continue;
    const T* received = reinterpret_cast<const T*>(buffer + static_cast<std::size_t>(k) * stride);
    T* row = static_cast<T*>(rows_.data) + node * rows_.width;
    for (std::int64_t c = 0; c < rows_.width; ++c) row[c] += received[c];
  }
}

void PairMLIP::unpack_reverse_comm(int n, int* list, double* buffer) {
  if (rows_.precision == mlip::Precision::float32)
    add_rows<float>(n, list, buffer);
  else
    add_rows<double>(n, list, buffer);
}
