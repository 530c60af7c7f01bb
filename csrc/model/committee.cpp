#include "model/committee.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace mlip {

Drive parse_drive(const std::string& name) {
  if (name == "first") return Drive::first;
  if (name == "mean") return Drive::mean;
  throw Error("drive: '" + name + "' is neither first nor mean");
}

std::vector<double> force_deviations(const std::vector<std::vector<double>>& forces) {
  const auto n_members = static_cast<double>(forces.size());
  std::vector<double> deviations(forces.front().size() / 3);
  for (std::size_t atom = 0; atom < deviations.size(); ++atom) {
    double variance = 0.0;
    for (std::size_t k = 3 * atom; k < 3 * atom + 3; ++k) {
      double mean = 0.0;
      for (const auto& of_member : forces) mean += of_member[k] / n_members;
      for (const auto& of_member : forces) variance += (of_member[k] - mean) * (of_member[k] - mean) / n_members;
    }
    deviations[atom] = std::sqrt(variance);
  }
  return deviations;
}

std::array<double, 9> virial_deviations(const std::vector<std::array<double, 9>>& virials, double n_atoms) {
  const auto n_members = static_cast<double>(virials.size());
  std::array<double, 9> deviations{};
  if (n_atoms == 0.0) return deviations;
  for (std::size_t c = 0; c < 9; ++c) {
    double mean = 0.0;
    double variance = 0.0;
    for (const auto& of_member : virials) mean += of_member[c] / n_members;
    for (const auto& of_member : virials) variance += (of_member[c] - mean) * (of_member[c] - mean) / n_members;
    deviations[c] = std::sqrt(variance) / n_atoms;
  }
  return deviations;
}

DeviationSummary summarize(const std::vector<double>& atoms, const std::array<double, 9>& virial) {
  const auto [smallest_virial, largest_virial] = std::minmax_element(virial.begin(), virial.end());
  const double squares = std::inner_product(virial.begin(), virial.end(), virial.begin(), 0.0);
  DeviationSummary summary{*largest_virial, *smallest_virial, std::sqrt(squares / 9.0)};
  if (atoms.empty()) return summary;
  const auto [smallest, largest] = std::minmax_element(atoms.begin(), atoms.end());
  summary[3] = *largest;
  summary[4] = *smallest;
  summary[5] = std::accumulate(atoms.begin(), atoms.end(), 0.0) / static_cast<double>(atoms.size());
  return summary;
}

Committee::Committee(std::vector<Model*> models, Drive drive, EdgesOn edges_on)
    : models_(std::move(models)), drive_(drive) {
  const Contract& first = models_.front()->contract();
  for (Model* model : models_) {
    const Contract& contract = model->contract();
    if (drive == Drive::mean && contract.energy_frame != first.energy_frame)
      throw Error("energies in different frames have no mean: those of " + first.model_name + " are " +
                  first.energy_frame + ", those of " + contract.model_name + " are " + contract.energy_frame +
                  ". Let the first model drive, which still compares forces: drive first");
    steps_.push_back(std::make_unique<StepEvaluator>(*model, edges_on));
    std::vector<std::int64_t> types;
    for (const std::string& element : first.elements) {
      const auto found = std::find(contract.elements.begin(), contract.elements.end(), element);
      types.push_back(found == contract.elements.end() ? -1 : found - contract.elements.begin());
    }
    type_maps_.push_back(std::move(types));
  }
}

double Committee::largest_cutoff() const {
  double largest = 0.0;
  for (const Model* model : models_) largest = std::max(largest, model->contract().cutoff);
  return largest;
}

std::vector<SettingValues> Committee::settings(const GivenSettings& given) const {
  std::vector<GivenSettings> of_members(size());
  for (const auto& value : given) {
    bool declared = false;
    for (std::size_t member = 0; member < size(); ++member) {
      const auto& settings = models_[member]->contract().settings;
      if (std::none_of(settings.begin(), settings.end(), [&](const Setting& s) { return s.name == value.first; }))
        continue;
      of_members[member].push_back(value);
      declared = true;
    }
    if (!declared) of_members.front().push_back(value);  // which says what there is instead
  }
  std::vector<SettingValues> values;
  for (std::size_t member = 0; member < size(); ++member)
    values.emplace_back(models_[member]->contract().settings, of_members[member]);
  return values;
}

std::vector<std::int64_t> Committee::types_of(std::size_t member, const std::vector<std::int64_t>& types) const {
  std::vector<std::int64_t> own;
  own.reserve(types.size());
  for (const std::int64_t type : types) {
    own.push_back(type_maps_[member][type]);
    if (own.back() >= 0) continue;
    try {
      models_[member]->contract().type_index(models_.front()->contract().elements[type]);
    } catch (const Error& failure) {
      throw Error(std::string("one of the atoms is ") + failure.what() + ", see: mlip info " + models_[member]->path());
    }
  }
  return own;
}

void Committee::set_candidates(std::size_t member, const CandidateEdges& candidates,
                               const std::vector<std::int64_t>& node_types, std::int64_t n_owned) {
  step(member).set_candidates(candidates, member == 0 ? node_types : types_of(member, node_types), n_owned);
}

void Committee::set_shifts() {
  for (const auto& step : steps_) step->set_shifts();
}

template <typename Body>
void Committee::of_member(std::size_t member, const Body& body) const {
  try {
    body();
  } catch (const Error& failure) {
    if (size() == 1) throw;
    throw Error(models_[member]->path() + ": " + failure.what());
  }
}

void Committee::set_cell(const Cell& cell) {
  for (std::size_t member = 0; member < size(); ++member) of_member(member, [&] { step(member).set_cell(cell); });
}

void Committee::evaluate(const double* positions, double length_in_angstrom, const StepRequest& wanted, bool deviation,
                         Exchange* exchange) {
  for (std::size_t member = 0; member < (deviation ? size() : n_driving()); ++member) {
    StepRequest request = member < n_driving() ? wanted : StepRequest{};
    if (deviation) request.forces = request.virial = true;
    if (member > 0)
      request.extras = request.close_pair = request.features = request.grades = request.uncertainties = false;
    of_member(member, [&] { step(member).evaluate(positions, length_in_angstrom, request, exchange); });
  }
}

const StepResult& Committee::result() {
  if (n_driving() == 1) return step(0).result();
  mean_ = step(0).result();
  const auto add = [&](auto& sums, const auto& values, double factor) {
    for (std::size_t k = 0; k < sums.size(); ++k) sums[k] = factor * (sums[k] + values[k]);
  };
  for (std::size_t member = 1; member < size(); ++member) {
    const StepResult& other = step(member).result();
    const double factor = member + 1 == size() ? weight() : 1.0;
    add(mean_.atomic_energies, other.atomic_energies, factor);
    add(mean_.forces, other.forces, factor);
    add(mean_.virial, other.virial, factor);
    add(mean_.atom_virials, other.atom_virials, factor);
    add(mean_.centroid_virials, other.centroid_virials, factor);
    if (mean_.centroid_virials_inexact.empty()) mean_.centroid_virials_inexact = other.centroid_virials_inexact;
  }
  return mean_;
}

Deviation Committee::deviation() const {
  std::vector<std::vector<double>> forces;
  std::vector<std::array<double, 9>> virials;
  for (std::size_t member = 0; member < size(); ++member) {
    forces.push_back(step(member).result().forces);
    virials.push_back(step(member).result().virial);
  }
  std::vector<double> of_atoms = force_deviations(forces);
  const auto n_atoms = static_cast<double>(of_atoms.size());
  const DeviationSummary summary = summarize(of_atoms, virial_deviations(virials, n_atoms));
  return {std::move(of_atoms), summary};
}

double Committee::seconds_in_backend() const {
  double seconds = 0.0;
  for (const Model* model : models_) seconds += model->seconds_in_backend();
  return seconds;
}

double Committee::bytes() const {
  double bytes = 0.0;
  for (const auto& step : steps_) bytes += step->bytes();
  return bytes;
}

}  // namespace mlip
