// The features of ghosts over MPI, on several ranks: rows of lent atoms alone against whole matrices, and both against
// what their owners have.
#include <mpi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "lammps/ghost_exchange.h"
#include "unit/expect.h"

namespace {

using mlip::testing::expect;

constexpr std::int64_t width = 3;

/// Of component c of atom `atom` of rank `rank`.
template <typename T>
T value(int rank, int atom, std::int64_t c) {
  return static_cast<T>(100 * rank + 10 * atom + static_cast<int>(c));
}

template <typename T>
void test_rows(int rank, int n_ranks) {
  const auto precision = sizeof(T) == 4 ? mlip::Precision::float32 : mlip::Precision::float64;
  const auto n_of = [](int of_rank) { return of_rank == 1 ? 0 : 4 + of_rank; };  // one rank has no atoms
  const int n_owned = n_of(rank);
  std::vector<int> node_of;  // nodes stand in another order than atoms
  for (int atom = 0; atom < n_owned; ++atom) node_of.push_back(n_owned - 1 - atom);
  std::vector<mlip::GhostExchange::Owner> ghosts;
  for (int other = 0; other < n_ranks; ++other)
    if (other != rank)
      for (int atom = 0; atom < n_of(other); atom += 2) ghosts.push_back({other, atom});
  mlip::GhostExchange exchange(MPI_COMM_WORLD);
  exchange.plan(ghosts, node_of);

  const mlip::LentNodes& lent = *exchange.lent();
  expect(lent.nodes.size() == (n_owned + 1u) / 2, "every other atom is lent, once");
  const auto n_lent = static_cast<std::int64_t>(lent.nodes.size());
  const auto n_ghosts = static_cast<std::int64_t>(ghosts.size());
  std::vector<T> whole((n_owned + n_ghosts) * width), few((n_lent + n_ghosts) * width);
  for (int atom = 0; atom < n_owned; ++atom)
    for (std::int64_t c = 0; c < width; ++c) whole[node_of[atom] * width + c] = value<T>(rank, atom, c);
  for (std::int64_t k = 0; k < n_lent; ++k)
    for (std::int64_t c = 0; c < width; ++c) few[k * width + c] = whole[lent.nodes[k] * width + c];
  const mlip::FeatureRows of_whole{whole.data(), precision, n_owned, n_owned + n_ghosts, width};
  const mlip::FeatureRows of_few{few.data(), precision, n_lent, n_lent + n_ghosts, width, true};
  exchange.gather(of_whole);
  exchange.gather(of_few);
  for (std::int64_t k = 0; k < n_ghosts; ++k)
    for (std::int64_t c = 0; c < width; ++c) {
      const T expected = value<T>(ghosts[k].rank, ghosts[k].atom, c);
      expect(whole[(n_owned + k) * width + c] == expected, "a ghost's row in a whole matrix");
      expect(few[(n_lent + k) * width + c] == expected, "a ghost's row beside lent ones");
    }

  exchange.scatter_add(of_whole);
  exchange.scatter_add(of_few);
  int others_with_ghosts = 0;
  for (int other = 0; other < n_ranks; ++other) others_with_ghosts += other != rank;
  for (int atom = 0; atom < n_owned; atom += 2)
    for (std::int64_t c = 0; c < width; ++c)
      expect(whole[node_of[atom] * width + c] == (1 + others_with_ghosts) * value<T>(rank, atom, c),
             "every rank's ghost is added to its owner");
  for (std::int64_t k = 0; k < n_lent; ++k)
    for (std::int64_t c = 0; c < width; ++c)
      expect(few[k * width + c] == whole[lent.nodes[k] * width + c], "the same sums in rows of lent atoms");
}

}  // namespace

int main(int n, char** arguments) {
  MPI_Init(&n, &arguments);
  int rank = 0, n_ranks = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &n_ranks);
  expect(n_ranks > 1, "there are several ranks");
  test_rows<float>(rank, n_ranks);
  test_rows<double>(rank, n_ranks);
  const int failures = mlip::testing::report();
  MPI_Finalize();
  return failures;
}
