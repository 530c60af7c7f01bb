// Vectors and the boxes that three of them span.
#pragma once

#include <array>
#include <cmath>

namespace mlip {

using Vector = std::array<double, 3>;
using Box = std::array<Vector, 3>;  // rows are the vectors that span it

inline Vector cross(const Vector& a, const Vector& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

inline double norm(const Vector& a) { return std::sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2]); }

inline double determinant(const Box& box) {
  const Vector normal = cross(box[0], box[1]);
  return normal[0] * box[2][0] + normal[1] * box[2][1] + normal[2] * box[2][2];
}

/// x · inverse(box) are the fractional coordinates of x, a row.
inline Box inverse(const Box& box) {
  const double volume = determinant(box);
  Box found;
  for (int column = 0; column < 3; ++column) {
    const Vector reciprocal = cross(box[(column + 1) % 3], box[(column + 2) % 3]);
    for (int row = 0; row < 3; ++row) found[row][column] = reciprocal[row] / volume;
  }
  return found;
}

inline std::array<double, 9> flat(const Box& box) {
  std::array<double, 9> rows;
  for (int k = 0; k < 9; ++k) rows[k] = box[k / 3][k % 3];
  return rows;
}

}  // namespace mlip
