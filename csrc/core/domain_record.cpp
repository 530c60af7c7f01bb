#include "core/domain_record.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/base64.h"
#include "core/error.h"

namespace mlip {
namespace {

static_assert(std::endian::native == std::endian::little, "float32 arrays of a file are read as they are");

/// The arrays after the line, in their order.
class Arrays {
 public:
  Arrays(const std::string& bytes, std::size_t start) : bytes_(bytes), next_(start) {}

  /// @throws std::out_of_range where the record ends before.
  std::vector<float> take(std::int64_t n) {
    const auto size = static_cast<std::size_t>(n) * sizeof(float);
    if (n < 0 || size > bytes_.size() - next_) throw std::out_of_range("it ends before its arrays do");
    std::vector<float> values(static_cast<std::size_t>(n));
    std::memcpy(values.data(), bytes_.data() + next_, size);
    next_ += size;
    for (const float value : values)
      if (!std::isfinite(value)) throw std::out_of_range("a number in it is not finite");
    return values;
  }

  bool at_end() const { return next_ == bytes_.size(); }

 private:
  const std::string& bytes_;
  std::size_t next_;
};

/// The factor of an "uncertainty" in the line: a scale in eV, and a matrix.
std::vector<double> read_factor(const nlohmann::json& uncertainty, std::int64_t n_features) {
  const std::string matrix = from_base64(uncertainty.at("matrix").get<std::string>());
  const auto scale = uncertainty.at("scale").get<double>();
  Arrays arrays(matrix, 0);
  const std::vector<float> values = arrays.take(n_features * n_features);
  if (!arrays.at_end() || !(scale > 0.0)) throw std::out_of_range("its numbers for uncertainties make no sense");
  std::vector<double> factor;
  for (const float value : values) factor.push_back(scale * value);
  return factor;
}

}  // namespace

DomainRecord parse_domain_record(const std::string& bytes, const std::string& source) {
  using nlohmann::json;
  const std::string cure = "). Fit the domain again: mlip domain fit " + source + " --frames FRAMES.extxyz";
  try {
    const std::size_t line = bytes.find('\n');
    const json head = json::parse(bytes.substr(0, line));
    if (head.at("schema").get<std::string>() != "1.0") throw std::out_of_range("it is of another schema");
    DomainRecord record;
    record.content_sha256 = head.at("content_sha256").get<std::string>();
    record.n_features = head.at("features").get<std::int64_t>();
    Arrays arrays(bytes, line + 1);
    for (const json& found : head.at("elements")) {
      DomainOfElement& of = record.elements.emplace_back();
      of.element = found.at("element").get<std::string>();
      of.n_axes = found.at("axes").get<std::int64_t>();
      of.n_points = found.at("points").get<std::int64_t>();
      of.distance = found.at("distance").get<double>();
      if (record.n_features < 1 || of.n_axes < 0 || of.n_axes > record.n_features || of.n_points < 1 ||
          !(of.distance > 0.0))
        throw std::out_of_range("its numbers for " + of.element + " make no sense");
      of.mean = arrays.take(record.n_features);
      of.axes = arrays.take(of.n_axes * record.n_features);
      of.scales = arrays.take(of.n_axes + 1);
      of.points = arrays.take(of.n_points * (of.n_axes + 1));
    }
    if (!arrays.at_end()) throw std::out_of_range("it goes on after its arrays");
    if (const json& uncertainty = head.at("uncertainty"); !uncertainty.is_null())
      record.uncertainty_factor = read_factor(uncertainty, record.n_features);
    return record;
  } catch (const std::exception& error) {  // of JSON, base64 and what is thrown above
    throw Error(source + ": the record of its domain cannot be read (" + error.what() + cure);
  }
}

}  // namespace mlip
