#include "model/structure_evaluator.h"

#include <chrono>
#include <utility>

#include "core/error.h"

namespace mlip {

StepResult StructureEvaluator::evaluate(const double* positions, const std::vector<std::int64_t>& types,
                                        const std::array<double, 9>& cell, const std::array<bool, 3>& periodic,
                                        const StepRequest& wanted, const std::vector<double>& settings) {
  const std::lock_guard<std::mutex> turn(turn_);
  if (!settings.empty()) model_.set_settings(settings);
  const auto start = std::chrono::steady_clock::now();
  prepare(positions, types, cell, periodic);
  StepResult result = step_.evaluate(positions, 1.0, wanted);
  seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

std::vector<StepResult> StructureEvaluator::evaluate_many(const std::vector<Structure>& structures,
                                                          const std::vector<double>& settings,
                                                          std::size_t counted_from) {
  const std::lock_guard<std::mutex> turn(turn_);
  if (!settings.empty()) model_.set_settings(settings);
  const auto start = std::chrono::steady_clock::now();
  std::vector<StepResult> results;
  if (model_.contract().collectives.empty() && model_.contract().positions == Positions::none) {
    try {
      results = evaluate_as_one(structures);
    } catch (const Error&) {
      results.clear();  // the structure at fault is found below, and more memory than there is perhaps not needed
    }
  }
  for (std::size_t k = results.size(); k < structures.size(); ++k) {
    try {
      results.push_back(std::move(evaluate_as_one({structures[k]}).front()));
    } catch (const Error& error) {
      throw Error("frame " + std::to_string(counted_from + k) + " (counted from 0): " + error.what());
    }
  }
  seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return results;
}

std::vector<StepResult> StructureEvaluator::evaluate_as_one(const std::vector<Structure>& structures) {
  const bool alone = structures.size() == 1;
  StepRequest wanted;
  wanted.forces = wanted.close_pair = true;
  wanted.virial = alone;
  wanted.atom_virials = !alone;  // which tell the structures apart
  if (alone) batch_step_.set_cell({structures[0].cell, structures[0].periodic});
  batch_.update(structures, model_.contract().cutoff);
  const std::vector<std::int64_t>& first = batch_.first_atom();
  batch_step_.set_candidates(batch_.candidates(), batch_.types(), first.back());
  const StepResult& all = batch_step_.evaluate(batch_.positions().data(), 1.0, wanted);

  std::vector<StepResult> results(structures.size());
  for (std::size_t k = 0; k < structures.size(); ++k) {
    const auto own = [begin = first[k], end = first[k + 1]](const std::vector<double>& values, int width) {
      return values.empty() ? values
                            : std::vector<double>(values.begin() + width * begin, values.begin() + width * end);
    };
    StepResult& one = results[k];
    one.atomic_energies = own(all.atomic_energies, 1);
    one.forces = own(all.forces, 3);
    one.virial = all.virial;
    for (std::int64_t k6 = 6 * first[k]; !alone && k6 < 6 * first[k + 1]; ++k6) {
      const int row = virial_rows[k6 % 6], column = virial_columns[k6 % 6];
      one.virial[3 * row + column] += all.atom_virials[k6];
      if (row != column) one.virial[3 * column + row] += all.atom_virials[k6];
    }
    if (all.close_pair.centre >= first[k] && all.close_pair.centre < first[k + 1]) {
      one.close_pair = all.close_pair;
      one.close_pair.centre -= first[k];
      one.close_pair.neighbour -= first[k];
    }
  }
  return results;
}

std::array<double, 2> StructureEvaluator::seconds() const {
  const std::lock_guard<std::mutex> turn(turn_);
  return {seconds_, model_.seconds_in_backend()};
}

void StructureEvaluator::prepare(const double* positions, const std::vector<std::int64_t>& types,
                                 const std::array<double, 9>& cell, const std::array<bool, 3>& periodic) {
  const bool same_types = types == types_;
  // Not until all of this is done: the list may hold what the step never got.
  const bool was_prepared = std::exchange(prepared_, false);
  step_.set_cell({cell, periodic});
  const auto n_atoms = static_cast<std::int64_t>(types.size());
  const bool searched = neighbours_.update(positions, n_atoms, cell, periodic, model_.contract().cutoff);
  if (searched || !same_types || !was_prepared) {
    types_ = types;
    step_.set_candidates(neighbours_.candidates(), types_, n_atoms);
  }
  prepared_ = true;
}

bool StructureEvaluator::prepared(const std::vector<std::int64_t>& types, const std::array<double, 9>& cell,
                                  const std::array<bool, 3>& periodic, double farthest_move) const {
  return prepared_ && types == types_ &&
         neighbours_.holds(static_cast<std::int64_t>(types.size()), cell, periodic, model_.contract().cutoff,
                           farthest_move);
}

}  // namespace mlip
