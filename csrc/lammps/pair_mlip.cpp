// The input script's side of pair_style mlip: options, model, checks and the table at set-up.
#include "pair_mlip.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>

#include "atom.h"
#include "citeme.h"
#include "comm.h"
#include "core/archive.h"
#include "core/elements.h"
#include "core/error.h"
#include "error.h"
#include "force.h"
#include "input.h"
#include "memory.h"
#include "neighbor.h"
#include "update.h"
#include "utils.h"
#include "variable.h"

using namespace LAMMPS_NS;

namespace {

/// Which process on its node this is. The launcher says it; asking MPI among all partitions of -partition would wait
/// for those that run another input, so that without a launcher's word the ranks of this partition alone are counted.
int process_on_node(MPI_Comm world) {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PALS_LOCAL_RANKID", "SLURM_LOCALID"})
    if (const char* value = std::getenv(name)) return std::atoi(value);
  MPI_Comm node;
  int rank = 0;
  MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_rank(node, &rank);
  MPI_Comm_free(&node);
  return rank;
}

/// The artifact that a script names: as LAMMPS finds its own potentials (here, or in LAMMPS_POTENTIALS), with `~/`
/// for the home folder. A name that is nowhere comes back as it is.
std::string find_file(const std::string& name) {
  const char* const home = std::getenv("HOME");
  if (home != nullptr && name.rfind("~/", 0) == 0) return home + name.substr(1);
  const std::string found = utils::get_potential_file_path(name);
  return found.empty() ? name : found;
}

}  // namespace

PairMLIP::PairMLIP(LAMMPS* lmp) : Pair(lmp) {
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  single_enable = 0;
  writedata = 0;
  // The virial comes from edge gradients; forces on folded ghosts would make r·F wrong.
  no_virial_fdotr_compute = 1;
  centroidstressflag = CENTROID_AVAIL;
  // Halo mode asks for neighbours of ghosts; hybrid reads the flag before the model is known.
  ghostneigh = 1;
  comm_forward = 3;  // rank, index and type of a ghost's owner
  // compute pair sums over ranks: [1] edges, [2] seconds in the model since the run began, [3] the largest grade of the
  // last step that had grades, which rank 0 alone contributes
  nextra = 3;
  pvector = new double[nextra]{};
}

PairMLIP::~PairMLIP() {
  if (comm) widen_ghost_cutoff(0.0);
  delete[] pvector;
  if (allocated) {
    memory->destroy(setflag);
    memory->destroy(cutsq);
    memory->destroy(cutghost);
  }
}

void PairMLIP::allocate() {
  const int n = atom->ntypes;
  memory->create(setflag, n + 1, n + 1, "pair:setflag");
  memory->create(cutsq, n + 1, n + 1, "pair:cutsq");
  memory->create(cutghost, n + 1, n + 1, "pair:cutghost");
  for (int i = 0; i <= n; ++i)
    for (int j = 0; j <= n; ++j) setflag[i][j] = 0;
  allocated = 1;
}

void PairMLIP::settings(int narg, char** arg) {
  options_ = {};
  strict_ = false;
  settings_given_.clear();
  settings_vary_ = false;
  for (int k = 0; k < narg; k += 2) {
    const std::string keyword = arg[k];
    if (keyword == "setting") {
      if (k + 2 >= narg) error->all(FLERR, "pair_style mlip: 'setting' needs a name and a value: setting charge -1");
      settings_given_.emplace_back(arg[k + 1], arg[k + 2]);
      settings_vary_ |= utils::strmatch(arg[k + 2], "^v_");
      ++k;
      continue;
    }
    if (keyword != "device" && keyword != "threads" && keyword != "strict" && keyword != "self_test")
      error->all(
          FLERR,
          "pair_style mlip: unknown keyword '{}'. Expected: pair_style mlip "
          "[device cpu|cuda|cuda:N|auto] [threads N] [strict no|yes] [self_test yes|no] [setting NAME VALUE] ...",
          keyword);
    if (k + 1 == narg) error->all(FLERR, "pair_style mlip: keyword '{}' needs a value", keyword);
    if (keyword == "device") {
      options_.device = arg[k + 1];
    } else if (keyword == "strict") {
      strict_ = utils::logical(FLERR, arg[k + 1], false, lmp) == 1;
    } else if (keyword == "self_test") {
      options_.self_test = utils::logical(FLERR, arg[k + 1], false, lmp) == 1;
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

  options_.process_on_node = process_on_node(world);
  std::optional<mlip::SealedArchive> archive;
  std::string failure;
  try {
    step_.reset();
    archive.emplace(find_file(arg[2]));
    model_ = std::make_unique<mlip::Model>(*archive, options_);
    step_ = std::make_unique<mlip::StepEvaluator>(*model_);
  } catch (const mlip::Error& problem) {
    failure = problem.what();
  }
  // A file may be missing on one node only: then that rank takes the others down instead of waiting for them.
  const int failed = failure.empty() ? 0 : 1;
  int n_failed = 0;
  MPI_Allreduce(&failed, &n_failed, 1, MPI_INT, MPI_SUM, world);
  if (n_failed == comm->nprocs) error->all(FLERR, "pair_coeff: {}", failure);
  if (failed) error->one(FLERR, "pair_coeff, on {} of {} MPI ranks: {}", n_failed, comm->nprocs, failure);
  const auto& contract = model_->contract();
  check_validation(*archive);

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
                 type, failure.what(), archive->path());
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

  for (int type = 1; type <= n_types; ++type)
    if (type_to_element_[type] < 0 && !utils::strmatch(force->pair_style, "^hybrid"))
      error->all(FLERR,
                 "pair_coeff: type {} is NULL, but no other pair style handles it. Give it an element, or use "
                 "'pair_style hybrid' with another style for it",
                 type);

  extras_.clear();
  for (const auto& name : contract.extras) extras_.emplace_back().name = name;
  grade_ = {};
  grade_.name = "grade";
  setup_printed_ = graph_printed_ = false;
}

// Rank 0 reads the record; the others learn whether it may be used.
void PairMLIP::check_validation(const mlip::SealedArchive& archive) {
  const std::string& path = archive.path();
  std::string problem;
  if (comm->me == 0) {
    bool in_doubt = true;
    // LAMMPS numbers its releases by their date: 20250722.
    const int date = lmp->num_ver;
    try {
      const auto found =
          mlip::read_validation(archive, "lammps", fmt::format("{}.{}.{}", date / 10000, date / 100 % 100, date % 100));
      problem = found.problem;
      in_doubt = found.in_doubt();
      if (problem.empty()) validated_ = found.record->describe();
    } catch (const mlip::Error& failure) {
      problem = failure.what();
    }
    if (!problem.empty()) {
      validated_ = in_doubt ? "no: " + problem : "no";
      problem += fmt::format(". Type: mlip validate {} --record -o validation", path);
      if (in_doubt && !strict_) error->warning(FLERR, "pair_style mlip: {}: {}", path, problem);
    }
  }
  int length = static_cast<int>(problem.size());
  MPI_Bcast(&length, 1, MPI_INT, 0, world);
  problem.resize(length);
  MPI_Bcast(problem.data(), length, MPI_CHAR, 0, world);
  if (strict_ && !problem.empty()) error->all(FLERR, "pair_style mlip strict yes: {}: {}", path, problem);
}

mlip::SettingValues PairMLIP::apply_settings() {
  mlip::SettingValues settings(model_->contract().settings);
  std::vector<double> values;
  try {
    for (const auto& [name, value] : settings_given_) {
      if (!utils::strmatch(value, "^v_")) {
        settings.set(name, value);
        continue;
      }
      const int variable = input->variable->find(value.c_str() + 2);
      if (variable < 0) throw mlip::Error("setting '" + name + "': there is no variable '" + value.substr(2) + "'");
      if (!input->variable->equalstyle(variable))
        throw mlip::Error("setting '" + name + "': the variable '" + value.substr(2) + "' is not of style equal");
      settings.set(name, input->variable->compute_equal(variable));
    }
    values = settings.values();
  } catch (const mlip::Error& failure) {
    error->all(FLERR, "pair_style mlip: {}. Settings are given like this: pair_style mlip setting NAME VALUE",
               failure.what());
  }
  // Ranks that read different inputs, or a variable that is not the same on all of them.
  std::vector<double> of_rank_0 = values;
  MPI_Bcast(of_rank_0.data(), static_cast<int>(of_rank_0.size()), MPI_DOUBLE, 0, world);
  const int differs = values != of_rank_0;
  int n_differ = 0;
  MPI_Allreduce(&differs, &n_differ, 1, MPI_INT, MPI_SUM, world);
  if (n_differ > 0)
    error->all(FLERR, "pair_style mlip: settings have other values on {} of {} MPI ranks than on rank 0", n_differ,
               comm->nprocs);
  model_->set_settings(values);
  return settings;
}

void PairMLIP::init_style() {
  if (!model_) error->all(FLERR, "pair_style mlip: no model. Add: pair_coeff * * FILE.mlip.pt El1 El2 ...");
  try {
    units_ = mlip::units::lammps_units(update->unit_style);
  } catch (const mlip::Error& failure) {
    error->all(FLERR, "{}", failure.what());
  }
  check_input();
  described_settings_ = apply_settings().describe();

  // Ghosts out to the interaction range only where a model needs neighbours of neighbours on this rank.
  int request = NeighConst::REQ_FULL;
  if (hops() > 1) {
    request |= NeighConst::REQ_GHOST;
    widen_ghost_cutoff(halo() / units_.length_in_angstrom + neighbor->skin);
  } else {
    widen_ghost_cutoff(0.0);
  }
  neighbor->add_request(this, request);
  if (!setup_printed_) print_setup();
  setup_printed_ = true;
  close_pair_reported_ = false;
  seconds_total_ = 0.0;
  backend_at_start_ = model_->seconds_in_backend();
  exchange_at_start_ = exchange_.seconds();
  n_evaluations_ = 0;
}

void PairMLIP::widen_ghost_cutoff(double needed) {
  if (comm->cutghostuser != ghost_cutoff_set_) ghost_cutoff_of_user_ = comm->cutghostuser;
  comm->cutghostuser = ghost_cutoff_set_ = std::max(ghost_cutoff_of_user_, needed);
}

mlip::Parallel PairMLIP::mode() const { return model_->contract().parallel; }

int PairMLIP::hops() const {
  return mode() == mlip::Parallel::halo && comm->nprocs > 1 ? std::max(1, model_->contract().message_passing_layers)
                                                            : 1;
}

double PairMLIP::halo() const { return hops() * model_->contract().cutoff; }

void PairMLIP::print_setup() {
  const auto& contract = model_->contract();
  std::string elements;
  for (int type = 1; type <= atom->ntypes; ++type) {
    const int index = type_to_element_[type];
    const std::string element = index < 0 ? "NULL" : contract.elements[index];
    elements += fmt::format(" {}={}", type, element);
    const double expected = mlip::standard_mass(element);
    if (comm->me != 0 || index < 0 || atom->mass == nullptr || !atom->mass_setflag[type] || expected == 0.0) continue;
    const double mass = atom->mass[type] * units_.mass_in_dalton;
    if (std::fabs(mass - expected) > 1.0)
      error->warning(FLERR,
                     "pair_style mlip: type {} has a mass of {:.4g} u but is mapped to {} ({:.4g} u). Check the order "
                     "of the elements in pair_coeff",
                     type, mass, element, expected);
  }
  if (lmp->citeme)
    lmp->citeme->add(fmt::format("pair_style mlip with {}:\n\n{}\n\n", contract.model_name, contract.citation));
  if (comm->me != 0) return;
  const int n_devices = mlip::cuda_device_count();
  std::string parallel = mlip::to_string(contract.parallel);
  if (comm->nprocs == 1)
    parallel = "ghosts folded onto owners";
  else if (hops() > 1)
    parallel += fmt::format(", ghosts and their edges out to {:.3g} Å", halo());
  utils::logmesg(lmp,
                 "pair_style mlip\n"
                 "  model     {} ({}), {}\n"
                 "  source    {}, written by {} with torch {}\n"
                 "  energies  {}\n"
                 "  validated {}\n"
                 "  self-test {}\n"
                 "  device    {}{}, {} thread(s) on each of {} MPI rank(s)\n"
                 "  types    {}\n"
                 "{}"
                 "  cutoff    {:.3g} Å, {} message-passing layer(s), {}\n",
                 contract.model_name, contract.model_family, mlip::to_string(contract.precision), model_->path(),
                 contract.producer, contract.torch_version, contract.energy_frame, validated_,
                 options_.self_test ? model_->self_test() : "left out (self_test no)", model_->device(),
                 n_devices > 1 && comm->nprocs > 1 ? fmt::format(" on rank 0, of {} on its node", n_devices) : "",
                 mlip::model_threads(), comm->nprocs, elements,
                 described_settings_.empty() ? "" : fmt::format("  settings  {}\n", described_settings_),
                 contract.cutoff, contract.message_passing_layers, parallel);
}

// Before the first evaluation, so that a run which is about to exhaust the memory has said how large it is.
void PairMLIP::print_graph() {
  graph_printed_ = true;
  const auto n_nodes = static_cast<double>(atom_of_node_.size());
  const auto n_edges = static_cast<double>(step_->count_edges(positions(), units_.length_in_angstrom));
  const double local[5] = {static_cast<double>(n_owned_), n_nodes - static_cast<double>(n_owned_), n_edges,
                           memory_usage(), static_cast<double>(model_->exchange_bytes()) * n_nodes};
  double sum[5], largest[5];
  MPI_Reduce(local, sum, 5, MPI_DOUBLE, MPI_SUM, 0, world);
  MPI_Reduce(local, largest, 5, MPI_DOUBLE, MPI_MAX, 0, world);
  if (comm->me != 0) return;
  utils::logmesg(lmp,
                 "  graph     {:.0f} atoms, {:.0f} ghosts, {:.0f} edges; at most {:.0f} ghosts and {:.0f} edges on one "
                 "rank\n"
                 "  memory    {:.3g} MB on the largest rank outside the model, {:.3g} MB per exchange of features\n",
                 sum[0], sum[1], sum[2], largest[1], largest[2], 1e-6 * largest[3], 1e-6 * largest[4]);
}

std::vector<PairMLIP::Extra*> PairMLIP::extras() {
  std::vector<Extra*> all;
  for (Extra& extra : extras_) all.push_back(&extra);
  if (model_) all.push_back(&grade_);
  return all;
}

void* PairMLIP::extract(const char* name, int& dimension) {
  dimension = 0;
  // What fix adapt and compute fep ask a pair style for.
  if (std::string(name) == "scale")
    error->all(FLERR,
               "pair_style mlip has no 'scale' for pairs of types, as its energy is not a sum over pairs. To scale the "
               "whole model with a variable, type: pair_style hybrid/scaled v_NAME mlip");
  for (Extra* extra : extras())
    if (extra->name + "_flag" == name) {
      extra->has_flag = true;
      return &extra->wanted_now;
    }
  return nullptr;
}

void* PairMLIP::extract_peratom(const char* name, int& columns) {
  columns = 0;
  for (Extra* extra : extras())
    if (extra->name == name) {
      if (extra == &grade_ && !model_->no_grades().empty())
        error->all(FLERR, "pair_style mlip: {}", model_->no_grades());
      extra->asked_for = true;
      return extra->of_atom.data();
    }
  return nullptr;
}

double PairMLIP::init_one(int i, int j) {
  if (setflag[i][j] == 0) error->all(FLERR, "pair_style mlip: types {} and {} have no pair_coeff", i, j);
  const double cutoff = model_->contract().cutoff / units_.length_in_angstrom;
  cutghost[i][j] = cutghost[j][i] = cutoff;
  return cutoff;
}
