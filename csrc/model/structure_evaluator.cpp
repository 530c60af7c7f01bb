#include "model/structure_evaluator.h"

#include <chrono>
#include <utility>

namespace mlip {

StepResult StructureEvaluator::evaluate(const double* positions, const std::vector<std::int64_t>& types,
                                        const std::array<double, 9>& cell, const std::array<bool, 3>& periodic,
                                        const StepRequest& wanted, const std::vector<std::vector<double>>& settings,
                                        Deviation* deviation) {
  const std::lock_guard<std::mutex> turn(turn_);
  for (std::size_t member = 0; member < settings.size(); ++member)
    committee_.model(member).set_settings(settings[member]);
  const auto start = std::chrono::steady_clock::now();
  prepare(positions, types, cell, periodic);
  committee_.evaluate(positions, 1.0, wanted, deviation != nullptr);
  StepResult result = committee_.result();
  if (deviation) *deviation = committee_.deviation();
  seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

std::array<double, 2> StructureEvaluator::seconds() const {
  const std::lock_guard<std::mutex> turn(turn_);
  return {seconds_, committee_.seconds_in_backend()};
}

void StructureEvaluator::prepare(const double* positions, const std::vector<std::int64_t>& types,
                                 const std::array<double, 9>& cell, const std::array<bool, 3>& periodic) {
  const bool same_types = types == types_;
  // Not until all of this is done: the list may hold what the step never got.
  const bool was_prepared = std::exchange(prepared_, false);
  committee_.set_cell({cell, periodic});
  const auto n_atoms = static_cast<std::int64_t>(types.size());
  const bool searched = neighbours_.update(positions, n_atoms, cell, periodic, committee_.largest_cutoff());
  if (searched || !same_types || !was_prepared) {
    types_ = types;
    for (std::size_t member = 0; member < committee_.size(); ++member)
      committee_.set_candidates(member, neighbours_.candidates(), types_, n_atoms);
  }
  prepared_ = true;
}

bool StructureEvaluator::prepared(const std::vector<std::int64_t>& types, const std::array<double, 9>& cell,
                                  const std::array<bool, 3>& periodic, double farthest_move) const {
  return prepared_ && types == types_ &&
         neighbours_.holds(static_cast<std::int64_t>(types.size()), cell, periodic, committee_.largest_cutoff(),
                           farthest_move);
}

}  // namespace mlip
