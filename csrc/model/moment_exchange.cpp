#include "model/moment_exchange.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace mlip {

MomentExchange::MomentExchange(const UnfoldedGraph& unfolded, Exchange* engine)
    : unfolded_(unfolded), engine_(engine) {}

/// The rows that the engine knows: without images.
FeatureRows MomentExchange::of_engine(const FeatureRows& rows) const {
  FeatureRows result = rows;
  result.n_nodes = unfolded_.n_folded();
  return result;
}

void MomentExchange::find_homes() {
  const std::vector<double>& at = unfolded_.positions();
  std::vector<double> homes = at;
  const std::int64_t n_owned = unfolded_.graph().n_owned, n_nodes = unfolded_.graph().n_nodes();
  if (engine_) engine_->gather({homes.data(), Precision::float64, n_owned, unfolded_.n_folded(), 3});
  for (std::int64_t node = unfolded_.n_folded(); node < n_nodes; ++node)
    std::copy_n(at.data() + 3 * unfolded_.folded_node(node), 3, homes.data() + 3 * node);
  shifts_.resize(n_nodes - n_owned);
  for (std::int64_t node = n_owned; node < n_nodes; ++node)
    for (int axis = 0; axis < 3; ++axis) shifts_[node - n_owned][axis] = at[3 * node + axis] - homes[3 * node + axis];
}

void MomentExchange::carry_adjoints() {
  carried_ = adjoints;
  n_scattered_ = 0;
  ghost_adjoints_.clear();
}

void MomentExchange::carry_moments(int axis) {
  carried_ = axis;
  n_scattered_ = 0;
}

void MomentExchange::gather(const FeatureRows& rows) {
  if (rows.precision == Precision::float32)
    gather_rows<float>(rows);
  else
    gather_rows<double>(rows);
}

void MomentExchange::scatter_add(const FeatureRows& rows) {
  if (rows.precision == Precision::float32)
    scatter_rows<float>(rows);
  else
    scatter_rows<double>(rows);
}

void MomentExchange::sum(double*, std::int64_t) { throw Error("moments do not pass through a sum over all atoms"); }

template <typename T>
void MomentExchange::gather_rows(const FeatureRows& rows) {
  if (engine_) engine_->gather(of_engine(rows));
  T* const data = static_cast<T*>(rows.data);
  for (std::int64_t node = unfolded_.n_folded(); node < rows.n_nodes; ++node)
    std::copy_n(data + rows.width * unfolded_.folded_node(node), rows.width, data + rows.width * node);
}

template <typename T>
void MomentExchange::scatter_rows(const FeatureRows& rows) {
  T* const data = static_cast<T*>(rows.data);
  const std::size_t n_values = (rows.n_nodes - rows.n_owned) * rows.width;
  if (carried_ == adjoints) ghost_adjoints_.emplace_back(n_values * sizeof(T));
  if (n_scattered_ >= ghost_adjoints_.size() || ghost_adjoints_[n_scattered_].size() != n_values * sizeof(T))
    throw Error("two backward passes of one model exchange other features");
  T* const kept = reinterpret_cast<T*>(ghost_adjoints_[n_scattered_++].data());
  // Images before the ghosts of other ranks, whose images some of them are.
  for (std::int64_t node = rows.n_nodes - 1; node >= rows.n_owned; --node) {
    T* const row = data + rows.width * node;
    T* const adjoint = kept + rows.width * (node - rows.n_owned);
    if (carried_ == adjoints) {
      std::copy_n(row, rows.width, adjoint);
    } else {
      const T shift = static_cast<T>(shifts_[node - rows.n_owned][carried_]);
      for (std::int64_t c = 0; c < rows.width; ++c) row[c] -= shift * adjoint[c];
    }
    if (node < unfolded_.n_folded()) continue;
    T* const home = data + rows.width * unfolded_.folded_node(node);
    for (std::int64_t c = 0; c < rows.width; ++c) home[c] += row[c];
  }
  if (engine_) engine_->scatter_add(of_engine(rows));
}

}  // namespace mlip
