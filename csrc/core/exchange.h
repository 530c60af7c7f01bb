// How ranks work together on one model: the interface between `mlip::ghost_gather`, `mlip::sum_over_atoms` and an
// engine.
//
// A message-passing layer needs the features of neighbours which another rank owns. The model's graph calls
// the operator `mlip::ghost_gather` before each such layer; the operator asks the Exchange that is active on
// the calling thread. An engine with one rank needs none: it folds ghosts onto their owners.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/contract.h"

namespace mlip {

/// Rows of a feature matrix, row-major: owned atoms first, then ghosts.
struct FeatureRows {
  void* data;  ///< [n_nodes, width] of the type that `precision` names, on the CPU
  Precision precision;
  std::int64_t n_owned;
  std::int64_t n_nodes;
  std::int64_t width;  ///< values per row
  /// Of the owned atoms only those are here, in its order, that Exchange::lent names; n_owned and n_nodes count them.
  bool only_lent = false;
};

/// Owned nodes whose features other ranks read.
struct LentNodes {
  std::vector<std::int64_t> nodes;  ///< each once
  std::shared_ptr<void> on_device;  ///< for whoever carries rows between memories: what it made of them
};

/// Implemented by an engine shell over its own communication. All calls are collective: every rank makes
/// them the same number of times in the same order, with no atoms too.
class Exchange {
 public:
  virtual ~Exchange() = default;
  /// Of this rank: rows that follow those of owned atoms in the calls below.
  virtual std::int64_t n_ghosts() const = 0;
  /// Fill the ghost rows with their owners' rows.
  virtual void gather(const FeatureRows& rows) = 0;
  /// Add each ghost row to its owner's row (the transpose of gather).
  virtual void scatter_add(const FeatureRows& rows) = 0;
  /// What the calls above can do with, until the engine plans anew: features in the memory of a GPU need not come to
  /// the CPU whole. Null for an exchange that takes whole matrices alone.
  virtual LentNodes* lent() { return nullptr; }
  /// Replace each of n values by its sum over all ranks: the same bits on every rank.
  virtual void sum(double* values, std::int64_t n) = 0;
};

/// Makes an Exchange active on this thread for the life of the scope. The backward pass may run on another
/// thread: the operator keeps the pointer that was active in its forward pass, so that the owner of the
/// Exchange only has to outlive the evaluation.
class ExchangeScope {
 public:
  explicit ExchangeScope(Exchange* exchange);
  ~ExchangeScope();
  ExchangeScope(const ExchangeScope&) = delete;
  ExchangeScope& operator=(const ExchangeScope&) = delete;

  /// The Exchange active on this thread, or nullptr.
  static Exchange* active();

 private:
  Exchange* previous_;
};

}  // namespace mlip
