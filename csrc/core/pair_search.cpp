#include "core/pair_search.h"

#include <vesin.h>

#include <map>
#include <numeric>
#include <string>

#include "core/error.h"

namespace mlip {

struct HostPairSearch::Vesin {
  VesinNeighborList list;
  Vesin() = default;
  ~Vesin() { vesin_free(&list); }
};

HostPairSearch::HostPairSearch() : vesin_(std::make_unique<Vesin>()) {}
HostPairSearch::~HostPairSearch() = default;
HostPairSearch::HostPairSearch(HostPairSearch&&) noexcept = default;

void HostPairSearch::find(const double* positions, std::int64_t n_atoms, const Box& box,
                          const std::array<bool, 3>& periodic, double cutoff, const FoundPairs& found) {
  VesinOptions options{};
  options.cutoff = cutoff;
  options.full = true;
  options.sorted = false;  // by centre is enough, and done below
  options.algorithm = VesinAutoAlgorithm;
  options.n_threads = n_threads_;
  options.return_shifts = true;

  double vesin_box[3][3];
  for (int row = 0; row < 3; ++row)
    for (int axis = 0; axis < 3; ++axis) vesin_box[row][axis] = box[row][axis];
  const char* message = nullptr;
  const int status =
      vesin_neighbors(reinterpret_cast<const double (*)[3]>(positions), static_cast<size_t>(n_atoms), vesin_box,
                      periodic.data(), VesinDevice{VesinCPU, 0}, options, &vesin_->list, &message);
  if (status != 0) throw Error(std::string("neighbour list: ") + (message ? message : "vesin failed"));

  const VesinNeighborList& list = vesin_->list;
  const bool any_periodic = periodic[0] || periodic[1] || periodic[2];
  found.first.assign(static_cast<std::size_t>(n_atoms) + 1, 0);
  for (size_t k = 0; k < list.length; ++k) ++found.first[list.pairs[k][0] + 1];
  std::partial_sum(found.first.begin(), found.first.end(), found.first.begin());
  std::vector<std::int64_t> next(found.first.begin(), found.first.end() - 1);
  found.neighbours.resize(list.length);
  found.images.resize(any_periodic ? list.length : 0);
  found.shifts.clear();
  std::map<std::array<int, 3>, int> image_of;
  for (size_t k = 0; k < list.length; ++k) {
    const std::int64_t place = next[list.pairs[k][0]]++;
    found.neighbours[place] = static_cast<int>(list.pairs[k][1]);
    if (!any_periodic) continue;
    const std::array<int, 3> s = {list.shifts[k][0], list.shifts[k][1], list.shifts[k][2]};
    const auto [image, is_new] = image_of.try_emplace(s, static_cast<int>(found.shifts.size()));
    if (is_new) found.shifts.push_back(s);
    found.images[place] = image->second;
  }
}

}  // namespace mlip
