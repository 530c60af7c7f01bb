// The host's side of device_pair_search.cu.
#include "model/device_pair_search.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "gpu/places_by_value.h"
#include "gpu/runtime.h"
#include "gpu/texts.h"
#include "model/device_edges.h"

namespace mlip {
namespace {

constexpr int threads_per_block = 128;

/// Å. Positions are put back into the cell and sorted into bins with rounding errors, which are smaller than this up to
/// 10^9 Å from the origin. So much farther than the cutoff the search looks: it finds more, never less.
constexpr double margin = 1e-6;

/// Eight bytes each, for each atom.
constexpr std::int64_t most_bins_per_atom = 8;

/// In cells from the origin: differences of two are whole numbers of 32 bits.
constexpr std::int64_t farthest_cell = 1 << 29;

/// As in device_pair_search.cu.
struct Arguments {
  std::int64_t n_atoms;
  const void* positions;
  double box[9], inverse[9];
  double lowest[3], bins_per_length[3];
  double farthest_cell;
  double cutoff_squared;
  int periodic[3], n_bins[3];
  int reach[3];
  void *bin, *cell, *inside;
  const void *atoms, *sorted_cell, *sorted_inside, *first_of_bin;
  void* n_pairs;
  const void* first_pair;
  void *neighbours, *shifts;
  std::int64_t lowest_shift[3], n_shifts[3];
};

/// Layers of the cell half a cutoff thick, or a little more, where a centre's neighbours are in the two next ones to
/// either side: 15.6 cubes of the cutoff hold the atoms to look at, with layers of a whole cutoff 27. Thinner ones come
/// down to 8, but then most bins of a solid are empty. Where there are too many bins, as in a box with much vacuum,
/// they are thicker.
/// @param a     without bins yet, all zero
/// @param reach Å, of the search
void choose_bins(Arguments& a, const double* positions, const Box& inverse, double reach) {
  double extent[3], height[3];  // of all bins, in fractional coordinates and in Å
  for (int k = 0; k < 3; ++k) {
    extent[k] = 1.0;
    if (!a.periodic[k]) {
      a.lowest[k] = std::numeric_limits<double>::infinity();
      double highest = -a.lowest[k];
      for (std::int64_t atom = 0; atom < a.n_atoms; ++atom) {
        const double* const x = positions + 3 * atom;
        const double fraction = x[0] * inverse[0][k] + x[1] * inverse[1][k] + x[2] * inverse[2][k];
        a.lowest[k] = std::min(a.lowest[k], fraction);
        highest = std::max(highest, fraction);
      }
      extent[k] = highest - a.lowest[k];
    }
    height[k] = extent[k] / norm({inverse[0][k], inverse[1][k], inverse[2][k]});
  }
  const double most = static_cast<double>(std::min(most_bins_per_atom * a.n_atoms, std::int64_t{1} << 30));
  double n[3];
  for (double thickness = 0.5 * reach;; thickness *= 1.1) {
    for (int k = 0; k < 3; ++k) n[k] = std::max(1.0, std::floor(height[k] / thickness));
    if (n[0] * n[1] * n[2] <= most) break;
  }
  for (int k = 0; k < 3; ++k) {
    a.n_bins[k] = static_cast<int>(n[k]);
    if (!a.periodic[k] && a.n_bins[k] == 1) continue;  // no other layer, and perhaps no height
    a.bins_per_length[k] = n[k] / extent[k];
    a.reach[k] = static_cast<int>(std::ceil(reach * n[k] / height[k]));
  }
}

class DevicePairSearch : public PairSearch {
 public:
  explicit DevicePairSearch(Model& model) : model_(model), device_(model.device()) {}

  void find(const double* positions, std::int64_t n_atoms, const Box& box, const std::array<bool, 3>& periodic,
            double cutoff, const FoundPairs& found) override {
    found.images.clear();
    found.shifts.clear();
    model_.guarded({n_atoms, n_atoms, -1}, [&] {
      Arguments a{};
      a.n_atoms = n_atoms;
      const Box inverse_box = inverse(box);
      const auto rows = flat(box), inverse_rows = flat(inverse_box);
      std::copy(rows.begin(), rows.end(), a.box);
      std::copy(inverse_rows.begin(), inverse_rows.end(), a.inverse);
      std::copy(periodic.begin(), periodic.end(), a.periodic);
      const double reach = cutoff + margin;
      a.farthest_cell = static_cast<double>(farthest_cell);
      a.cutoff_squared = reach * reach;
      choose_bins(a, positions, inverse_box, reach);
      search(a, positions, found);
    });
  }

 private:
  void search(Arguments& a, const double* positions, const FoundPairs& found) {
    const at::TensorOptions on_device = at::TensorOptions(device_), integers = on_device.dtype(at::kInt),
                            long_integers = on_device.dtype(at::kLong), reals = on_device.dtype(at::kDouble);
    const at::Tensor x = upload(positions, {a.n_atoms, 3}, device_);
    const at::Tensor bin = at::empty({a.n_atoms}, integers), cell = at::empty({a.n_atoms, 3}, integers),
                     inside = at::empty({a.n_atoms, 3}, reals);
    a.positions = x.const_data_ptr();
    a.bin = bin.mutable_data_ptr();
    a.cell = cell.mutable_data_ptr();
    a.inside = inside.mutable_data_ptr();
    launch("put_into_bins", a);

    const gpu::PlacesByValue atoms(bin, std::int64_t{a.n_bins[0]} * a.n_bins[1] * a.n_bins[2]);
    const at::Tensor sorted_cell = cell.index_select(0, atoms.order),
                     sorted_inside = inside.index_select(0, atoms.order),
                     n_pairs = at::zeros({a.n_atoms + 1}, long_integers);
    a.atoms = atoms.order.const_data_ptr();
    a.first_of_bin = atoms.first.const_data_ptr();
    a.sorted_cell = sorted_cell.const_data_ptr();
    a.sorted_inside = sorted_inside.const_data_ptr();
    a.n_pairs = n_pairs.mutable_data_ptr();
    launch("count_pairs", a);

    const at::Tensor first_pair = n_pairs.cumsum(0);
    // One look from the host at all that it must know.
    const at::Tensor facts =
        at::cat({first_pair.narrow(0, a.n_atoms, 1), cell.amin(0).to(at::kLong), cell.amax(0).to(at::kLong)})
            .to(at::kCPU);
    const std::int64_t* const fact = facts.const_data_ptr<std::int64_t>();
    const std::int64_t total = fact[0];
    count_shifts(a, fact + 1, fact + 4);
    const bool any_periodic = a.periodic[0] || a.periodic[1] || a.periodic[2];
    const at::Tensor neighbours = at::empty({total}, integers),
                     shifts = any_periodic ? at::empty({total}, long_integers) : at::Tensor();
    a.first_pair = first_pair.const_data_ptr();
    a.neighbours = neighbours.mutable_data_ptr();
    a.shifts = any_periodic ? shifts.mutable_data_ptr() : nullptr;
    launch("write_pairs", a);

    download(first_pair, found.first);
    download(neighbours, found.neighbours);
    if (!any_periodic || total == 0) return;
    const auto [numbers, images, counts] =
        at::_unique2(shifts, /*sorted=*/true, /*return_inverse=*/true, /*return_counts=*/false);
    download(images.to(at::kInt), found.images);
    std::vector<std::int64_t> occurring;
    download(numbers, occurring);
    for (std::int64_t number : occurring) {
      std::array<int, 3> shift;
      for (int k = 2; k >= 0; --k) {
        shift[k] = static_cast<int>(number % a.n_shifts[k] + a.lowest_shift[k]);
        number /= a.n_shifts[k];
      }
      found.shifts.push_back(shift);
    }
  }

  /// Which S may occur: the images that a centre reaches, and the cells in which atoms are apart.
  static void count_shifts(Arguments& a, const std::int64_t* lowest_cell, const std::int64_t* highest_cell) {
    double n = 1.0;
    for (int k = 0; k < 3; ++k) {
      const std::int64_t images = a.periodic[k] ? (a.n_bins[k] - 1 + a.reach[k]) / a.n_bins[k] : 0;
      a.lowest_shift[k] = -(images + highest_cell[k] - lowest_cell[k]);
      a.n_shifts[k] = 1 - 2 * a.lowest_shift[k];
      n *= static_cast<double>(a.n_shifts[k]);
      if (lowest_cell[k] <= -farthest_cell || highest_cell[k] >= farthest_cell || n > 9e18)
        throw Error("atoms are too many cells apart to search for neighbours. Put them back into the cell");
    }
  }

  template <typename Value>
  static void download(const at::Tensor& from, std::vector<Value>& to) {
    to.resize(static_cast<std::size_t>(from.numel()));
    at::from_blob(to.data(), {from.numel()}, c10::CppTypeToScalarType<Value>::value).copy_(from);
  }

  /// A thread for each atom.
  void launch(const char* name, const Arguments& arguments) const {
    gpu::runtime()
        .kernel(pair_search_source(), name, device_)
        ->launch((arguments.n_atoms + threads_per_block - 1) / threads_per_block, threads_per_block, 0, &arguments);
  }

  Model& model_;
  at::Device device_;
};

}  // namespace

std::unique_ptr<PairSearch> make_device_pair_search(Model& model, EdgesOn edges_on) {
  if (!makes_edges_on_device(model, edges_on) || !gpu::has_kernels(at::Device(model.device()))) return nullptr;
  return std::make_unique<DevicePairSearch>(model);
}

std::string pair_search_source() { return std::string(gpu::warp_text) + gpu::device_pair_search_text; }

}  // namespace mlip
