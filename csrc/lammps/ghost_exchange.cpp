#include "ghost_exchange.h"

#include <algorithm>
#include <cstring>

namespace mlip {
namespace {

constexpr int kTag = 4217;  // LAMMPS has no message under way while a model is evaluated

/// A row of features as an MPI type: a count of rows fits an int where a count of bytes may not.
class RowType {
 public:
  explicit RowType(std::int64_t bytes) {
    MPI_Type_contiguous(static_cast<int>(bytes), MPI_BYTE, &type_);
    MPI_Type_commit(&type_);
  }
  ~RowType() { MPI_Type_free(&type_); }
  RowType(const RowType&) = delete;
  RowType& operator=(const RowType&) = delete;
  operator MPI_Datatype() const { return type_; }

 private:
  MPI_Datatype type_;
};

std::int64_t row_bytes(const FeatureRows& rows) { return rows.width * (rows.precision == Precision::float32 ? 4 : 8); }

template <typename T>
void add_rows(const FeatureRows& rows, const std::vector<int>& nodes, const char* received) {
  const T* from = reinterpret_cast<const T*>(received);
  for (const int node : nodes) {
    T* row = static_cast<T*>(rows.data) + node * rows.width;
    for (std::int64_t c = 0; c < rows.width; ++c) row[c] += from[c];
    from += rows.width;
  }
}

}  // namespace

void GhostExchange::plan(const std::vector<Owner>& ghosts, const std::vector<int>& node_of) {
  int n_ranks = 0;
  MPI_Comm_size(world_, &n_ranks);
  std::vector<int> wanted(n_ranks, 0), lent(n_ranks, 0), atoms;
  for (const Owner& ghost : ghosts) {
    ++wanted[ghost.rank];
    atoms.push_back(ghost.atom);
  }
  MPI_Alltoall(wanted.data(), 1, MPI_INT, lent.data(), 1, MPI_INT, world_);

  n_ghosts_ = static_cast<std::int64_t>(ghosts.size());
  peers_.clear();
  std::int64_t first_ghost = 0;
  for (int rank = 0; rank < n_ranks; ++rank) {
    if (wanted[rank] > 0 || lent[rank] > 0)
      peers_.push_back({rank, first_ghost, wanted[rank], std::vector<int>(lent[rank])});
    first_ghost += wanted[rank];
  }
  requests_.clear();
  for (Peer& peer : peers_) {
    MPI_Irecv(peer.lent.data(), static_cast<int>(peer.lent.size()), MPI_INT, peer.rank, kTag, world_,
              &requests_.emplace_back());
    MPI_Isend(atoms.data() + peer.first_ghost, peer.n_ghosts, MPI_INT, peer.rank, kTag, world_,
              &requests_.emplace_back());
  }
  MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE);
  lent_ = {};
  for (Peer& peer : peers_)
    for (int& atom : peer.lent) {
      atom = node_of[atom];
      lent_.nodes.push_back(atom);
    }
  std::sort(lent_.nodes.begin(), lent_.nodes.end());
  lent_.nodes.erase(std::unique(lent_.nodes.begin(), lent_.nodes.end()), lent_.nodes.end());
  for (Peer& peer : peers_)
    for (const int node : peer.lent) {
      const auto place = std::lower_bound(lent_.nodes.begin(), lent_.nodes.end(), node);
      peer.among_lent.push_back(static_cast<int>(place - lent_.nodes.begin()));
    }
}

/// -> where each peer's rows are in the buffer
std::vector<char*> GhostExchange::make_room(std::int64_t bytes) {
  std::size_t n_rows = 0;
  for (const Peer& peer : peers_) n_rows += peer.lent.size();
  if (buffer_.size() < n_rows * bytes) buffer_.resize(n_rows * bytes);
  std::vector<char*> places;
  char* place = buffer_.data();
  for (const Peer& peer : peers_) {
    places.push_back(place);
    place += peer.lent.size() * bytes;
  }
  requests_.clear();
  return places;
}

void GhostExchange::gather(const FeatureRows& rows) {
  const double start = MPI_Wtime();
  const std::int64_t bytes = row_bytes(rows);
  const RowType row(bytes);
  const std::vector<char*> places = make_room(bytes);
  char* data = static_cast<char*>(rows.data);
  for (const Peer& peer : peers_)
    MPI_Irecv(data + (rows.n_owned + peer.first_ghost) * bytes, peer.n_ghosts, row, peer.rank, kTag, world_,
              &requests_.emplace_back());
  for (std::size_t k = 0; k < peers_.size(); ++k) {
    char* packed = places[k];
    for (const int node : peers_[k].rows(rows)) {
      std::memcpy(packed, data + node * bytes, bytes);
      packed += bytes;
    }
    MPI_Isend(places[k], static_cast<int>(peers_[k].lent.size()), row, peers_[k].rank, kTag, world_,
              &requests_.emplace_back());
  }
  MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE);
  seconds_ += MPI_Wtime() - start;
}

void GhostExchange::scatter_add(const FeatureRows& rows) {
  const double start = MPI_Wtime();
  const std::int64_t bytes = row_bytes(rows);
  const RowType row(bytes);
  const std::vector<char*> places = make_room(bytes);
  char* data = static_cast<char*>(rows.data);
  for (std::size_t k = 0; k < peers_.size(); ++k) {
    const Peer& peer = peers_[k];
    MPI_Irecv(places[k], static_cast<int>(peer.lent.size()), row, peer.rank, kTag, world_, &requests_.emplace_back());
    MPI_Isend(data + (rows.n_owned + peer.first_ghost) * bytes, peer.n_ghosts, row, peer.rank, kTag, world_,
              &requests_.emplace_back());
  }
  MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE);
  // In the order of the ranks, not of arrival: the same run gives the same bits.
  for (std::size_t k = 0; k < peers_.size(); ++k) {
    if (rows.precision == Precision::float32)
      add_rows<float>(rows, peers_[k].rows(rows), places[k]);
    else
      add_rows<double>(rows, peers_[k].rows(rows), places[k]);
  }
  seconds_ += MPI_Wtime() - start;
}

// Added up on one rank in the order of the ranks: what MPI_Allreduce does may depend on where messages arrive first.
void GhostExchange::sum(double* values, std::int64_t n) {
  const double start = MPI_Wtime();
  int rank = 0, n_ranks = 0;
  MPI_Comm_rank(world_, &rank);
  MPI_Comm_size(world_, &n_ranks);
  const auto count = static_cast<int>(n);
  std::vector<double> all(rank == 0 ? static_cast<std::size_t>(n_ranks) * n : 0);
  MPI_Gather(values, count, MPI_DOUBLE, all.data(), count, MPI_DOUBLE, 0, world_);
  if (rank == 0)
    for (std::int64_t k = 0; k < n; ++k) {
      values[k] = 0.0;
      for (int from = 0; from < n_ranks; ++from) values[k] += all[from * n + k];
    }
  MPI_Bcast(values, count, MPI_DOUBLE, 0, world_);
  seconds_ += MPI_Wtime() - start;
}

}  // namespace mlip
