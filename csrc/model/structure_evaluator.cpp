#include "model/structure_evaluator.h"

#include <chrono>
#include <utility>

#include "core/error.h"

namespace mlip {

StepResult StructureEvaluator::evaluate(const double* positions, const std::vector<std::int64_t>& types,
                                        const std::array<double, 9>& cell, const std::array<bool, 3>& periodic,
                                        const StepRequest& wanted, const std::vector<std::vector<double>>& settings,
                                        Deviation* deviation) {
  const std::lock_guard<std::mutex> turn(turn_);
  set_settings(settings);
  const auto start = std::chrono::steady_clock::now();
  prepare(positions, types, cell, periodic);
  committee_.evaluate(positions, 1.0, wanted, deviation != nullptr);
  StepResult result = committee_.result();
  if (deviation) *deviation = committee_.deviation();
  seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

std::vector<StepResult> StructureEvaluator::evaluate_many(const std::vector<Structure>& structures,
                                                          const std::vector<std::vector<double>>& settings,
                                                          std::size_t counted_from) {
  const std::lock_guard<std::mutex> turn(turn_);
  set_settings(settings);
  const auto start = std::chrono::steady_clock::now();
  bool edges_alone = true;
  for (std::size_t member = 0; member < committee_.size(); ++member) {
    const Contract& contract = committee_.model(member).contract();
    edges_alone &= contract.collectives.empty() && contract.positions == Positions::none;
  }
  std::vector<StepResult> results;
  if (edges_alone) {
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
  if (alone) batch_committee_.set_cell({structures[0].cell, structures[0].periodic});
  batch_.update(structures, committee_.largest_cutoff());
  const std::vector<std::int64_t>& first = batch_.first_atom();
  for (std::size_t member = 0; member < batch_committee_.n_driving(); ++member)
    batch_committee_.set_candidates(member, batch_.candidates(), batch_.types(), first.back());
  batch_committee_.evaluate(batch_.positions().data(), 1.0, wanted, false);
  const StepResult& all = batch_committee_.result();

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

void StructureEvaluator::set_settings(const std::vector<std::vector<double>>& settings) {
  for (std::size_t member = 0; member < settings.size(); ++member)
    committee_.model(member).set_settings(settings[member]);
}

std::array<double, 2> StructureEvaluator::seconds() const {
  const std::lock_guard<std::mutex> turn(turn_);
  return {seconds_, committee_.seconds_in_backend()};
}

double StructureEvaluator::seconds_of_searches() const {
  const std::lock_guard<std::mutex> turn(turn_);
  return seconds_of_searches_;
}

void StructureEvaluator::prepare(const double* positions, const std::vector<std::int64_t>& types,
                                 const std::array<double, 9>& cell, const std::array<bool, 3>& periodic) {
  const bool same_types = types == types_;
  // Not until all of this is done: the list may hold what the step never got.
  const bool was_prepared = std::exchange(prepared_, false);
  committee_.set_cell({cell, periodic});
  const auto n_atoms = static_cast<std::int64_t>(types.size());
  neighbours_.use_search(n_atoms >= fewest_atoms_of_device_search ? device_search_.get() : nullptr);
  // Meanwhile a GPU waits, and so do the processors. On the CPU a process that was forked may have lost its threads.
  if (committee_.model(0).device() != "cpu") neighbours_.use_threads(model_threads());
  const auto start = std::chrono::steady_clock::now();
  const NewCandidates is_new = neighbours_.update(positions, n_atoms, cell, periodic, committee_.largest_cutoff());
  if (is_new == NewCandidates::all)
    seconds_of_searches_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (is_new == NewCandidates::all || !same_types || !was_prepared) {
    types_ = types;
    for (std::size_t member = 0; member < committee_.size(); ++member)
      committee_.set_candidates(member, neighbours_.candidates(), types_, n_atoms);
  } else if (is_new == NewCandidates::shifts) {
    committee_.set_shifts();
  }
  prepared_ = true;
}

bool StructureEvaluator::follow(const std::vector<std::int64_t>& types, const std::array<double, 9>& cell,
                                const std::array<bool, 3>& periodic, const FarthestMove& farthest_move) {
  if (!prepared_ || types != types_) return false;
  prepared_ = false;  // until all of this is done
  const auto n_atoms = static_cast<std::int64_t>(types.size());
  const auto is_new = neighbours_.follow(n_atoms, cell, periodic, committee_.largest_cutoff(), farthest_move);
  if (!is_new) {
    prepared_ = true;
    return false;
  }
  if (*is_new == NewCandidates::shifts) {
    committee_.set_cell({cell, periodic});
    committee_.set_shifts();
  }
  prepared_ = true;
  return true;
}

}  // namespace mlip
