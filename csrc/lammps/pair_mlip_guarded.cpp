// What fix mlip/guard asks pair_style mlip for.
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "atom.h"
#include "pair_mlip.h"

using namespace LAMMPS_NS;

std::string PairMLIP::why_not(const std::string& quantity) const {
  if (quantity == grade_.name) return model_->no_grades();
  if (quantity == uncertainty_.name) return model_->no_uncertainties();
  if (committee_->size() > 1) return "";
  return "one model does not deviate. Name several files: pair_coeff * * a.mlip.pt b.mlip.pt El1 El2 ...";
}

std::vector<double> PairMLIP::model_forces() {
  std::vector<double> sum(3 * atom->nlocal, 0.0);
  for (std::size_t member = 0; member < committee_->n_driving(); ++member) {
    const std::vector<double> forces = forces_of(member);
    for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += committee_->weight() * forces[k];
  }
  return sum;
}

std::string PairMLIP::element_of_type(int type) const {
  const int element = type_to_element_[type];
  return element < 0 ? "" : model_->contract().elements[element];
}

std::string PairMLIP::name_of_atom(int i) const {
  return fmt::format("{} ({})", atom->tag[i], element_of_type(atom->type[i]));
}

std::string PairMLIP::surroundings(int i) const {
  constexpr std::size_t n_named = 4;
  const mlip::CandidateEdges& candidates = nodes_of(0).candidates;
  const int node = candidates.node_of[i];
  if (node < 0) return "";
  std::vector<std::pair<double, int>> near;  // owned atoms are the first centres, in the order of their nodes
  for (std::int64_t k = candidates.first[node]; k < candidates.first[node + 1]; ++k) {
    const int j = candidates.neighbours[k];
    double squared = 0.0;
    for (int axis = 0; axis < 3; ++axis) squared += std::pow(atom->x[j][axis] - atom->x[i][axis], 2);
    near.emplace_back(units_.length_in_angstrom * std::sqrt(squared), j);
  }
  std::sort(near.begin(), near.end());
  std::string text;
  for (std::size_t k = 0; k < std::min(n_named, near.size()); ++k)
    text += fmt::format("{}{} at {:.2f} Å", k > 0 ? ", " : "", name_of_atom(near[k].second), near[k].first);
  return text;
}
