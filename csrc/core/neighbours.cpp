#include "core/neighbours.h"

#include <vesin.h>

#include <cmath>
#include <string>

#include "core/error.h"

namespace mlip {
namespace {

using Vector = std::array<double, 3>;

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

struct NeighbourList::List {
  VesinNeighborList vesin;
  List() = default;
  ~List() { vesin_free(&vesin); }
};

NeighbourList::NeighbourList() : list_(std::make_unique<List>()) {}
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

  std::array<Vector, 3> box;
  for (int row = 0; row < 3; ++row) box[row] = {cell[3 * row], cell[3 * row + 1], cell[3 * row + 2]};
  complete_cell(box, periodic);
  const Vector normal = cross(box[0], box[1]);
  const double volume = std::fabs(normal[0] * box[2][0] + normal[1] * box[2][1] + normal[2] * box[2][2]);
  if ((periodic[0] || periodic[1] || periodic[2]) && !(volume > 1e-6))
    throw Error("the periodic cell has no volume. Set the cell vectors, or make the system non-periodic");

  VesinOptions options{};
  options.cutoff = cutoff;
  options.full = true;
  options.sorted = true;
  options.algorithm = VesinAutoAlgorithm;
  options.n_threads = 1;
  options.return_vectors = true;

  double vesin_box[3][3];
  for (int row = 0; row < 3; ++row)
    for (int axis = 0; axis < 3; ++axis) vesin_box[row][axis] = box[row][axis];
  const char* message = nullptr;
  const int status =
      vesin_neighbors(reinterpret_cast<const double (*)[3]>(positions), static_cast<size_t>(n_atoms), vesin_box,
                      periodic.data(), VesinDevice{VesinCPU, 0}, options, &list_->vesin, &message);
  if (status != 0) throw Error(std::string("neighbour list: ") + (message ? message : "vesin failed"));

  const VesinNeighborList& list = list_->vesin;
  graph.centres.reserve(list.length);
  graph.neighbours.reserve(list.length);
  graph.vectors.reserve(3 * list.length);
  const double cutoff_squared = cutoff * cutoff;
  for (size_t k = 0; k < list.length; ++k) {
    const double* r = list.vectors[k];
    if (r[0] * r[0] + r[1] * r[1] + r[2] * r[2] < cutoff_squared)
      graph.add_edge(static_cast<std::int64_t>(list.pairs[k][0]), static_cast<std::int64_t>(list.pairs[k][1]), r);
  }
}

}  // namespace mlip
