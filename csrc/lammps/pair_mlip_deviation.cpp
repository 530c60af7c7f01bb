// How far apart the members of a committee are: model_devi.out, as DeePMD-kit writes it, scalars for compute pair and
// the deviation of every atom for dumps.
#include <algorithm>
#include <limits>
#include <string>

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "file_names.h"
#include "pair_mlip.h"
#include "universe.h"
#include "update.h"
#include "utils.h"

using namespace LAMMPS_NS;

// Before the first step, so that a run does not find out at its end that there is no file.
void PairMLIP::open_deviations() {
  deviations_.close();
  deviation_step_ = -1;
  if (deviation_every_ == 0) return;
  const std::string name = mlip::of_partition(deviation_file_, *universe);
  int failed = 0;
  if (comm->me == 0) {
    deviations_.clear();
    deviations_.open(name, std::ios::trunc);
    deviations_ << "#" << fmt::format("{:>11}", "step");
    for (const char* column : {"max_devi_v", "min_devi_v", "avg_devi_v", "max_devi_f", "min_devi_f", "avg_devi_f"})
      deviations_ << fmt::format("{:>19}", column);
    deviations_ << '\n' << std::flush;
    failed = !deviations_.good();
  }
  MPI_Bcast(&failed, 1, MPI_INT, 0, world);
  if (failed)
    error->all(FLERR, "pair_style mlip: '{}' cannot be written. Name another file: pair_style mlip out_file FILE",
               name);
}

bool PairMLIP::deviation_wanted() const {
  if (committee_->size() == 1) return false;
  return deviation_.wanted() || (deviation_every_ > 0 && update->ntimestep % deviation_every_ == 0);
}

std::vector<double> PairMLIP::forces_of(std::size_t member) {
  const Nodes& nodes = nodes_of(member);
  const std::vector<double>& of_node = committee_->step(member).result().forces;
  const double scale = units_.length_in_angstrom / units_.energy_in_ev;
  member_forces_.assign(3 * (atom->nlocal + atom->nghost), 0.0);
  for (std::size_t node = 0; node < nodes.atoms.size(); ++node)
    for (int axis = 0; axis < 3; ++axis)
      member_forces_[3 * nodes.atoms[node] + axis] = scale * of_node[3 * node + axis];
  comm->reverse_comm(this);
  return {member_forces_.begin(), member_forces_.begin() + 3 * atom->nlocal};
}

void PairMLIP::find_deviations() {
  std::vector<std::vector<double>> forces;     // on owned atoms, of each member
  std::vector<std::array<double, 9>> virials;  // of this rank
  for (std::size_t member = 0; member < committee_->size(); ++member) {
    forces.push_back(forces_of(member));
    virials.push_back(committee_->step(member).result().virial);
    for (double& component : virials.back()) component /= units_.energy_in_ev;
  }
  MPI_Allreduce(MPI_IN_PLACE, virials.data(), static_cast<int>(9 * virials.size()), MPI_DOUBLE, MPI_SUM, world);

  // One more than there are atoms, as for every extra output.
  deviation_.of_atom = mlip::force_deviations(forces);
  deviation_.of_atom.push_back(0.0);

  std::vector<double> of_model;  // of the atoms that it sees
  const Nodes& nodes = nodes_of(0);
  for (std::int64_t node = 0; node < nodes.n_owned; ++node) of_model.push_back(deviation_.of_atom[nodes.atoms[node]]);
  double sums[2] = {static_cast<double>(of_model.size()), 0.0};
  for (const double deviation : of_model) sums[1] += deviation;
  MPI_Allreduce(MPI_IN_PLACE, sums, 2, MPI_DOUBLE, MPI_SUM, world);
  mlip::DeviationSummary summary = mlip::summarize(of_model, mlip::virial_deviations(virials, sums[0]));
  // The least of a rank without atoms is none.
  double extremes[2] = {summary[3], of_model.empty() ? -std::numeric_limits<double>::infinity() : -summary[4]};
  MPI_Allreduce(MPI_IN_PLACE, extremes, 2, MPI_DOUBLE, MPI_MAX, world);
  summary[3] = extremes[0];
  summary[4] = sums[0] > 0.0 ? -extremes[1] : 0.0;
  summary[5] = sums[0] > 0.0 ? sums[1] / sums[0] : 0.0;

  // compute pair adds them up over ranks.
  for (std::size_t k = 0; k < summary.size(); ++k) pvector[3 + k] = comm->me == 0 ? summary[k] : 0.0;
  if (deviation_every_ > 0 && update->ntimestep % deviation_every_ == 0) write_deviations(summary);
}

// A minimiser evaluates a step more than once, and `run` its first step again: the last evaluation counts.
void PairMLIP::write_deviations(const mlip::DeviationSummary& summary) {
  if (comm->me != 0) return;
  if (update->ntimestep == deviation_step_)
    deviations_.seekp(deviation_line_);
  else
    deviation_line_ = deviations_.tellp();
  deviation_step_ = update->ntimestep;
  deviations_ << fmt::format("{:>12}", deviation_step_);
  for (const double value : summary) deviations_ << fmt::format("{:>19.6e}", value);
  deviations_ << '\n' << std::flush;
  if (!deviations_.good())
    error->one(FLERR, "pair_style mlip: '{}' could not be written at step {}. Is the disk full?", deviation_file_,
               deviation_step_);
}

int PairMLIP::pack_reverse_comm(int n, int first, double* buffer) {
  std::copy_n(member_forces_.data() + 3 * first, 3 * n, buffer);
  return 3 * n;
}

void PairMLIP::unpack_reverse_comm(int n, int* list, double* buffer) {
  for (int k = 0; k < n; ++k)
    for (int axis = 0; axis < 3; ++axis) member_forces_[3 * list[k] + axis] += *buffer++;
}
