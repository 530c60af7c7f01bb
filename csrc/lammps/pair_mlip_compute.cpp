// What pair_style mlip does at every step: one evaluation, and its results to LAMMPS's atoms; and, once per rebuild of
// that list, the nodes of the graph and the plan by which features of ghosts travel.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <unordered_map>

#include "atom.h"
#include "comm.h"
#include "core/error.h"
#include "core/processor_time.h"
#include "domain.h"
#include "error.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "pair_mlip.h"
#include "update.h"
#include "utils.h"

using namespace LAMMPS_NS;

namespace {
using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }
}  // namespace

// Once per rebuild of LAMMPS's list, and where types have changed since: which atoms are nodes, and which pairs may
// become edges.
void PairMLIP::rebuild_candidates() {
  ask_owners_of_ghosts();
  type_at_rebuild_.assign(atom->type, atom->type + atom->nlocal);
  tag_at_rebuild_.assign(atom->tag, atom->tag + atom->nlocal);
  for (Nodes& nodes : node_sets_) {
    find_nodes(nodes);
    if (model_->device() == "cpu") nodes.candidates.sort_by_distance(positions());
  }
  for (std::size_t member = 0; member < committee_->size(); ++member) {
    const Nodes& nodes = nodes_of(member);
    committee_->set_candidates(member, nodes.candidates, nodes.types, nodes.n_owned);
  }
}

void PairMLIP::find_nodes(Nodes& nodes) {
  const int n_local = atom->nlocal;
  const int n_all = n_local + atom->nghost;
  const auto seen_by_model = [&](int i) { return type_to_element_[atom->type[i]] >= 0 && !(atom->mask[i] & absent_); };

  mlip::CandidateEdges& candidates = nodes.candidates;
  candidates.clear();
  candidates.node_of.assign(n_all, -1);
  nodes.types.clear();
  nodes.atoms.clear();
  const auto add_node = [&](int i) {
    candidates.node_of[i] = static_cast<int>(nodes.types.size());
    nodes.types.push_back(type_to_element_[atom->type[i]]);
    nodes.atoms.push_back(i);
  };
  for (int i = 0; i < n_local; ++i)
    if (seen_by_model(i)) add_node(i);
  nodes.n_owned = static_cast<std::int64_t>(nodes.types.size());

  // All images of an atom are one node, except in a halo, where each has its own edges.
  const bool fold = nodes.hops == 1;
  std::unordered_map<tagint, int> node_of_tag;
  if (fold) {
    node_of_tag.reserve(2 * n_local);
    for (int i = 0; i < n_local; ++i)
      if (candidates.node_of[i] >= 0) node_of_tag.emplace(atom->tag[i], candidates.node_of[i]);
  }

  // From the owned atoms outwards, one hop per message-passing layer. Ghosts become nodes as they are met, so that
  // the graph holds what owned energies depend on and not the corners of LAMMPS's ghost region.
  std::size_t begin = 0;
  std::size_t end = nodes.atoms.size();
  for (int hop = 0; hop < nodes.hops; ++hop) {
    for (std::size_t node = begin; node < end; ++node) {
      const int i = nodes.atoms[node];
      for (int jj = 0; jj < list->numneigh[i]; ++jj) {
        const int j = list->firstneigh[i][jj] & NEIGHMASK;
        if (candidates.node_of[j] < 0) {
          if (j < n_local || !seen_by_model(j)) continue;
          const auto found = node_of_tag.find(atom->tag[j]);
          if (found != node_of_tag.end()) {
            candidates.node_of[j] = found->second;
          } else {
            add_node(j);
            if (fold) node_of_tag.emplace(atom->tag[j], candidates.node_of[j]);
          }
        }
        candidates.neighbours.push_back(j);
      }
      candidates.close_centre(i);
    }
    begin = end;
    end = nodes.atoms.size();
  }
  const bool exchanges = std::any_of(models_.begin(), models_.end(), [](const auto& model) {
    return model->contract().parallel == mlip::Parallel::exchange;
  });
  if (comm->nprocs > 1 && fold && exchanges) plan_exchange(nodes);
}

// Who owns each ghost, and of what type it is: `set` changes owned atoms only. Collective.
void PairMLIP::ask_owners_of_ghosts() {
  owner_of_atom_.resize(atom->nlocal + atom->nghost);
  for (int i = 0; i < atom->nlocal; ++i) owner_of_atom_[i] = {comm->me, i};
  comm->forward_comm(this);
}

// Put ghost nodes in the order of their owners' ranks, and make the plan by which features travel. Collective.
void PairMLIP::plan_exchange(Nodes& nodes) {
  std::vector<int>& node_of = nodes.candidates.node_of;
  std::vector<int> ghosts(nodes.atoms.begin() + nodes.n_owned, nodes.atoms.end());
  std::stable_sort(ghosts.begin(), ghosts.end(),
                   [&](int a, int b) { return owner_of_atom_[a].rank < owner_of_atom_[b].rank; });
  std::vector<mlip::GhostExchange::Owner> owners;
  std::vector<int> new_node(nodes.types.size());
  for (std::size_t k = 0; k < ghosts.size(); ++k) {
    const int node = static_cast<int>(nodes.n_owned + k);
    new_node[node_of[ghosts[k]]] = node;
    nodes.atoms[node] = ghosts[k];
    nodes.types[node] = type_to_element_[atom->type[ghosts[k]]];
    owners.push_back(owner_of_atom_[ghosts[k]]);
  }
  for (int& node : node_of)
    if (node >= nodes.n_owned) node = new_node[node];
  exchange_.plan(owners, node_of);
}

int PairMLIP::pack_forward_comm(int n, int* list, double* buffer, int /*pbc_flag*/, int* /*pbc*/) {
  for (int k = 0; k < n; ++k) {
    *buffer++ = owner_of_atom_[list[k]].rank;
    *buffer++ = owner_of_atom_[list[k]].atom;
    *buffer++ = atom->type[list[k]];
  }
  return 3 * n;
}

void PairMLIP::unpack_forward_comm(int n, int first, double* buffer) {
  for (int i = first; i < first + n; ++i, buffer += 3) {
    owner_of_atom_[i] = {static_cast<int>(buffer[0]), static_cast<int>(buffer[1])};
    atom->type[i] = static_cast<int>(buffer[2]);
  }
}

const double* PairMLIP::positions() const { return atom->nlocal + atom->nghost > 0 ? atom->x[0] : nullptr; }

mlip::Cell PairMLIP::cell() const {
  const double* const h = domain->h;  // xx, yy, zz, yz, xz, xy
  mlip::Cell cell{{h[0], 0.0, 0.0, h[5], h[1], 0.0, h[4], h[3], h[2]}, {}};
  for (double& component : cell.vectors) component *= units_.length_in_angstrom;
  for (int axis = 0; axis < 3; ++axis) cell.periodic[axis] = domain->periodicity[axis] != 0;
  return cell;
}

mlip::StepRequest PairMLIP::wanted() {
  mlip::StepRequest request;
  request.virial = vflag_global;
  request.atom_virials = vflag_atom;
  request.centroid_virials = cvflag_atom;
  request.close_pair = !close_pair_reported_;
  request.extras = std::any_of(extras_.begin(), extras_.end(), [](const Extra& extra) { return extra.wanted(); });
  request.grades = grade_.wanted();
  request.uncertainties = uncertainty_.wanted();
  return request;
}

void PairMLIP::check_outputs(const mlip::Contract& contract) {
  if (eflag_atom && !contract.atomic_energies_meaningful)
    error->all(FLERR,
               "pair_style mlip: one atom's energy of {} is an arbitrary share of the sum, so that it has no meaning. "
               "Remove compute pe/atom, and what is made of it, from the input",
               contract.model_name);
  if ((vflag_atom || cvflag_atom) && contract.positions != mlip::Positions::none)
    error->all(FLERR,
               "pair_style mlip: {} has no virials of single atoms, since its energy depends on the positions of all "
               "atoms. Remove compute stress/atom, centroid/stress/atom and heat/flux from the input; the pressure is "
               "exact",
               contract.model_name);
}

void PairMLIP::compute(int eflag, int vflag) {
  const auto start = Clock::now();
  const double processor_start = mlip::processor_seconds();
  ev_init(eflag, vflag);
  for (std::size_t member = 0; member < committee_->n_driving(); ++member) check_outputs(models_[member]->contract());
  if (settings_vary_) apply_settings();
  const bool deviation = deviation_wanted();
  bool evaluated = false;  // the step's close pair is this step's
  try {
    const bool new_list = neighbor->ago == 0;
    if (new_list) check_hidden_pairs();
    if (new_list || types_have_changed()) rebuild_candidates();
    committee_->set_cell(cell());
    if (!graph_printed_) print_graph();
    // No early return without atoms: the exchange is collective.
    evaluated = true;
    committee_->evaluate(positions(), units_.length_in_angstrom, wanted(), deviation,
                         comm->nprocs > 1 ? &exchange_ : nullptr);
  } catch (const mlip::Error& failure) {
    // One rank may fail alone, so all are taken down with it.
    std::string message = fmt::format("pair_style mlip, step {}: {}", update->ntimestep, failure.what());
    if (evaluated && step_->result().close_pair.found()) message += ": " + describe_close_pair();
    if (comm->nprocs > 1) {
      // MPI_Abort may end the launcher before it has passed on what LAMMPS prints: say it first, and wait for it.
      std::fprintf(stderr, "ERROR on proc %d: %s\n", comm->me, message.c_str());
      std::fflush(stderr);
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
    }
    error->one(FLERR, message);
  }
  report_close_pair();
  for (std::size_t member = 0; member < committee_->n_driving(); ++member) accumulate(member);
  keep_extras(step_->result());
  if (deviation) find_deviations();
  grade_.wanted_next = uncertainty_.wanted_next = deviation_.wanted_next = false;
  seconds_total_ += seconds_since(start);
  processor_total_ += mlip::processor_seconds() - processor_start;
  ++n_evaluations_;
  pvector[0] = static_cast<double>(step_->result().n_edges);
  pvector[1] = committee_->seconds_in_backend() - backend_at_start_;
}

std::string PairMLIP::describe_close_pair() const {
  const mlip::ClosePair& pair = step_->result().close_pair;
  const std::vector<int>& atoms = nodes_of(0).atoms;
  return mlip::describe(pair, name_of_atom(atoms[pair.centre]), name_of_atom(atoms[pair.neighbour]));
}

// One rank speaks for all where all are together anyway: with a new list, as at set-up. In between the rank that finds
// a pair says so at once, since atoms that close may be lost before there is another list.
void PairMLIP::report_close_pair() {
  struct {
    double ratio;
    int rank;
  } mine{close_pair_reported_ ? 0.0 : step_->result().close_pair.ratio(), comm->me}, worst = mine;
  if (neighbor->ago == 0 && comm->nprocs > 1) MPI_Allreduce(&mine, &worst, 1, MPI_DOUBLE_INT, MPI_MINLOC, world);
  if (worst.ratio < 1.0 && worst.rank == comm->me && !close_pair_reported_)
    error->warning(FLERR, "pair_style mlip, step {}: {}", update->ntimestep, describe_close_pair());
  close_pair_reported_ |= worst.ratio < 1.0;
}

void PairMLIP::accumulate(std::size_t member) {
  const Nodes& nodes = nodes_of(member);
  const mlip::StepResult& result = committee_->step(member).result();
  const double energy_scale = committee_->weight() / units_.energy_in_ev;
  const auto add_to_atoms = [&](const std::vector<double>& of_node, int width, double scale, double** per_atom) {
    for (std::size_t node = 0; node < nodes.atoms.size(); ++node)
      for (int c = 0; c < width; ++c) per_atom[nodes.atoms[node]][c] += scale * of_node[width * node + c];
  };

  add_to_atoms(result.forces, 3, energy_scale * units_.length_in_angstrom, atom->f);
  if (eflag_global)
    for (const double energy : result.atomic_energies) eng_vdwl += energy_scale * energy;
  if (eflag_atom)
    for (std::int64_t node = 0; node < nodes.n_owned; ++node)
      eatom[nodes.atoms[node]] += energy_scale * result.atomic_energies[node];
  if (vflag_global) {
    const auto& w = result.virial;
    const double components[6] = {w[0], w[4], w[8], 0.5 * (w[1] + w[3]), 0.5 * (w[2] + w[6]), 0.5 * (w[5] + w[7])};
    for (int c = 0; c < 6; ++c) virial[c] += energy_scale * components[c];
  }
  if (vflag_atom) add_to_atoms(result.atom_virials, 6, energy_scale, vatom);
  if (cvflag_atom && !result.centroid_virials_inexact.empty() && !centroid_warned_ && comm->me == 0)
    error->warning(FLERR,
                   "pair_style mlip: centroid virials of {} add up to the exact virial, but a heat flux lacks what "
                   "messages carry between atoms, since {}",
                   models_[member]->contract().model_name, result.centroid_virials_inexact);
  centroid_warned_ |= cvflag_atom && !result.centroid_virials_inexact.empty();
  if (cvflag_atom) add_to_atoms(result.centroid_virials, 9, energy_scale, cvatom);
}

void PairMLIP::keep_extras(const mlip::StepResult& result) {
  const auto assign = [&](Extra& extra, const std::vector<double>& of_node) {
    // One more than there are atoms: the pointer must not be null on a rank without any.
    extra.of_atom.assign(atom->nlocal + 1, 0.0);
    for (std::int64_t node = 0; node < nodes_of(0).n_owned; ++node)
      extra.of_atom[nodes_of(0).atoms[node]] = of_node[node];
  };
  for (std::size_t k = 0; k < result.extras.size(); ++k) assign(extras_[k], result.extras[k]);
  if (uncertainty_.wanted()) {
    assign(uncertainty_, result.uncertainties);
    for (double& value : uncertainty_.of_atom) value /= units_.energy_in_ev;
    energy_uncertainty_ = result.energy_uncertainty / units_.energy_in_ev;
    pvector[9] = comm->me == 0 ? energy_uncertainty_ : 0.0;
  }
  if (!grade_.wanted()) return;
  assign(grade_, result.grades);
  const double largest = *std::max_element(grade_.of_atom.begin(), grade_.of_atom.end());
  double of_all = 0.0;
  MPI_Reduce(&largest, &of_all, 1, MPI_DOUBLE, MPI_MAX, 0, world);
  pvector[2] = of_all;
}

void PairMLIP::finish() {
  if (n_evaluations_ == 0 || comm->me != 0) return;
  const double model = committee_->seconds_in_backend() - backend_at_start_;
  const double exchanging = exchange_.seconds() - exchange_at_start_;
  const double outside = std::max(0.0, seconds_total_ - model);
  utils::logmesg(
      lmp,
      "pair_style mlip: {} evaluations, {} edges on rank 0, model {:.4g} ms each{}, outside the model {:.4g} ms "
      "({:.2f} %)\n",
      n_evaluations_, step_->result().n_edges, 1e3 * model / n_evaluations_,
      comm->nprocs == 1 ? "" : fmt::format(" ({:.4g} ms of it in exchanges)", 1e3 * exchanging / n_evaluations_),
      1e3 * outside / n_evaluations_, 100.0 * outside / std::max(model, 1e-12));
  if (model_->device() == "cpu")
    if (const std::string busy = mlip::busy_cores(processor_total_, seconds_total_); !busy.empty())
      error->warning(FLERR, "pair_style mlip: the process {}", busy);
}

double PairMLIP::memory_usage() {
  double bytes = Pair::memory_usage() + mlip::bytes_of(owner_of_atom_) + committee_->bytes();
  for (const Nodes& nodes : node_sets_)
    bytes += mlip::bytes_of(nodes.candidates.centres) + mlip::bytes_of(nodes.candidates.first) +
             mlip::bytes_of(nodes.candidates.neighbours) + mlip::bytes_of(nodes.candidates.node_of) +
             mlip::bytes_of(nodes.types) + mlip::bytes_of(nodes.atoms);
  return bytes;
}
