#include "fix_mlip_guard.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "file_names.h"
#include "force.h"
#include "input.h"
#include "memory.h"
#include "pair_mlip.h"
#include "universe.h"
#include "update.h"
#include "utils.h"

using namespace LAMMPS_NS;
using namespace FixConst;

namespace {
constexpr double default_spacing = 0.5;  // Å
}

FixMLIPGuard::FixMLIPGuard(LAMMPS* lmp, int narg, char** arg) : Fix(lmp, narg, arg) {
  parse(narg, arg);
  scalar_flag = vector_flag = peratom_flag = 1;
  size_vector = n_summary - 1;
  size_peratom_cols = static_cast<int>(quantities_.size());
  extscalar = extvector = 0;
  global_freq = 1;  // the last check is always there
  peratom_freq = nevery;
  open_dump();
  if (stops_) require_folder_of_restart();
}

FixMLIPGuard::~FixMLIPGuard() { memory->destroy(array_atom); }

void FixMLIPGuard::parse(int narg, char** arg) {
  const char* const usage =
      "fix ID group mlip/guard N [grade G] [deviation D] [uncertainty U] [action warn|stop] [dump FILE] [max M] "
      "[spacing X] [restart FILE]";
  if (narg < 4) error->all(FLERR, "fix mlip/guard: expected '{}'", usage);
  nevery = utils::inumeric(FLERR, arg[3], false, lmp);
  if (nevery < 1) error->all(FLERR, "fix mlip/guard: N is {}, expected 1 or more steps", nevery);
  for (int k = 4; k < narg; k += 2) {
    const std::string keyword = arg[k];
    if (k + 1 == narg) error->all(FLERR, "fix mlip/guard: keyword '{}' needs a value", keyword);
    const std::string value = arg[k + 1];
    const auto positive = [&] {
      const double number = utils::numeric(FLERR, value, false, lmp);
      if (number <= 0.0) error->all(FLERR, "fix mlip/guard: {} is {}, expected a number above 0", keyword, value);
      return number;
    };
    const auto quantity = std::find_if(quantities_.begin(), quantities_.end(),
                                       [&](const Quantity& known) { return known.keyword == keyword; });
    if (quantity != quantities_.end()) {
      quantity->threshold = positive();
    } else if (keyword == "action") {
      if (value != "warn" && value != "stop")
        error->all(FLERR, "fix mlip/guard: action '{}' is neither warn nor stop", value);
      stops_ = value == "stop";
    } else if (keyword == "dump") {
      dump_name_ = mlip::of_partition(value, *universe);
    } else if (keyword == "max") {
      max_frames_ = utils::inumeric(FLERR, value, false, lmp);
      if (max_frames_ < 0) error->all(FLERR, "fix mlip/guard: max is {}, expected a number of frames", max_frames_);
    } else if (keyword == "spacing") {
      spacing_ = positive();
    } else if (keyword == "restart") {
      restart_name_ = value;
    } else {
      error->all(FLERR, "fix mlip/guard: unknown keyword '{}'. Expected: {}", keyword, usage);
    }
  }
  restart_name_ = mlip::of_partition(restart_name_, *universe);
  if (std::none_of(quantities_.begin(), quantities_.end(), [](const Quantity& q) { return q.guarded(); }))
    error->all(FLERR, "fix mlip/guard: nothing is guarded. Give a threshold: fix {} {} mlip/guard {} grade 1.5", id,
               arg[1], nevery);
}

// Before step 0: a run does not find out at its first alarm that there is no file.
void FixMLIPGuard::open_dump() {
  if (dump_name_.empty()) return;
  if (comm->me == 0) dump_.open(dump_name_, std::ios::app);
  require_writable(dump_.good(), dump_name_, "dump");
}

// The file itself appears at an alarm.
void FixMLIPGuard::require_folder_of_restart() {
  const auto folder = std::filesystem::path(restart_name_).parent_path();
  require_writable(access(folder.empty() ? "." : folder.c_str(), W_OK) == 0, restart_name_, "restart");
}

/// @param writable as rank 0 found it
void FixMLIPGuard::require_writable(bool writable, const std::string& name, const char* keyword) {
  int failed = writable ? 0 : 1;
  MPI_Bcast(&failed, 1, MPI_INT, 0, world);
  if (failed) error->all(FLERR, "fix mlip/guard: '{}' cannot be written. Name another file: {} FILE", name, keyword);
}

int FixMLIPGuard::setmask() {
  return PRE_FORCE | PRE_FORCE_RESPA | MIN_PRE_FORCE | END_OF_STEP | MIN_POST_FORCE | POST_RUN;
}

void FixMLIPGuard::init() {
  pair_ = dynamic_cast<PairMLIP*>(force->pair_match("^mlip$", 0));
  if (pair_ == nullptr)
    error->all(FLERR, "fix mlip/guard: there is no pair_style mlip to guard, or more than one under hybrid");
  for (const Quantity& quantity : quantities_)
    if (quantity.guarded())
      if (const std::string reason = pair_->why_not(quantity.keyword); !reason.empty())
        error->all(FLERR, "fix mlip/guard: {} is guarded, but {}", quantity.keyword, reason);
  warned_ = false;
  checked_step_ = -1;
  n_checks_ = n_alarms_ = 0;
  worst_of_run_ = 0.0;
}

bool FixMLIPGuard::is_due() const { return update->ntimestep % nevery == 0; }

// ---- before a step's forces: ask for what is guarded --------------------------------------------------------------

void FixMLIPGuard::ask() {
  if (!is_due()) return;
  for (const Quantity& quantity : quantities_)
    if (quantity.guarded()) pair_->want(quantity.keyword);
}

void FixMLIPGuard::setup_pre_force(int /*vflag*/) { ask(); }
void FixMLIPGuard::setup_pre_force_respa(int /*vflag*/, int /*level*/) { ask(); }
void FixMLIPGuard::pre_force(int /*vflag*/) { ask(); }
void FixMLIPGuard::pre_force_respa(int /*vflag*/, int /*level*/, int /*iteration*/) { ask(); }
void FixMLIPGuard::min_pre_force(int /*vflag*/) { ask(); }

// ---- after it: look -----------------------------------------------------------------------------------------------

void FixMLIPGuard::setup(int /*vflag*/) { end_of_step(); }
void FixMLIPGuard::min_setup(int /*vflag*/) { end_of_step(); }
void FixMLIPGuard::min_post_force(int /*vflag*/) { end_of_step(); }

void FixMLIPGuard::end_of_step() {
  if (!is_due()) return;
  keep_values();
  find_worst();
  const bool alarm = summary_[ratio] > 1.0;
  // A minimiser evaluates a step more than once.
  const bool first_look = checked_step_ != update->ntimestep;
  checked_step_ = update->ntimestep;
  n_checks_ += first_look;
  if (!alarm) return;
  n_alarms_ += first_look;
  const bool written = write_frame();
  if (stops_) stop();
  if (comm->me == 0 && (written || !warned_)) error->warning(FLERR, message_);
  warned_ = true;
}

void FixMLIPGuard::keep_values() {
  if (array_atom == nullptr || n_kept_ < atom->nlocal) {
    n_kept_ = std::max(1, atom->nmax);
    memory->destroy(array_atom);
    memory->create(array_atom, n_kept_, static_cast<int>(quantities_.size()), "mlip/guard:array_atom");
  }
  for (std::size_t q = 0; q < quantities_.size(); ++q) {
    const bool guarded = quantities_[q].guarded();
    for (int i = 0; i < atom->nlocal; ++i)
      array_atom[i][q] = guarded && (atom->mask[i] & groupbit) ? pair_->values_of(quantities_[q].keyword)[i] : 0.0;
  }
}

void FixMLIPGuard::find_worst() {
  struct {
    double ratio;
    int rank;
  } mine{0.0, comm->me}, worst;
  int atom_found = -1;
  std::size_t quantity_found = 0;
  double n_above = 0.0;
  std::vector<double> largest(quantities_.size(), 0.0);
  for (int i = 0; i < atom->nlocal; ++i) {
    bool above = false;
    for (std::size_t q = 0; q < quantities_.size(); ++q) {
      if (!quantities_[q].guarded()) continue;
      const double found = array_atom[i][q] / quantities_[q].threshold;
      above |= found > 1.0;
      largest[q] = std::max(largest[q], array_atom[i][q]);
      if (found <= mine.ratio) continue;
      mine.ratio = found;
      atom_found = i;
      quantity_found = q;
    }
    n_above += above;
  }
  MPI_Allreduce(&mine, &worst, 1, MPI_DOUBLE_INT, MPI_MAXLOC, world);
  MPI_Allreduce(MPI_IN_PLACE, largest.data(), static_cast<int>(largest.size()), MPI_DOUBLE, MPI_MAX, world);
  MPI_Allreduce(MPI_IN_PLACE, &n_above, 1, MPI_DOUBLE, MPI_SUM, world);
  summary_ = {worst.ratio, largest[0],
              largest[1],  n_above,
              0.0,         static_cast<double>(n_frames_),
              largest[2],  pair_->energy_uncertainty()};
  worst_of_run_ = std::max(worst_of_run_, worst.ratio);
  if (worst.ratio <= 1.0) return;

  // The rank that owns the atom speaks for all.
  if (worst.rank == comm->me) {
    summary_[worst_id] = static_cast<double>(atom->tag[atom_found]);
    message_ = describe(atom_found, quantities_[quantity_found], array_atom[atom_found][quantity_found]);
  }
  MPI_Bcast(&summary_[worst_id], 1, MPI_DOUBLE, worst.rank, world);
  int length = static_cast<int>(message_.size());
  MPI_Bcast(&length, 1, MPI_INT, worst.rank, world);
  message_.resize(length);
  MPI_Bcast(message_.data(), length, MPI_CHAR, worst.rank, world);
}

std::string FixMLIPGuard::describe(int i, const Quantity& quantity, double value) const {
  const auto others = static_cast<bigint>(summary_[above]) - 1;
  const std::string near = pair_->surroundings(i);
  return fmt::format(
      "fix mlip/guard, step {}: atom {} has {} of {:.3g}, above {:g}{}. {}The model may not know such an "
      "environment, "
      "so that energy and forces may be wrong from here on{}",
      update->ntimestep, pair_->name_of_atom(i), quantity.name, value, quantity.threshold,
      others > 0 ? fmt::format("; {} more atom(s) above", others) : "",
      near.empty() ? "" : fmt::format("Near it: {}. ", near),
      dump_name_.empty() ? "" : fmt::format(": label the frames in {}", dump_name_));
}

// ---- frames -------------------------------------------------------------------------------------------------------

bool FixMLIPGuard::write_frame() {
  if (dump_name_.empty() || n_frames_ >= max_frames_) return false;
  const std::vector<double> forces = pair_->model_forces();
  // Of each atom that the models see: id, type, unwrapped position, position, forces, values.
  const int columns = 11 + static_cast<int>(quantities_.size());
  std::vector<double> rows;
  for (int i = 0; i < atom->nlocal; ++i) {
    if (pair_->element_of_type(atom->type[i]).empty()) continue;
    double unwrapped[3];
    domain->unmap(atom->x[i], atom->image[i], unwrapped);
    rows.push_back(static_cast<double>(atom->tag[i]));
    rows.push_back(atom->type[i]);
    rows.insert(rows.end(), unwrapped, unwrapped + 3);
    rows.insert(rows.end(), atom->x[i], atom->x[i] + 3);
    rows.insert(rows.end(), forces.begin() + 3 * i, forces.begin() + 3 * i + 3);
    rows.insert(rows.end(), array_atom[i], array_atom[i] + quantities_.size());
  }
  std::vector<int> counts(comm->nprocs), places(comm->nprocs, 0);
  const int count = static_cast<int>(rows.size());
  MPI_Gather(&count, 1, MPI_INT, counts.data(), 1, MPI_INT, 0, world);
  for (int rank = 1; rank < comm->nprocs; ++rank) places[rank] = places[rank - 1] + counts[rank - 1];
  std::vector<double> all(comm->me == 0 ? places.back() + counts.back() : 0);
  MPI_Gatherv(rows.data(), count, MPI_DOUBLE, all.data(), counts.data(), places.data(), MPI_DOUBLE, 0, world);
  int written = comm->me == 0 && is_new(all, columns);
  if (written) write(all, columns);
  MPI_Bcast(&written, 1, MPI_INT, 0, world);
  n_frames_ += written;
  summary_[frames] = n_frames_;
  return written;
}

bool FixMLIPGuard::is_new(const std::vector<double>& rows, int columns) {
  const double spacing = spacing_ > 0.0 ? spacing_ : default_spacing / pair_->units().length_in_angstrom;
  const std::size_t n_atoms = rows.size() / columns;
  bool moved = n_atoms != last_frame_.size();
  std::unordered_map<tagint, std::array<double, 3>> now;
  for (std::size_t k = 0; k < n_atoms; ++k) {
    const double* row = rows.data() + k * columns;
    const auto id = static_cast<tagint>(row[0]);
    now[id] = {row[2], row[3], row[4]};
    const auto before = last_frame_.find(id);
    if (before == last_frame_.end())
      moved = true;
    else
      moved |=
          std::hypot(row[2] - before->second[0], row[3] - before->second[1], row[4] - before->second[2]) >= spacing;
  }
  if (moved) last_frame_ = std::move(now);
  return moved;
}

void FixMLIPGuard::write(const std::vector<double>& rows, int columns) {
  const double length = pair_->units().length_in_angstrom;
  const double energy = pair_->units().energy_in_ev;
  const double force = energy / length;
  const auto in_ev = [&](Quantity::Unit unit) {
    return unit == Quantity::Unit::force ? force : unit == Quantity::Unit::energy ? energy : 1.0;
  };
  std::vector<const double*> atoms;
  for (std::size_t k = 0; k < rows.size() / columns; ++k) atoms.push_back(rows.data() + k * columns);
  std::sort(atoms.begin(), atoms.end(), [](const double* a, const double* b) { return a[0] < b[0]; });

  const double* h = domain->h;  // xx, yy, zz, yz, xz, xy
  const auto scaled = [&](double value) { return fmt::format("{:.10g}", length * value); };
  dump_ << atoms.size() << "\nLattice=\"" << scaled(h[0]) << " 0 0 " << scaled(h[5]) << " " << scaled(h[1]) << " 0 "
        << scaled(h[4]) << " " << scaled(h[3]) << " " << scaled(h[2])
        << "\" Properties=species:S:1:pos:R:3:model_forces:R:3";
  for (const Quantity& quantity : quantities_)
    if (quantity.guarded()) dump_ << ":" << quantity.keyword << ":R:1";
  dump_ << ":id:I:1 pbc=\"";
  for (int axis = 0; axis < 3; ++axis) dump_ << (axis > 0 ? " " : "") << (domain->periodicity[axis] ? "T" : "F");
  dump_ << "\" step=" << update->ntimestep << " alarm=\"" << message_ << "\"\n";
  for (const double* row : atoms) {
    dump_ << pair_->element_of_type(static_cast<int>(row[1]));
    for (int axis = 0; axis < 3; ++axis)
      dump_ << fmt::format(" {:.10f}", length * (row[5 + axis] - domain->boxlo[axis]));
    for (int axis = 0; axis < 3; ++axis) dump_ << fmt::format(" {:.8f}", force * row[8 + axis]);
    for (std::size_t q = 0; q < quantities_.size(); ++q)
      if (quantities_[q].guarded()) dump_ << fmt::format(" {:.8f}", row[11 + q] * in_ev(quantities_[q].unit));
    dump_ << " " << static_cast<tagint>(row[0]) << "\n";
  }
  dump_ << std::flush;
  if (!dump_.good())
    error->one(FLERR, "fix mlip/guard: '{}' could not be written at step {}. Is the disk full?", dump_name_,
               update->ntimestep);
}

// ---- ends ---------------------------------------------------------------------------------------------------------

void FixMLIPGuard::stop() {
  // As LAMMPS's own restarts during a run: without `noinit` it would set the system up anew.
  input->one("write_restart " + restart_name_ + " noinit");
  input->one(
      fmt::format("# stopped by fix {} mlip/guard", id));  // otherwise LAMMPS quotes write_restart as the line at fault
  error->all(FLERR, "{}. The run was stopped; {} holds its state", message_, restart_name_);
}

void FixMLIPGuard::post_run() {
  if (comm->me == 0 && n_alarms_ > 0)
    utils::logmesg(lmp,
                   "fix mlip/guard: {} of {} checks found atoms above the threshold, at most {:.3g} times it; {} "
                   "frame(s) written\n",
                   n_alarms_, n_checks_, worst_of_run_, n_frames_);
}

double FixMLIPGuard::compute_scalar() { return summary_[ratio]; }

double FixMLIPGuard::compute_vector(int k) { return summary_[1 + k]; }

double FixMLIPGuard::memory_usage() { return static_cast<double>(n_kept_) * quantities_.size() * sizeof(double); }
