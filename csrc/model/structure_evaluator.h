// Energies, forces and virials of whole structures: a model, or a committee, with a neighbour list of its own, for
// callers that bring none (Python, OpenMM).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "core/neighbours.h"
#include "core/structure_batch.h"
#include "model/committee.h"
#include "model/device_pair_search.h"

namespace mlip {

class StructureEvaluator {
 public:
  /// @param model must outlive this object, and is evaluated by nobody else meanwhile
  explicit StructureEvaluator(Model& model, EdgesOn edges_on = EdgesOn::by_model)
      : StructureEvaluator({&model}, Drive::first, edges_on) {}
  /// Arguments as for Committee.
  StructureEvaluator(const std::vector<Model*>& models, Drive drive, EdgesOn edges_on = EdgesOn::by_model)
      : committee_(models, drive, edges_on),
        device_search_(make_device_pair_search(*models.front(), edges_on)),
        batch_committee_(models, drive, edges_on) {}

  /// From any number of threads: they take turns.
  /// @param positions [n_atoms, 3], Å; need not be wrapped into the cell
  /// @param types     [n_atoms] type index in the first contract's element list
  /// @param cell      rows are the cell vectors, Å
  /// @param settings  of each model, as for Model::set_settings; empty for those of the last evaluation
  /// @param deviation where to put how far apart the members are; null: not asked for
  /// @throws Error for positions or energies that are not finite, a periodic cell of no volume, and what
  ///         Model::evaluate throws. The next evaluation is as if the failed one had not been.
  StepResult evaluate(const double* positions, const std::vector<std::int64_t>& types,
                      const std::array<double, 9>& cell, const std::array<bool, 3>& periodic, const StepRequest& wanted,
                      const std::vector<std::vector<double>>& settings = {}, Deviation* deviation = nullptr);

  /// Several structures in one pass; one after the other if a model sums over all atoms or takes positions, which
  /// would mix them.
  /// @param settings as above, of all of them
  /// @param counted_from the number that the first structure has in messages
  /// @return energies, forces and the virial of each structure, the latter symmetric
  /// @throws Error as above, and says of which structure.
  std::vector<StepResult> evaluate_many(const std::vector<Structure>& structures,
                                        const std::vector<std::vector<double>>& settings = {},
                                        std::size_t counted_from = 0);

  /// Wall-clock seconds in `evaluate` and, of these, in the back ends, since construction.
  std::array<double, 2> seconds() const;
  /// Likewise, in searches for neighbours, those for `evaluate_many` left out.
  double seconds_of_searches() const;

  // For an engine that steps by itself, in one thread.

  /// Search for neighbours where that is due, so that `committee()` may evaluate these positions. Arguments as above.
  /// @throws Error likewise; then it has to succeed before the next step.
  void prepare(const double* positions, const std::vector<std::int64_t>& types, const std::array<double, 9>& cell,
               const std::array<bool, 3>& periodic);
  /// As `prepare` where that need not search, for positions that are elsewhere.
  /// @return false where a search is due
  bool follow(const std::vector<std::int64_t>& types, const std::array<double, 9>& cell,
              const std::array<bool, 3>& periodic, const FarthestMove& farthest_move);
  Committee& committee() { return committee_; }

 private:
  void set_settings(const std::vector<std::vector<double>>& settings);
  std::vector<StepResult> evaluate_as_one(const std::vector<Structure>& structures);

  Committee committee_;
  std::unique_ptr<PairSearch> device_search_;  // null where there is none
  NeighbourList neighbours_;
  std::vector<std::int64_t> types_;
  bool prepared_ = false;  // the committee has the candidates of neighbours_ and types_
  Committee batch_committee_;
  StructureBatch batch_;
  double seconds_ = 0.0;
  double seconds_of_searches_ = 0.0;
  mutable std::mutex turn_;
};

}  // namespace mlip
