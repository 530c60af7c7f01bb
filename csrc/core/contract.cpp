#include "core/contract.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "core/error.h"
#include "core/format.h"

namespace mlip {
namespace {

using nlohmann::json;

const std::string upgrade_line = "Type: pip install --upgrade mlip-deploy";
const std::string export_line = "Export the model again with: mlip export";

constexpr int most_layers = 1000;
/// Of the interaction range, which is a product of two numbers of the file.
constexpr double rounding = 1e-9;

/// "a", "b" and "c" as "'a', 'b' or 'c'".
std::string one_of(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t k = 0; k < words.size(); ++k)
    text += (k == 0 ? "'" : k + 1 == words.size() ? " or '" : ", '") + words[k] + "'";
  return text;
}

/// The file in messages, and what to do about it.
struct Source {
  std::string name;
  std::string schema;
  bool newer = false;  ///< of a later minor schema than this library's

  /// @param advice the line to type; "" for the usual one
  [[noreturn]] void fail(const std::string& what, const std::string& advice = "") const {
    const std::string usual = newer ? "The file is of schema " + schema + ", this mlip-deploy reads " +
                                          std::to_string(format::schema_major) + "." +
                                          std::to_string(format::schema_minor) + ". " + upgrade_line
                                    : export_line;
    throw Error("'" + name + "': contract: " + what + ". " + (advice.empty() ? usual : advice));
  }
};

/// Reads one JSON object. Every key that is asked for must be there; of a file that is not newer than this library,
/// every key must be asked for.
class Reader {
 public:
  Reader(const json& object, std::string path, const Source& source)
      : object_(object), path_(std::move(path)), source_(source) {
    if (!object_.is_object()) wrong_type(path_, object_, "an object");
  }

  std::string text(const char* key) { return text_of(path_of(key), member(key)); }

  double number(const char* key) {
    const json& value = member(key);
    if (!value.is_number()) wrong_type(path_of(key), value, "a number");
    return value.get<double>();
  }

  std::vector<double> numbers(const char* key) {
    std::vector<double> found;
    for (const auto& [path, value] : list(key)) {
      if (!value->is_number()) wrong_type(path, *value, "a number");
      found.push_back(value->get<double>());
    }
    return found;
  }

  int integer(const char* key) { return integer_of(path_of(key), member(key)); }

  bool boolean(const char* key) {
    const json& value = member(key);
    if (!value.is_boolean()) wrong_type(path_of(key), value, "true or false");
    return value.get<bool>();
  }

  std::vector<std::string> texts(const char* key) {
    std::vector<std::string> found;
    for (const auto& [path, value] : list(key)) found.push_back(text_of(path, *value));
    return found;
  }

  std::map<std::string, int> integers(const char* key) {
    const json& values = member(key);
    if (!values.is_object()) wrong_type(path_of(key), values, "an object");
    std::map<std::string, int> found;
    for (const auto& [name, value] : values.items()) found[name] = integer_of(path_of(key) + "." + name, value);
    return found;
  }

  Reader object(const char* key) { return Reader(member(key), path_of(key), source_); }

  std::vector<Reader> objects(const char* key) {
    std::vector<Reader> found;
    for (const auto& [path, value] : list(key)) found.emplace_back(*value, path, source_);
    return found;
  }

  template <typename Enum>
  Enum choice(const char* key, std::initializer_list<Enum> choices) {
    const json& value = member(key);
    std::vector<std::string> names;
    for (Enum one : choices) {
      if (value == to_string(one)) return one;
      names.emplace_back(to_string(one));
    }
    source_.fail("'" + path_of(key) + "' is " + value.dump() + ", expected " + one_of(names));
  }

  /// A key that has one value.
  void fixed(const char* key, const std::string& value) {
    if (member(key) != value)
      source_.fail("'" + path_of(key) + "' is " + member(key).dump() + ", expected '" + value + "'");
  }

  /// A key that may be left out, or null.
  bool has(const char* key) {
    const auto found = object_.find(key);
    if (found == object_.end()) return false;
    seen_.insert(key);
    return !found->is_null();
  }

  /// A key that is there, with whatever value.
  const json& value(const char* key) { return member(key); }

  /// To be called when all keys have been asked for.
  void finish() const {
    if (source_.newer) return;
    for (const auto& [key, value] : object_.items())
      if (seen_.count(key) == 0) source_.fail("unknown key '" + path_of(key) + "'");
  }

 private:
  std::string path_of(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }

  [[noreturn]] void wrong_type(const std::string& path, const json& value, const std::string& expected) const {
    source_.fail((path.empty() ? "it" : "'" + path + "'") + " is " + value.dump() + ", expected " + expected);
  }

  const json& member(const char* key) {
    const auto found = object_.find(key);
    if (found == object_.end()) source_.fail("missing key '" + path_of(key) + "'");
    seen_.insert(key);
    return *found;
  }

  std::vector<std::pair<std::string, const json*>> list(const char* key) {
    const json& values = member(key);
    if (!values.is_array()) wrong_type(path_of(key), values, "a list");
    std::vector<std::pair<std::string, const json*>> found;
    for (const json& value : values)
      found.emplace_back(path_of(key) + "[" + std::to_string(found.size()) + "]", &value);
    return found;
  }

  std::string text_of(const std::string& path, const json& value) const {
    if (!value.is_string()) wrong_type(path, value, "a string");
    return value.get<std::string>();
  }

  int integer_of(const std::string& path, const json& value) const {
    if (!value.is_number_integer()) wrong_type(path, value, "an integer");
    // Beyond an int, only that it is out of every range matters.
    constexpr double largest = std::numeric_limits<int>::max();
    return static_cast<int>(std::clamp(value.get<double>(), -largest, largest));
  }

  const json& object_;
  std::string path_;
  const Source& source_;
  std::set<std::string> seen_;
};

/// Takes the digits off the start of `text`. @return their number; nothing if there are none, or more than nine
std::optional<int> take_number(std::string_view& text) {
  const auto length = std::min(text.find_first_not_of("0123456789"), text.size());
  if (length == 0 || length > 9) return std::nullopt;
  const int number = std::stoi(std::string(text.substr(0, length)));
  text.remove_prefix(length);
  return number;
}

/// (major, minor) of "1.0"; nothing for any other text.
std::optional<std::pair<int, int>> parse_schema(std::string_view text) {
  const auto major = take_number(text);
  if (!major || text.empty() || text[0] != '.') return std::nullopt;
  text.remove_prefix(1);
  const auto minor = take_number(text);
  if (!minor || !text.empty()) return std::nullopt;
  return std::pair{*major, *minor};
}

/// What one value of an output belongs to.
enum class Scope { atom, system, edge };

const char* to_string(Scope scope) {
  return scope == Scope::atom ? "atom" : scope == Scope::system ? "system" : "edge";
}

struct Output {
  std::string name;
  std::string unit;
  Scope scope;
};

void check_schema(Source& source) {
  const auto version = parse_schema(source.schema);
  if (!version) source.fail("'schema' is " + json(source.schema).dump() + ", expected MAJOR.MINOR, such as \"1.0\"");
  const auto [major, minor] = *version;
  if (major != format::schema_major)
    source.fail(
        "schema is " + source.schema + ", this mlip-deploy reads " + std::to_string(format::schema_major) + ".x",
        major > format::schema_major ? upgrade_line : export_line);
  source.newer = minor > format::schema_minor;
}

void check_requirements(const std::vector<std::string>& required, const Source& source) {
  std::string unknown;
  for (const std::string& feature : required)
    if (std::find(format::features.begin(), format::features.end(), feature) == format::features.end())
      unknown += (unknown.empty() ? "'" : ", '") + feature + "'";
  if (!unknown.empty())
    source.fail("the file requires " + unknown + ", which this mlip-deploy does not know", upgrade_line);
}

/// The rules of `Setting` in artifact/contract.py, in its words.
Setting read_setting(Reader& reader, const Source& source) {
  Setting setting;
  setting.name = reader.text("name");
  const std::string subject = "setting '" + setting.name + "'";
  setting.kind = reader.choice("kind", {SettingKind::number, SettingKind::integer, SettingKind::choice});
  if (reader.has("unit")) setting.unit = reader.text("unit");
  if (reader.has("range")) {
    const auto range = reader.numbers("range");
    if (range.size() != 2) source.fail("the range of " + subject + " is not two numbers");
    setting.range = {range[0], range[1]};
  }
  if (reader.has("choices")) setting.choices = reader.texts("choices");
  const bool has_default = reader.has("default");
  const json& value = has_default ? reader.value("default") : json();
  reader.finish();

  const bool is_choice = setting.kind == SettingKind::choice;
  if (is_choice == setting.choices.empty())
    source.fail(subject + " of kind " + to_string(setting.kind) + (setting.choices.empty() ? " without" : " with") +
                " choices");
  if (is_choice && (setting.range || !setting.unit.empty()))
    source.fail(subject + " is a choice, which has no range and no unit");
  if (setting.range && !(setting.range->first < setting.range->second)) source.fail(subject + " has an empty range");
  if (!has_default) return setting;
  const auto chosen = std::find(setting.choices.begin(), setting.choices.end(), value);
  if (is_choice && chosen != setting.choices.end())
    setting.default_value = static_cast<double>(chosen - setting.choices.begin());
  else if (!is_choice && value.is_number() && setting.refusal(value.get<double>()).empty())
    setting.default_value = value.get<double>();
  else
    source.fail(subject + " has the default " + value.dump() + ", which it does not accept");
  return setting;
}

/// What this library would have to do something for, or else compute something else, must be required.
void check_required(const std::string& feature, const std::vector<std::string>& required, const std::string& reason,
                    const Source& source) {
  if (std::find(required.begin(), required.end(), feature) == required.end())
    source.fail(reason + ", so 'requires' must name '" + feature + "'");
}

void check_operators(const std::map<std::string, int>& operators, const Source& source) {
  for (const auto& [name, version] : operators) {
    if (version < 1)
      source.fail("'operators." + name + "' is " + std::to_string(version) + ", expected a positive number");
    const auto known = std::find_if(std::begin(format::operators), std::end(format::operators),
                                    [&, &wanted = name](const auto& known) { return known.name == wanted; });
    if (known == std::end(format::operators))
      source.fail("the file needs the operator " + name + ", which this mlip-deploy does not have", upgrade_line);
    if (version >= known->oldest && version <= known->newest) continue;
    const std::string ours = known->oldest == known->newest
                                 ? "version " + std::to_string(known->newest)
                                 : "versions " + std::to_string(known->oldest) + " to " + std::to_string(known->newest);
    source.fail("the file needs version " + std::to_string(version) + " of the operator " + name +
                    ", this mlip-deploy has " + ours,
                version > known->newest ? upgrade_line : export_line);
  }
}

/// The first word that is there twice, or "".
std::string repeated(const std::vector<std::string>& words) {
  std::set<std::string> seen;
  for (const std::string& word : words)
    if (!seen.insert(word).second) return word;
  return "";
}

void check_outputs(const std::vector<Output>& outputs, const Source& source) {
  for (const Output& wanted :
       {Output{"atomic_energies", "eV", Scope::atom}, Output{"edge_gradients", "eV/angstrom", Scope::edge}})
    if (std::none_of(outputs.begin(), outputs.end(), [&](const Output& output) {
          return output.name == wanted.name && output.unit == wanted.unit && output.scope == wanted.scope;
        }))
      source.fail("'outputs' lacks '" + wanted.name + "' with unit '" + wanted.unit + "' and scope '" +
                  to_string(wanted.scope) + "'");
  std::vector<std::string> names;
  for (const Output& output : outputs) names.push_back(output.name);
  if (const auto twice = repeated(names); !twice.empty()) source.fail("'outputs' names '" + twice + "' twice");
}

bool is_symbol(const std::string& text) {
  return !text.empty() && text.size() <= 3 && text[0] >= 'A' && text[0] <= 'Z' &&
         std::all_of(text.begin() + 1, text.end(), [](char c) { return c >= 'a' && c <= 'z'; });
}

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

/// What must hold between the values. The same rules in the same order: `_rules` of artifact/contract.py.
void check_values(const Contract& contract, const Source& source) {
  const auto number = [](double value) { return json(value).dump(); };
  if (!is_sha256(contract.source_sha256))
    source.fail("'model.source_sha256' is " + json(contract.source_sha256).dump() +
                ", expected 64 lower-case hexadecimal digits");
  if ((contract.backend == BackendKind::aotinductor) != contract.compiled_for.has_value())
    source.fail(std::string("back end ") + to_string(contract.backend) +
                (contract.compiled_for ? " with" : " without") + " 'compiled_for'");
  if (contract.elements.empty()) source.fail("'elements' is empty");
  for (const std::string& element : contract.elements)
    if (!is_symbol(element)) source.fail("'elements' names '" + element + "', expected chemical symbols");
  if (const auto twice = repeated(contract.elements); !twice.empty())
    source.fail("'elements' names '" + twice + "' twice");
  if (!(contract.cutoff > 0.0)) source.fail("'cutoff' is " + number(contract.cutoff) + ", expected a positive number");
  const int layers = contract.message_passing_layers;
  if (layers < 0 || layers > most_layers)
    source.fail("'message_passing_layers' is " + std::to_string(layers) + ", expected 0 to " +
                std::to_string(most_layers));
  const double range = contract.cutoff * std::max(1, layers);
  if (std::fabs(contract.interaction_range - range) > rounding * range)
    source.fail("'interaction_range' is " + number(contract.interaction_range) + ", expected " + number(range) +
                ": the cutoff times the layers, and at least the cutoff");
  if (contract.parallel == Parallel::local && layers > 1)
    source.fail("'parallel' is \"local\" with " + std::to_string(layers) +
                " message-passing layers, expected 'exchange' or 'halo'");
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

const char* to_string(Positions positions) {
  return positions == Positions::none ? "none" : positions == Positions::periodic ? "periodic" : "any";
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

Contract parse_contract(const std::string& text, const std::string& name) {
  Source source{name, ""};
  json document;
  try {
    document = json::parse(text);
  } catch (const json::exception& error) {
    source.fail(std::string("not valid JSON (") + error.what() + ")");
  }

  Contract contract;
  Reader root(document, "", source);
  contract.schema = source.schema = root.text("schema");
  check_schema(source);
  const auto required = root.texts("requires");
  check_requirements(required, source);
  for (Reader& setting : root.objects("settings")) contract.settings.push_back(read_setting(setting, source));
  std::vector<std::string> setting_names;
  for (const Setting& setting : contract.settings) setting_names.push_back(setting.name);
  if (const auto twice = repeated(setting_names); !twice.empty()) source.fail("'settings' names '" + twice + "' twice");
  if (!contract.settings.empty()) check_required("settings", required, "'settings' is not empty", source);
  contract.collectives = root.texts("collectives");
  for (const std::string& collective : contract.collectives)
    check_required(collective, required, "'collectives' names '" + collective + "'", source);
  if (root.has("positions")) {
    contract.positions = root.choice("positions", {Positions::periodic, Positions::any});
    check_required("positions", required, "the model takes positions", source);
  }

  Reader producer = root.object("producer");
  contract.producer = producer.text("package");
  contract.producer += " " + producer.text("version");
  contract.torch_version = producer.text("torch");
  producer.finish();

  Reader model = root.object("model");
  contract.model_family = model.text("family");
  contract.model_name = model.text("name");
  contract.source_sha256 = model.text("source_sha256");
  contract.license = model.text("license");
  contract.citation = model.text("citation");
  model.finish();

  contract.backend = root.choice("backend", {BackendKind::torchscript, BackendKind::aotinductor});
  if (root.has("compiled_for")) {
    Reader compiled = root.object("compiled_for");
    contract.compiled_for = CompiledFor{compiled.text("torch"), compiled.text("device"), compiled.text("processor")};
    compiled.finish();
  }
  contract.elements = root.texts("elements");
  contract.cutoff = root.number("cutoff");
  contract.message_passing_layers = root.integer("message_passing_layers");
  contract.interaction_range = root.number("interaction_range");
  contract.precision = root.choice("dtype", {Precision::float32, Precision::float64});

  Reader units = root.object("units");
  units.fixed("length", "angstrom");
  units.fixed("energy", "eV");
  units.finish();

  contract.parallel = root.choice("parallel", {Parallel::local, Parallel::exchange, Parallel::halo});
  for (Reader& input : root.objects("inputs")) {
    const auto input_name = input.text("name"), value = input.text("value");
    const auto choices = input.texts("choices");
    input.finish();
    if (std::find(choices.begin(), choices.end(), value) == choices.end())
      source.fail("input '" + input_name + "' is '" + value + "', expected one of " + json(choices).dump());
  }
  std::vector<Output> outputs;
  for (Reader& output : root.objects("outputs")) {
    outputs.push_back(
        {output.text("name"), output.text("unit"), output.choice("scope", {Scope::atom, Scope::system, Scope::edge})});
    output.finish();
    if (outputs.back().scope == Scope::atom && outputs.back().name != "atomic_energies")
      contract.extras.push_back(outputs.back().name);
  }
  contract.atomic_energies_meaningful = root.boolean("atomic_energies_meaningful");

  Reader frame = root.object("energy_frame");
  contract.energy_frame = frame.text("functional");
  for (const char* key : {"hubbard_u", "corrections", "dispersion"}) {
    const auto value = frame.text(key);
    if (value != "none") contract.energy_frame += ", " + std::string(key) + " " + value;
  }
  frame.finish();

  contract.operators = root.integers("operators");
  if (root.has("inversion_symmetric")) root.boolean("inversion_symmetric");  // read by mlip validate
  if (root.has("differentiable_energies")) contract.differentiable_energies = root.boolean("differentiable_energies");
  if (root.has("features")) {
    contract.features = root.integer("features");
    if (contract.features < 1)
      source.fail("'features' is " + std::to_string(contract.features) + ", expected a positive number");
  }
  root.finish();

  check_operators(contract.operators, source);
  check_values(contract, source);
  check_outputs(outputs, source);
  return contract;
}

}  // namespace mlip
