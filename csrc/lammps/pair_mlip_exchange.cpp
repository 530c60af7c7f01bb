// mlip::Exchange over LAMMPS's forward and reverse communication.
//
// A row travels as raw bytes, padded to whole doubles, so float32 features cost half of what doubles would.
#include <cstring>

#include "comm.h"
#include "pair_mlip.h"

using namespace LAMMPS_NS;

int PairMLIP::doubles_per_row() const {
  const std::int64_t bytes = rows_.width * (rows_.precision == mlip::Precision::float32 ? 4 : 8);
  return static_cast<int>((bytes + 7) / 8);
}

void PairMLIP::Communication::gather(const mlip::FeatureRows& rows) {
  pair_.rows_ = rows;
  pair_.comm->forward_comm(&pair_, pair_.doubles_per_row());
}

void PairMLIP::Communication::scatter_add(const mlip::FeatureRows& rows) {
  pair_.rows_ = rows;
  pair_.comm->reverse_comm(&pair_, pair_.doubles_per_row());
}

int PairMLIP::pack_forward_comm(int n, int* list, double* buffer, int /*pbc_flag*/, int* /*pbc*/) {
  const int stride = doubles_per_row();
  const std::size_t bytes = rows_.width * (rows_.precision == mlip::Precision::float32 ? 4 : 8);
  for (int k = 0; k < n; ++k) {
    const int node = candidates_.node_of[list[k]];
    if (node >= 0)
      std::memcpy(buffer + static_cast<std::size_t>(k) * stride, static_cast<const char*>(rows_.data) + node * bytes,
                  bytes);
  }
  return n * stride;
}

void PairMLIP::unpack_forward_comm(int n, int first, double* buffer) {
  const int stride = doubles_per_row();
  const std::size_t bytes = rows_.width * (rows_.precision == mlip::Precision::float32 ? 4 : 8);
  for (int k = 0; k < n; ++k) {
    const int node = candidates_.node_of[first + k];
    if (node >= 0)
      std::memcpy(static_cast<char*>(rows_.data) + node * bytes, buffer + static_cast<std::size_t>(k) * stride, bytes);
  }
}

int PairMLIP::pack_reverse_comm(int n, int first, double* buffer) {
  const int stride = doubles_per_row();
  const std::size_t bytes = rows_.width * (rows_.precision == mlip::Precision::float32 ? 4 : 8);
  for (int k = 0; k < n; ++k) {
    const int node = candidates_.node_of[first + k];
    if (node >= 0)
      std::memcpy(buffer + static_cast<std::size_t>(k) * stride, static_cast<const char*>(rows_.data) + node * bytes,
                  bytes);
  }
  return n * stride;
}

template <typename T>
void PairMLIP::add_rows(int n, const int* list, const double* buffer) {
  const int stride = doubles_per_row();
  for (int k = 0; k < n; ++k) {
    const int node = candidates_.node_of[list[k]];
    if (node < 0) continue;
    const T* received = reinterpret_cast<const T*>(buffer + static_cast<std::size_t>(k) * stride);
    T* row = static_cast<T*>(rows_.data) + node * rows_.width;
    for (std::int64_t c = 0; c < rows_.width; ++c) row[c] += received[c];
  }
}

void PairMLIP::unpack_reverse_comm(int n, int* list, double* buffer) {
  if (rows_.precision == mlip::Precision::float32)
    add_rows<float>(n, list, buffer);
  else
    add_rows<double>(n, list, buffer);
}
