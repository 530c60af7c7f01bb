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
  comm_reverse = 3;  // a member's forces on ghosts
  // compute pair sums over ranks: [1] edges, [2] seconds in the models since the run began; of the last step that had
  // them, which rank 0 alone contributes, [3] the largest grade, [4] to [9] the columns of model_devi.out, [10] the
  // uncertainty of the energy
  nextra = 10;
  grade_.name = "grade";
  uncertainty_.name = "uncertainty";
  deviation_.name = "deviation";
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
  drive_ = mlip::Drive::first;
  deviation_every_ = 100;
  deviation_file_ = "model_devi.out";
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
    if (keyword != "device" && keyword != "threads" && keyword != "strict" && keyword != "self_test" &&
        keyword != "precision" && keyword != "drive" && keyword != "out_freq" && keyword != "out_file")
      error->all(FLERR,
                 "pair_style mlip: unknown keyword '{}'. Expected: pair_style mlip "
                 "[device cpu|cuda|cuda:N|auto] [threads N] [strict no|yes] [self_test yes|no] "
                 "[precision full|tf32] [drive first|mean] [out_freq N] [out_file FILE] [setting NAME VALUE] ...",
                 keyword);
    if (k + 1 == narg) error->all(FLERR, "pair_style mlip: keyword '{}' needs a value", keyword);
    if (keyword == "device") {
      options_.device = arg[k + 1];
    } else if (keyword == "strict") {
      strict_ = utils::logical(FLERR, arg[k + 1], false, lmp) == 1;
    } else if (keyword == "self_test") {
      options_.self_test = utils::logical(FLERR, arg[k + 1], false, lmp) == 1;
    } else if (keyword == "drive" || keyword == "precision") {
      try {
        if (keyword == "drive")
          drive_ = mlip::parse_drive(arg[k + 1]);
        else
          options_.products = mlip::parse_products(arg[k + 1]);
      } catch (const mlip::Error& failure) {
        error->all(FLERR, "pair_style mlip: {}", failure.what());
      }
    } else if (keyword == "out_freq") {
      deviation_every_ = utils::inumeric(FLERR, arg[k + 1], false, lmp);
      if (deviation_every_ < 0)
        error->all(FLERR, "pair_style mlip: out_freq is {}, expected a number of steps, or 0 for no file",
                   deviation_every_);
    } else if (keyword == "out_file") {
      deviation_file_ = arg[k + 1];
    } else {
      options_.threads = utils::inumeric(FLERR, arg[k + 1], false, lmp);
      if (options_.threads < 1)
        error->all(FLERR, "pair_style mlip: threads is {}, expected 1 or more", options_.threads);
    }
  }
}

std::vector<mlip::SealedArchive> PairMLIP::load(const std::vector<std::string>& files) {
  step_ = nullptr;
  model_ = nullptr;
  committee_.reset();
  models_.clear();
  std::vector<mlip::SealedArchive> archives;
  std::vector<mlip::Model*> members;
  for (const std::string& file : files) {
    archives.emplace_back(find_file(file));
    models_.push_back(std::make_unique<mlip::Model>(archives.back(), options_));
    members.push_back(models_.back().get());
  }
  committee_ = std::make_unique<mlip::Committee>(members, drive_);
  model_ = members.front();
  step_ = &committee_->step(0);
  return archives;
}

void PairMLIP::coeff(int narg, char** arg) {
  const std::string usage = "pair_coeff * * FILE.mlip.pt El1 El2 ... (one element per atom type)";
  if (narg < 3) error->all(FLERR, "pair_coeff: expected '{}'", usage);
  // No element has a dot in its name, nor has NULL.
  std::vector<std::string> files{arg[2]};
  int first_element = 3;
  while (first_element < narg && std::string(arg[first_element]).find_first_of("./") != std::string::npos)
    files.emplace_back(arg[first_element++]);
  const int n_types = atom->ntypes;
  const int n_elements = narg - first_element;
  if (n_elements != n_types) {
    std::string found;
    for (int k = first_element; k < narg; ++k) found += std::string(" ") + arg[k];
    error->all(FLERR, "pair_coeff: found {} element(s){}{} for {} atom type(s). Expected '{}'", n_elements,
               found.empty() ? "" : ":", found, n_types, usage);
  }

  options_.process_on_node = process_on_node(world);
  std::vector<mlip::SealedArchive> archives;
  std::string failure;
  try {
    archives = load(files);
  } catch (const mlip::Error& problem) {
    failure = problem.what();
  }
  // A file may be missing on one node only: then that rank takes the others down instead of waiting for them.
  const int failed = failure.empty() ? 0 : 1;
  int n_failed = 0;
  MPI_Allreduce(&failed, &n_failed, 1, MPI_INT, MPI_SUM, world);
  if (n_failed == comm->nprocs) error->all(FLERR, "pair_coeff: {}", failure);
  if (failed) error->one(FLERR, "pair_coeff, on {} of {} MPI ranks: {}", n_failed, comm->nprocs, failure);
  validated_.clear();
  for (const auto& archive : archives) validated_.push_back(check_validation(archive));

  if (!allocated) allocate();
  type_to_element_.assign(n_types + 1, -1);
  for (int type = 1; type <= n_types; ++type) {
    const std::string symbol = arg[first_element + type - 1];
    if (symbol == "NULL") continue;
    for (const auto& model : models_) {
      try {
        const int index = model->contract().type_index(symbol);
        if (model.get() == model_) type_to_element_[type] = index;
      } catch (const mlip::Error& failure) {
        error->all(FLERR,
                   "pair_coeff: type {} is {}, see: mlip info {}. Use a supported symbol, or NULL if another "
                   "style handles it",
                   type, failure.what(), model->path());
      }
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
  for (const auto& name : model_->contract().extras) extras_.emplace_back().name = name;
  if (committee_->size() > 1) open_deviations();
  setup_printed_ = graph_printed_ = false;
}

// Rank 0 reads the record; the others learn whether it may be used.
std::string PairMLIP::check_validation(const mlip::SealedArchive& archive) {
  const std::string& path = archive.path();
  std::string problem, validated;
  if (comm->me == 0) {
    bool in_doubt = true;
    // LAMMPS numbers its releases by their date: 20250722.
    const int date = lmp->num_ver;
    try {
      const auto found =
          mlip::read_validation(archive, "lammps", fmt::format("{}.{}.{}", date / 10000, date / 100 % 100, date % 100));
      problem = found.problem;
      in_doubt = found.in_doubt();
      if (problem.empty()) validated = found.record->describe();
    } catch (const mlip::Error& failure) {
      problem = failure.what();
    }
    if (!problem.empty()) {
      validated = in_doubt ? "no: " + problem : "no";
      problem += fmt::format(". Type: mlip validate {} --record -o validation", path);
      if (in_doubt && !strict_) error->warning(FLERR, "pair_style mlip: {}: {}", path, problem);
    }
  }
  int length = static_cast<int>(problem.size());
  MPI_Bcast(&length, 1, MPI_INT, 0, world);
  problem.resize(length);
  MPI_Bcast(problem.data(), length, MPI_CHAR, 0, world);
  if (strict_ && !problem.empty()) error->all(FLERR, "pair_style mlip strict yes: {}: {}", path, problem);
  return validated;
}

std::vector<mlip::SettingValues> PairMLIP::apply_settings() {
  std::vector<mlip::SettingValues> settings;
  std::vector<std::vector<double>> of_models;
  std::vector<double> values;
  try {
    mlip::GivenSettings given;
    for (const auto& [name, value] : settings_given_) {
      if (!utils::strmatch(value, "^v_")) {
        given.emplace_back(name, value);
        continue;
      }
      const int variable = input->variable->find(value.c_str() + 2);
      if (variable < 0) throw mlip::Error("setting '" + name + "': there is no variable '" + value.substr(2) + "'");
      if (!input->variable->equalstyle(variable))
        throw mlip::Error("setting '" + name + "': the variable '" + value.substr(2) + "' is not of style equal");
      given.emplace_back(name, input->variable->compute_equal(variable));
    }
    settings = committee_->settings(given);
    for (const auto& of_model : settings) {
      of_models.push_back(of_model.values());
      values.insert(values.end(), of_models.back().begin(), of_models.back().end());
    }
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
  for (std::size_t k = 0; k < models_.size(); ++k) models_[k]->set_settings(of_models[k]);
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
  described_settings_.clear();
  for (const auto& settings : apply_settings()) described_settings_.push_back(settings.describe());
  node_sets_.clear();
  node_set_of_.clear();
  for (std::size_t member = 0; member < committee_->size(); ++member) {
    const auto same = std::find_if(node_sets_.begin(), node_sets_.end(),
                                   [&](const Nodes& nodes) { return nodes.hops == hops(member); });
    node_set_of_.push_back(same - node_sets_.begin());
    if (same == node_sets_.end()) node_sets_.emplace_back().hops = hops(member);
  }

  // Ghosts out to the interaction range only where a model needs neighbours of neighbours on this rank.
  int request = NeighConst::REQ_FULL;
  if (most_hops() > 1) {
    request |= NeighConst::REQ_GHOST;
    widen_ghost_cutoff(halo() / units_.length_in_angstrom + neighbor->skin);
  } else {
    widen_ghost_cutoff(0.0);
  }
  neighbor->add_request(this, request);
  if (!setup_printed_) print_setup();
  setup_printed_ = true;
  close_pair_reported_ = false;
  seconds_total_ = processor_total_ = 0.0;
  backend_at_start_ = committee_->seconds_in_backend();
  exchange_at_start_ = exchange_.seconds();
  n_evaluations_ = 0;
}

void PairMLIP::widen_ghost_cutoff(double needed) {
  if (comm->cutghostuser != ghost_cutoff_set_) ghost_cutoff_of_user_ = comm->cutghostuser;
  comm->cutghostuser = ghost_cutoff_set_ = std::max(ghost_cutoff_of_user_, needed);
}

int PairMLIP::hops(std::size_t member) const {
  const auto& contract = models_[member]->contract();
  return contract.parallel == mlip::Parallel::halo && comm->nprocs > 1 ? std::max(1, contract.message_passing_layers)
                                                                       : 1;
}

int PairMLIP::most_hops() const {
  int most = 1;
  for (std::size_t member = 0; member < models_.size(); ++member) most = std::max(most, hops(member));
  return most;
}

double PairMLIP::halo() const {
  double farthest = 0.0;
  for (std::size_t member = 0; member < models_.size(); ++member)
    farthest = std::max(farthest, hops(member) * models_[member]->contract().cutoff);
  return farthest;
}

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
  for (const auto& model : models_)
    if (lmp->citeme)
      lmp->citeme->add(
          fmt::format("pair_style mlip with {}:\n\n{}\n\n", model->contract().model_name, model->contract().citation));
  if (comm->me != 0) return;
  const int n_devices = mlip::cuda_device_count();
  const auto settings = [&](std::size_t member) {
    const std::string& described = described_settings_[member];
    return described.empty() ? "" : fmt::format("  settings  {}\n", described);
  };
  const auto reach = [&](std::size_t member) {
    const auto& of_member = models_[member]->contract();
    std::string parallel = mlip::to_string(of_member.parallel);
    if (comm->nprocs == 1)
      parallel = "ghosts folded onto owners";
    else if (hops(member) > 1)
      parallel += fmt::format(", ghosts and their edges out to {:.3g} Å", hops(member) * of_member.cutoff);
    return fmt::format("  cutoff    {:.3g} Å, {} message-passing layer(s), {}\n", of_member.cutoff,
                       of_member.message_passing_layers, parallel);
  };
  utils::logmesg(lmp,
                 "pair_style mlip\n"
                 "  model     {} ({}), {}\n"
                 "  source    {}, written by {} with torch {}\n"
                 "  energies  {}\n"
                 "  validated {}\n"
                 "  self-test {}\n"
                 "  device    {}{}{}, {} thread(s) on each of {} MPI rank(s)\n"
                 "  types    {}\n"
                 "{}{}",
                 contract.model_name, contract.model_family, mlip::to_string(contract.precision), model_->path(),
                 contract.producer, contract.torch_version, contract.energy_frame, validated_[0],
                 options_.self_test ? model_->self_test() : "left out (self_test no)", model_->device(),
                 model_->device() == "cpu" ? "" : fmt::format(" (precision {})", mlip::to_string(model_->products())),
                 n_devices > 1 && comm->nprocs > 1 ? fmt::format(" on rank 0, of {} on its node", n_devices) : "",
                 mlip::model_threads(), comm->nprocs, elements, settings(0), reach(0));
  if (committee_->size() == 1) return;
  for (std::size_t member = 1; member < committee_->size(); ++member) {
    const auto& of_member = models_[member]->contract();
    utils::logmesg(lmp, "  member    {} ({}), {}, {}\n  energies  {}\n  validated {}\n{}{}", of_member.model_name,
                   of_member.model_family, mlip::to_string(of_member.precision), models_[member]->path(),
                   of_member.energy_frame, validated_[member], settings(member), reach(member));
  }
  utils::logmesg(lmp, "  committee {}{}\n",
                 drive_ == mlip::Drive::mean ? "the mean of all members drives" : "the first model drives",
                 deviation_every_ > 0
                     ? fmt::format(", deviations every {} steps into {}", deviation_every_, deviation_file_)
                     : "");
}

// Before the first evaluation, so that a run which is about to exhaust the memory has said how large it is.
void PairMLIP::print_graph() {
  graph_printed_ = true;
  const Nodes& nodes = nodes_of(0);
  const auto n_nodes = static_cast<double>(nodes.atoms.size());
  const auto n_owned = static_cast<double>(nodes.n_owned);
  const auto n_edges = static_cast<double>(step_->count_edges(positions(), units_.length_in_angstrom));
  const double local[5] = {n_owned, n_nodes - n_owned, n_edges, memory_usage(),
                           static_cast<double>(model_->exchange_bytes()) * n_nodes};
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

void* PairMLIP::extract(const char* name, int& dimension) {
  dimension = 0;
  // What fix adapt and compute fep ask a pair style for.
  if (std::string(name) == "scale")
    error->all(FLERR,
               "pair_style mlip has no 'scale' for pairs of types, as its energy is not a sum over pairs. To scale the "
               "whole model with a variable, type: pair_style hybrid/scaled v_NAME mlip");
  const std::string wanted = name;
  if (!wanted.ends_with("_flag")) return nullptr;
  Extra* extra = find_extra(wanted.substr(0, wanted.size() - 5));
  if (extra == nullptr) return nullptr;
  extra->has_flag = true;
  return &extra->wanted_now;
}

void* PairMLIP::extract_peratom(const char* name, int& columns) {
  columns = 0;
  Extra* extra = find_extra(name);
  if (extra == nullptr) return nullptr;
  if (extra == &grade_ || extra == &uncertainty_)
    if (const std::string reason = why_not(extra->name); !reason.empty())
      error->all(FLERR, "pair_style mlip: {}", reason);
  extra->asked_for = true;
  return extra->of_atom.data();
}

PairMLIP::Extra* PairMLIP::find_extra(const std::string& name) {
  if (committee_ && name == grade_.name) return &grade_;
  if (committee_ && name == uncertainty_.name) return &uncertainty_;
  if (committee_ && committee_->size() > 1 && name == deviation_.name) return &deviation_;
  for (auto& extra : extras_)
    if (extra.name == name) return &extra;
  return nullptr;
}

double PairMLIP::init_one(int i, int j) {
  if (setflag[i][j] == 0) error->all(FLERR, "pair_style mlip: types {} and {} have no pair_coeff", i, j);
  const double cutoff = committee_->largest_cutoff() / units_.length_in_angstrom;
  cutghost[i][j] = cutghost[j][i] = cutoff;
  return cutoff;
}
