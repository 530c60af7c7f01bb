#include "core/settings.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "core/error.h"

namespace mlip {
namespace {

std::string in_digits(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.10g", value);
  return text;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

}  // namespace

const char* to_string(SettingKind kind) {
  return kind == SettingKind::number ? "number" : kind == SettingKind::integer ? "integer" : "choice";
}

std::string Setting::expected() const {
  if (kind == SettingKind::choice) return "one of " + joined(choices);
  std::string text = kind == SettingKind::integer ? "an integer" : "a number";
  if (range) text += " from " + in_digits(range->first) + " to " + in_digits(range->second);
  return unit.empty() ? text : text + ", " + unit;
}

std::string Setting::describe(double value) const {
  if (kind == SettingKind::choice) return choices.at(static_cast<std::size_t>(value));
  return in_digits(value) + (unit.empty() ? "" : " " + unit);
}

std::string Setting::refusal(double value) const {
  const bool whole = value == std::floor(value);
  const bool accepted = kind == SettingKind::choice
                            ? whole && value >= 0.0 && value < static_cast<double>(choices.size())
                            : std::isfinite(value) && (kind == SettingKind::number || whole) &&
                                  (!range || (value >= range->first && value <= range->second));
  return accepted ? "" : "setting '" + name + "' is " + in_digits(value) + ", expected " + expected();
}

double Setting::example() const {
  if (default_value) return *default_value;
  if (refusal(0.0).empty()) return 0.0;
  return kind == SettingKind::integer ? std::ceil(range->first) : range->first;
}

SettingValues::SettingValues(std::vector<Setting> declared, const GivenSettings& given)
    : declared_(std::move(declared)) {
  for (const Setting& setting : declared_) values_.push_back(setting.default_value);
  for (const auto& [name, value] : given) std::visit([this, &name = name](const auto& one) { set(name, one); }, value);
}

std::size_t SettingValues::find(const std::string& name) const {
  const auto found =
      std::find_if(declared_.begin(), declared_.end(), [&](const Setting& setting) { return setting.name == name; });
  if (found != declared_.end()) return static_cast<std::size_t>(found - declared_.begin());
  std::string known;
  for (const Setting& setting : declared_)
    known += (known.empty() ? ". It has: " : "; ") + setting.name + " (" + setting.expected() + ")";
  throw Error("the model has no setting '" + name + "'" + (known.empty() ? ". It has none" : known));
}

void SettingValues::set(const std::string& name, double value) {
  const std::size_t k = find(name);
  if (const std::string reason = declared_[k].refusal(value); !reason.empty()) throw Error(reason);
  values_[k] = value;
}

void SettingValues::set(const std::string& name, const std::string& text) {
  const std::size_t k = find(name);
  const Setting& setting = declared_[k];
  if (setting.kind == SettingKind::choice) {
    const auto found = std::find(setting.choices.begin(), setting.choices.end(), text);
    if (found == setting.choices.end())
      throw Error("setting '" + name + "' is '" + text + "', expected " + setting.expected());
    values_[k] = static_cast<double>(found - setting.choices.begin());
    return;
  }
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0')
    throw Error("setting '" + name + "' is '" + text + "', expected " + setting.expected());
  set(name, value);
}

std::vector<double> SettingValues::values() const {
  std::vector<double> all;
  for (std::size_t k = 0; k < declared_.size(); ++k) {
    if (!values_[k])
      throw Error("the model needs a value of its setting '" + declared_[k].name + "' (" + declared_[k].expected() +
                  "), which has no default");
    all.push_back(*values_[k]);
  }
  return all;
}

std::string SettingValues::describe() const {
  std::string text;
  for (std::size_t k = 0; k < declared_.size(); ++k)
    if (values_[k]) text += (text.empty() ? "" : ", ") + declared_[k].name + " " + declared_[k].describe(*values_[k]);
  return text;
}

}  // namespace mlip
