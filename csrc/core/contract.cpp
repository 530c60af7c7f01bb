#include "core/contract.h"

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace mlip {
namespace {

using nlohmann::json;

constexpr int supported_major = 1;

/// Reads one JSON object: every key must be asked for, and every asked-for key must be there.
class Reader {
 public:
  Reader(const json& object, std::string path, const std::string& source)
      : object_(object), path_(std::move(path)), source_(source) {
    if (!object_.is_object()) fail(path_ + " is not an object");
  }

  template <typename T>
  T get(const char* key) {
    return convert<T>(key, member(key));
  }

  Reader object(const char* key) { return Reader(member(key), path_ + key + ".", source_); }

  /// A key which is read elsewhere or is only for people.
  void skip(std::initializer_list<const char*> keys) {
    for (const char* key : keys) member(key);
  }

  /// Refuse keys that nobody asked for: a file that says more than we understand is not ours to run.
  void finish() const {
    for (const auto& [key, value] : object_.items())
      if (std::find(seen_.begin(), seen_.end(), key) == seen_.end())
        fail("unknown key '" + path_ + key +
             "'. The file may come from a newer mlip-deploy: pip install -U mlip-deploy");
  }

  [[noreturn]] void fail(const std::string& what) const { throw Error(source_ + ": contract: " + what); }

 private:
  const json& member(const char* key) {
    const auto found = object_.find(key);
    if (found == object_.end()) fail("missing key '" + path_ + key + "'. Export the model again with: mlip export");
    seen_.emplace_back(key);
    return *found;
  }

  template <typename T>
  T convert(const char* key, const json& value) const {
    try {
      return value.get<T>();
    } catch (const json::exception&) {
      fail("key '" + path_ + key + "' has the wrong type: " + value.dump());
    }
  }

  const json& object_;
  std::string path_;
  const std::string& source_;
  std::vector<std::string> seen_;
};

template <typename Enum>
Enum parse_enum(const Reader& reader, const char* key, const std::string& value, std::initializer_list<Enum> choices) {
  std::string names;
  for (Enum choice : choices) {
    if (value == to_string(choice)) return choice;
    names += std::string(names.empty() ? "" : ", ") + to_string(choice);
  }
  reader.fail(std::string("'") + key + "' is '" + value + "', expected one of: " + names);
}

}  // namespace

const char* to_string(BackendKind backend) {
  return backend == BackendKind::torchscript ? "torchscript" : "aotinductor";
}

const char* to_string(Parallel parallel) {
  switch (parallel) {
    case Parallel::local:
      return "local";
    case Parallel::exchange:
      return "exchange";
    case Parallel::halo:
      return "halo";
  }
  return "?";
}

const char* to_string(Precision precision) { return precision == Precision::float32 ? "float32" : "float64"; }

int Contract::type_index(const std::string& symbol) const {
  const auto found = std::find(elements.begin(), elements.end(), symbol);
  if (found != elements.end()) return static_cast<int>(found - elements.begin());
  std::string known;
  if (elements.size() <= 12)
    for (const auto& element : elements) known += " " + element;
  throw Error("'" + symbol + "', not an element of " + model_name + " (" + std::to_string(elements.size()) +
              " elements" + (known.empty() ? "" : ":" + known) + ")");
}

Contract parse_contract(const std::string& text, const std::string& source) {
  json document;
  try {
    document = json::parse(text);
  } catch (const json::exception& error) {
    throw Error(source + ": contract: not valid JSON (" + error.what() + ")");
  }

  Contract contract;
  Reader root(document, "", source);
  contract.schema = root.get<std::string>("schema");
  int major = -1;
  try {
    major = std::stoi(contract.schema);
  } catch (const std::exception&) {
  }
  if (major != supported_major)
    root.fail("schema is " + contract.schema + ", this mlip-deploy reads " + std::to_string(supported_major) +
              ".x. Export the model again with: mlip export");

  Reader producer = root.object("producer");
  contract.producer = producer.get<std::string>("package") + " " + producer.get<std::string>("version");
  contract.torch_version = producer.get<std::string>("torch");
  producer.finish();

  Reader model = root.object("model");
  contract.model_family = model.get<std::string>("family");
  contract.model_name = model.get<std::string>("name");
  contract.source_sha256 = model.get<std::string>("source_sha256");
  contract.license = model.get<std::string>("license");
  contract.citation = model.get<std::string>("citation");
  model.finish();

  Reader units = root.object("units");
  if (units.get<std::string>("length") != "angstrom" || units.get<std::string>("energy") != "eV")
    units.fail("units must be angstrom and eV");
  units.finish();

  Reader frame = root.object("energy_frame");
  contract.energy_frame = frame.get<std::string>("functional");
  for (const char* key : {"hubbard_u", "corrections", "dispersion"}) {
    const auto value = frame.get<std::string>(key);
    if (value != "none") contract.energy_frame += ", " + std::string(key) + " " + value;
  }
  frame.finish();

  contract.backend = parse_enum(root, "backend", root.get<std::string>("backend"),
                                {BackendKind::torchscript, BackendKind::aotinductor});
  if (contract.backend == BackendKind::aotinductor) {
    Reader compiled = root.object("compiled_for");
    contract.compiled_for = CompiledFor{compiled.get<std::string>("torch"), compiled.get<std::string>("device"),
                                        compiled.get<std::string>("processor")};
    compiled.finish();
  }
  contract.elements = root.get<std::vector<std::string>>("elements");
  contract.cutoff = root.get<double>("cutoff");
  contract.message_passing_layers = root.get<int>("message_passing_layers");
  contract.interaction_range = root.get<double>("interaction_range");
  contract.precision =
      parse_enum(root, "dtype", root.get<std::string>("dtype"), {Precision::float32, Precision::float64});
  contract.parallel = parse_enum(root, "parallel", root.get<std::string>("parallel"),
                                 {Parallel::local, Parallel::exchange, Parallel::halo});
  contract.operators = root.get<std::vector<std::string>>("operators");
  for (const auto& output : root.get<std::vector<std::string>>("outputs"))
    if (output != "atomic_energies" && output != "edge_gradients") contract.extras.push_back(output);
  if (document.contains("inversion_symmetric")) root.get<bool>("inversion_symmetric");  // read by mlip validate
  root.skip({"inputs"});
  root.finish();

  if (contract.elements.empty()) root.fail("'elements' is empty");
  if (!(contract.cutoff > 0.0)) root.fail("'cutoff' must be positive");
  return contract;
}

}  // namespace mlip
