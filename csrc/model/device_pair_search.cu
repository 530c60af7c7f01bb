// GPU kernels for the search for pairs of atoms. Compiled at run time behind gpu/warp.cu by device_pair_search.cpp.
//
// Atoms are sorted into bins, layers between planes of the cell. A thread has a centre and goes through the bins around
// it, image by image of the cell. Bins along the third vector lie one behind the other, and so do their atoms: what is
// read is a few long rows. Threads beside each other have centres of one bin or of the next, so they read the same
// atoms. Nothing is shared and nothing waits: the order of the pairs depends on the positions alone.
//
// Pairs are counted by one kernel and written by another. They must decide alike, or one centre's pairs run into the
// next one's, but a compiler may contract a product and a sum to one operation here and not there. In the distance
// below it has no choice: each product is an operand of fma(), which is one operation wherever it stands.

struct PairSearchArguments {
  long long n_atoms;
  const double* positions;               // [n_atoms, 3] Å
  double box[9], inverse[9];             // rows are the cell's vectors, Å; x · inverse is fractional
  double lowest[3], bins_per_length[3];  // of the bins, in fractional coordinates
  double farthest_cell;                  // cells are counted as far as this
  double cutoff_squared;                 // Å²
  int periodic[3], n_bins[3];            // of each direction
  int reach[3];                          // bins to either side that may have neighbours
  // Of each atom:
  int* bin;        // [n_atoms]
  int* cell;       // [n_atoms, 3] the image of the cell that it is in
  double* inside;  // [n_atoms, 3] Å, put back into the cell
  // Sorted by their bins:
  const int* atoms;               // [n_atoms]
  const int* sorted_cell;         // [n_atoms, 3]
  const double* sorted_inside;    // [n_atoms, 3]
  const long long* first_of_bin;  // [all bins + 1] into them
  // Of the pairs:
  long long* n_pairs;                      // [n_atoms + 1] pairs of the atom before; [0] is 0
  const long long* first_pair;             // [n_atoms + 1]
  int* neighbours;                         // [total]
  long long* shifts;                       // [total] S as a number; null where nothing is periodic
  long long lowest_shift[3], n_shifts[3];  // of each direction: what the digits of these numbers mean
};

namespace {

/// Bins are counted on beyond the cell. @return which image of the cell has bin number `bin`
__device__ __forceinline__ int image_of_bin(int bin, int n_bins) {
  return bin >= 0 ? bin / n_bins : -((n_bins - 1 - bin) / n_bins);
}

/// @param visit called with the place of the neighbour among the sorted atoms, and with the image of the cell
template <typename Visit>
__device__ __forceinline__ void for_each_pair(const PairSearchArguments& a, long long centre, Visit& visit) {
  const int* const n = a.n_bins;
  const int bin = a.bin[a.atoms[centre]];
  const int bin_0 = bin / (n[1] * n[2]), bin_1 = bin / n[2] % n[1], bin_2 = bin % n[2];
  const double* const x = a.sorted_inside + 3 * centre;
  for (int b0 = bin_0 - a.reach[0]; b0 <= bin_0 + a.reach[0]; ++b0) {
    const int image_0 = image_of_bin(b0, n[0]);
    if (image_0 != 0 && !a.periodic[0]) continue;
    for (int b1 = bin_1 - a.reach[1]; b1 <= bin_1 + a.reach[1]; ++b1) {
      const int image_1 = image_of_bin(b1, n[1]);
      if (image_1 != 0 && !a.periodic[1]) continue;
      const long long row = (static_cast<long long>(b0 - image_0 * n[0]) * n[1] + (b1 - image_1 * n[1])) * n[2];
      const int low = bin_2 - a.reach[2], high = bin_2 + a.reach[2];
      for (int image_2 = image_of_bin(low, n[2]); image_2 <= image_of_bin(high, n[2]); ++image_2) {
        if (image_2 != 0 && !a.periodic[2]) continue;
        const int image[3] = {image_0, image_1, image_2};
        double from[3];  // where the centre is as this image sees it
        for (int axis = 0; axis < 3; ++axis)
          from[axis] = x[axis] - fma(static_cast<double>(image_2), a.box[6 + axis],
                                     fma(static_cast<double>(image_1), a.box[3 + axis], image_0 * a.box[axis]));
        const bool is_own = image_0 == 0 && image_1 == 0 && image_2 == 0;
        const int first = low - image_2 * n[2], last = high - image_2 * n[2];
        const long long end = a.first_of_bin[row + (last < n[2] ? last : n[2] - 1) + 1];
        for (long long place = a.first_of_bin[row + (first > 0 ? first : 0)]; place < end; ++place) {
          if (is_own && place == centre) continue;
          const double* const y = a.sorted_inside + 3 * place;
          const double r0 = y[0] - from[0], r1 = y[1] - from[1], r2 = y[2] - from[2];
          if (fma(r2, r2, fma(r1, r1, r0 * r0)) < a.cutoff_squared) visit(place, image);
        }
      }
    }
  }
}

struct Count {
  long long n = 0;
  __device__ __forceinline__ void operator()(long long, const int*) { ++n; }
};

struct Write {
  const PairSearchArguments& a;
  const int* cell;  // of the centre
  long long next;

  __device__ __forceinline__ void operator()(long long place, const int* image) {
    a.neighbours[next] = a.atoms[place];
    if (a.shifts) {
      long long number = 0;
      for (int axis = 0; axis < 3; ++axis) {
        const long long shift = image[axis] + cell[axis] - a.sorted_cell[3 * place + axis];
        number = number * a.n_shifts[axis] + (shift - a.lowest_shift[axis]);
      }
      a.shifts[next] = number;
    }
    ++next;
  }
};

}  // namespace

extern "C" __global__ void put_into_bins(const PairSearchArguments a) {
  const long long atom = thread_index();
  if (atom >= a.n_atoms) return;
  const double* const x = a.positions + 3 * atom;
  double cell[3];
  long long bin = 0;
  for (int k = 0; k < 3; ++k) {
    const double fraction = x[0] * a.inverse[k] + x[1] * a.inverse[3 + k] + x[2] * a.inverse[6 + k];
    // As far as whole numbers count; the host refuses what is at the limit.
    cell[k] = a.periodic[k] ? fmin(fmax(floor(fraction), -a.farthest_cell), a.farthest_cell) : 0.0;
    const double along = (fraction - cell[k] - a.lowest[k]) * a.bins_per_length[k];
    bin = bin * a.n_bins[k] + static_cast<int>(fmin(fmax(along, 0.0), a.n_bins[k] - 1.0));
    a.cell[3 * atom + k] = static_cast<int>(cell[k]);
  }
  a.bin[atom] = static_cast<int>(bin);
  for (int axis = 0; axis < 3; ++axis)
    a.inside[3 * atom + axis] =
        x[axis] - (cell[0] * a.box[axis] + cell[1] * a.box[3 + axis] + cell[2] * a.box[6 + axis]);
}

extern "C" __global__ void count_pairs(const PairSearchArguments a) {
  const long long centre = thread_index();
  if (centre >= a.n_atoms) return;
  Count count;
  for_each_pair(a, centre, count);
  a.n_pairs[a.atoms[centre] + 1] = count.n;
}

extern "C" __global__ void write_pairs(const PairSearchArguments a) {
  const long long centre = thread_index();
  if (centre >= a.n_atoms) return;
  Write write{a, a.sorted_cell + 3 * centre, a.first_pair[a.atoms[centre]]};
  for_each_pair(a, centre, write);
}
