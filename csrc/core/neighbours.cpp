#include "core/neighbours.h"

#include <vesin.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>

#include "core/error.h"

namespace mlip {
namespace {

using Vector = std::array<double, 3>;

/// Å beyond the cutoff. Atoms of a solid or liquid near room temperature take some tens of steps to move half of it.
constexpr double kSkin = 0.5;

Vector cross(const Vector& a, const Vector& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

double norm(const Vector& a) { return std::sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2]); }

/// Replace the vectors of non-periodic directions, which may be zero or skewed, by unit vectors that are
/// perpendicular to the periodic ones: the list then depends on periodic vectors only.
void complete_cell(std::array<Vector, 3>& cell, const std::array<bool, 3>& periodic) {
  const int n_periodic = periodic[0] + periodic[1] + periodic[2];
  if (n_periodic == 3) return;
  if (n_periodic == 0) {
    cell = {Vector{1, 0, 0}, Vector{0, 1, 0}, Vector{0, 0, 1}};
    return;
  }
  if (n_periodic == 1) {
    const int p = periodic[0] ? 0 : periodic[1] ? 1 : 2;
    int smallest = 0;
    for (int axis = 1; axis < 3; ++axis)
      if (std::fabs(cell[p][axis]) < std::fabs(cell[p][smallest])) smallest = axis;
    Vector helper{};
    helper[smallest] = 1.0;
    Vector first = cross(cell[p], helper);
    const double length = norm(first);
    if (length > 0)
      for (double& value : first) value /= length;
    cell[(p + 1) % 3] = first;
    Vector second = cross(cell[p], first);
    const double second_length = norm(second);
    if (second_length > 0)
      for (double& value : second) value /= second_length;
    cell[(p + 2) % 3] = second;
    return;
  }
  const int open = !periodic[0] ? 0 : !periodic[1] ? 1 : 2;
  Vector normal = cross(cell[(open + 1) % 3], cell[(open + 2) % 3]);
  const double length = norm(normal);
  if (length > 0)
    for (double& value : normal) value /= length;
  cell[open] = normal;
}

}  // namespace

struct NeighbourList::Search {
  VesinNeighborList vesin;
  Search() = default;
  ~Search() { vesin_free(&vesin); }
};

NeighbourList::NeighbourList() : search_(std::make_unique<Search>()) {}
NeighbourList::~NeighbourList() = default;
NeighbourList::NeighbourList(NeighbourList&&) noexcept = default;

void NeighbourList::build(const double* positions, std::int64_t n_atoms, const std::array<double, 9>& cell,
                          const std::array<bool, 3>& periodic, double cutoff, Graph& graph) {
  for (std::int64_t k = 0; k < 3 * n_atoms; ++k)
    if (!std::isfinite(positions[k]))
      throw Error(
          "position of atom " + std::to_string(k / 3) +
          " (counted from 0) is not finite: " + std::to_string(positions[k]) +
          ". The simulation has blown up: check the starting structure, minimise it, or use a smaller timestep");
  graph.clear_edges();
  if (n_atoms == 0) return;

  const Request request{n_atoms, cell, periodic, cutoff};
  const bool same_system = request == request_;
  request_ = request;
  if (!same_system || farthest_move_squared(positions) > 0.25 * skin_ * skin_)
    // In a cell that changes with every call a skin would only cost.
    find_candidates(positions, same_system ? kSkin : 0.0);
  write_edges(positions, graph);
}

double NeighbourList::farthest_move_squared(const double* positions) const {
  double farthest = 0.0;
  for (std::int64_t k = 0; k < request_.n_atoms; ++k) {
    const double move[3] = {positions[3 * k] - found_at_[3 * k], positions[3 * k + 1] - found_at_[3 * k + 1],
                            positions[3 * k + 2] - found_at_[3 * k + 2]};
    farthest = std::max(farthest, move[0] * move[0] + move[1] * move[1] + move[2] * move[2]);
  }
  return farthest;
}

void NeighbourList::find_candidates(const double* positions, double skin) {
  const auto [n_atoms, cell, periodic, cutoff] = request_;
  request_.n_atoms = -1;  // nothing is found yet, should vesin throw
  std::array<Vector, 3> box;
  for (int row = 0; row < 3; ++row) box[row] = {cell[3 * row], cell[3 * row + 1], cell[3 * row + 2]};
  complete_cell(box, periodic);
  const Vector normal = cross(box[0], box[1]);
  const double volume = std::fabs(normal[0] * box[2][0] + normal[1] * box[2][1] + normal[2] * box[2][2]);
  if ((periodic[0] || periodic[1] || periodic[2]) && !(volume > 1e-6))
    throw Error("the periodic cell has no volume. Set the cell vectors, or make the system non-periodic");

  VesinOptions options{};
  options.cutoff = cutoff + skin;
  options.full = true;
  options.sorted = false;  // by centre is enough, and done below
  options.algorithm = VesinAutoAlgorithm;
  options.n_threads = 1;
  options.return_shifts = true;

  double vesin_box[3][3];
  for (int row = 0; row < 3; ++row)
    for (int axis = 0; axis < 3; ++axis) vesin_box[row][axis] = box[row][axis];
  const char* message = nullptr;
  const int status =
      vesin_neighbors(reinterpret_cast<const double (*)[3]>(positions), static_cast<size_t>(n_atoms), vesin_box,
                      periodic.data(), VesinDevice{VesinCPU, 0}, options, &search_->vesin, &message);
  if (status != 0) throw Error(std::string("neighbour list: ") + (message ? message : "vesin failed"));

  const VesinNeighborList& list = search_->vesin;
  first_.assign(static_cast<std::size_t>(n_atoms) + 1, 0);
  for (size_t k = 0; k < list.length; ++k) ++first_[list.pairs[k][0] + 1];
  std::partial_sum(first_.begin(), first_.end(), first_.begin());
  std::vector<std::int64_t> next(first_.begin(), first_.end() - 1);
  neighbours_.resize(list.length);
  images_.resize(list.length);
  shifts_.clear();
  std::map<std::array<int, 3>, int> image_of;
  for (size_t k = 0; k < list.length; ++k) {
    const std::array<int, 3> s = {list.shifts[k][0], list.shifts[k][1], list.shifts[k][2]};
    const auto [image, is_new] = image_of.try_emplace(s, static_cast<int>(shifts_.size()));
    if (is_new) {
      Vector shift;
      for (int axis = 0; axis < 3; ++axis)
        shift[axis] = s[0] * box[0][axis] + s[1] * box[1][axis] + s[2] * box[2][axis];
      shifts_.push_back(shift);
    }
    const std::int64_t place = next[list.pairs[k][0]]++;
    neighbours_[place] = static_cast<int>(list.pairs[k][1]);
    images_[place] = image->second;
  }
  found_at_.assign(positions, positions + 3 * n_atoms);
  skin_ = skin;
  request_.n_atoms = n_atoms;
}

void NeighbourList::write_edges(const double* positions, Graph& graph) const {
  graph.centres.reserve(neighbours_.size());
  graph.neighbours.reserve(neighbours_.size());
  graph.vectors.reserve(3 * neighbours_.size());
  const double cutoff_squared = request_.cutoff * request_.cutoff;
  for (std::int64_t i = 0; i < request_.n_atoms; ++i) {
    const double* centre = positions + 3 * i;
    for (std::int64_t k = first_[i]; k < first_[i + 1]; ++k) {
      const double* neighbour = positions + 3 * static_cast<std::int64_t>(neighbours_[k]);
      const Vector& shift = shifts_[images_[k]];
      const double r[3] = {neighbour[0] - centre[0] + shift[0], neighbour[1] - centre[1] + shift[1],
                           neighbour[2] - centre[2] + shift[2]};
      if (r[0] * r[0] + r[1] * r[1] + r[2] * r[2] < cutoff_squared) graph.add_edge(i, neighbours_[k], r);
    }
  }
}

}  // namespace mlip
