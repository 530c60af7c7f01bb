#include "core/domain_record.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

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
    return record;
  } catch (const json::exception& error) {
    throw Error(source + ": the record of its domain cannot be read (" + error.what() + cure);
  } catch (const std::out_of_range& error) {
    throw Error(source + ": the record of its domain cannot be read (" + error.what() + cure);
  }
}

}  // namespace mlip
