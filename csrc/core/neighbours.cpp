#include "core/neighbours.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <string>

#include "core/error.h"

namespace mlip {
namespace {

/// Å beyond the cutoff. Atoms of a solid or liquid near room temperature take some tens of steps to move half of it.
constexpr double kSkin = 0.5;

/// Replace the vectors of non-periodic directions, which may be zero or skewed, by unit vectors that are
/// perpendicular to the periodic ones: the list then depends on periodic vectors only.
void complete_cell(Box& cell, const std::array<bool, 3>& periodic) {
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

Box box_of(const std::array<double, 9>& cell, const std::array<bool, 3>& periodic) {
  Box box;
  for (int row = 0; row < 3; ++row) box[row] = {cell[3 * row], cell[3 * row + 1], cell[3 * row + 2]};
  complete_cell(box, periodic);
  return box;
}

constexpr Box identity = {Vector{1, 0, 0}, Vector{0, 1, 0}, Vector{0, 0, 1}};

/// What takes the vectors of one box to those of another.
Box deformation(const Box& from, const Box& to) {
  if (from == to) return identity;
  const Box reciprocal = inverse(from);
  Box map{};
  for (int row = 0; row < 3; ++row)
    for (int axis = 0; axis < 3; ++axis)
      for (int k = 0; k < 3; ++k) map[row][axis] += reciprocal[row][k] * to[k][axis];
  return map;
}

/// The Frobenius norm of what the deformation adds: no vector grows or shrinks by a larger part of its length.
double strain_of(const Box& deformation) {
  double squared = 0.0;
  for (int row = 0; row < 3; ++row)
    for (int axis = 0; axis < 3; ++axis)
      squared += (deformation[row][axis] - identity[row][axis]) * (deformation[row][axis] - identity[row][axis]);
  return std::sqrt(squared);
}

}  // namespace

NewCandidates NeighbourList::update(const double* positions, std::int64_t n_atoms, const std::array<double, 9>& cell,
                                    const std::array<bool, 3>& periodic, double cutoff) {
  for (std::int64_t k = 0; k < 3 * n_atoms; ++k)
    if (!std::isfinite(positions[k]))
      throw Error(
          "position of atom " + std::to_string(k / 3) +
          " (counted from 0) is not finite: " + std::to_string(positions[k]) +
          ". The simulation has blown up: check the starting structure, minimise it, or use a smaller timestep");

  const auto found = follow(n_atoms, cell, periodic, cutoff,
                            [&](const std::array<double, 9>& map) { return farthest_move(positions, map); });
  if (found) return *found;
  const Request request{n_atoms, periodic, cutoff};
  const Box box = box_of(cell, periodic);
  // Where the atoms or the whole cell are others with every call a skin would only cost.
  const bool pays = request == request_ && strain_of(deformation(box_, box)) * (cutoff + kSkin) < kSkin;
  request_ = request;
  box_ = box;
  find_candidates(positions, pays ? kSkin : 0.0);
  return NewCandidates::all;
}

std::optional<NewCandidates> NeighbourList::follow(std::int64_t n_atoms, const std::array<double, 9>& cell,
                                                   const std::array<bool, 3>& periodic, double cutoff,
                                                   const FarthestMove& farthest_move) {
  if (request_ != Request{n_atoms, periodic, cutoff}) return std::nullopt;
  const Box box = box_of(cell, periodic);
  const Box map = deformation(searched_box_, box);
  // A pair that was no candidate was at least cutoff + skin apart. The cell has brought it closer by the strain's part
  // of that at the most, and each of its atoms by its own move. Comparisons with NaN fail.
  const double room = skin_ - strain_of(map) * (cutoff + skin_);
  if (!(room >= 0.0) || !(2.0 * farthest_move(flat(map)) <= room)) return std::nullopt;
  if (box == box_) return NewCandidates::none;
  box_ = box;
  place_images();
  return NewCandidates::shifts;
}

double NeighbourList::farthest_move(const double* positions, const std::array<double, 9>& deformation) const {
  double farthest = 0.0;
  for (std::int64_t k = 0; k < request_.n_atoms; ++k) {
    const double* const x = &found_at_[3 * k];
    double squared = 0.0;
    for (int axis = 0; axis < 3; ++axis) {
      const double carried = x[0] * deformation[axis] + x[1] * deformation[3 + axis] + x[2] * deformation[6 + axis];
      squared += (positions[3 * k + axis] - carried) * (positions[3 * k + axis] - carried);
    }
    farthest = std::max(farthest, squared);
  }
  return std::sqrt(farthest);
}

void NeighbourList::find_candidates(const double* positions, double skin) {
  const std::int64_t n_atoms = request_.n_atoms;
  request_.n_atoms = -1;  // nothing is found yet, should anything throw
  candidates_.clear();
  image_at_.clear();
  candidates_.centres.resize(static_cast<std::size_t>(n_atoms));
  std::iota(candidates_.centres.begin(), candidates_.centres.end(), 0);
  candidates_.node_of = candidates_.centres;
  candidates_.first.assign(static_cast<std::size_t>(n_atoms) + 1, 0);
  if (n_atoms > 0) find_pairs(positions, n_atoms, request_.cutoff + skin);
  found_at_.assign(positions, positions + 3 * n_atoms);
  searched_box_ = box_;
  skin_ = skin;
  request_.n_atoms = n_atoms;
}

void NeighbourList::find_pairs(const double* positions, std::int64_t n_atoms, double cutoff) {
  const auto& periodic = request_.periodic;
  if ((periodic[0] || periodic[1] || periodic[2]) && !(std::fabs(determinant(box_)) > 1e-6))
    throw Error("the periodic cell has no volume. Set the cell vectors, or make the system non-periodic");
  PairSearch& search = search_ ? *search_ : on_host_;
  search.find(positions, n_atoms, box_, periodic, cutoff,
              {candidates_.first, candidates_.neighbours, candidates_.images, image_at_});
  place_images();
  if (!search_) candidates_.sort_by_distance(positions);
}

void NeighbourList::place_images() {
  candidates_.shifts.resize(image_at_.size());
  for (std::size_t k = 0; k < image_at_.size(); ++k)
    for (int axis = 0; axis < 3; ++axis)
      candidates_.shifts[k][axis] =
          image_at_[k][0] * box_[0][axis] + image_at_[k][1] * box_[1][axis] + image_at_[k][2] * box_[2][axis];
}

}  // namespace mlip
