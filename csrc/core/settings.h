// Values of the whole system that an engine gives at run time, such as its total charge. The contract declares them; a
// model reads them as one more argument of its forward method.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace mlip {

enum class SettingKind { number, integer, choice };

struct Setting {
  std::string name;
  SettingKind kind = SettingKind::number;
  std::string unit;                                ///< of a number; empty where it has none
  std::optional<std::pair<double, double>> range;  ///< least and largest number
  std::vector<std::string> choices;
  std::optional<double> default_value;  ///< a choice by its index; nothing for a setting that has to be given

  /// "an integer from -2 to 2, e" or "one of omat, omol"
  std::string expected() const;
  /// "-1 e" or "omol"
  std::string describe(double value) const;
  /// @return why it does not accept a value; empty if it does
  std::string refusal(double value) const;
  /// Any value that it accepts.
  double example() const;
};

/// Names of settings with a number, or one of the choices.
using GivenSettings = std::vector<std::pair<std::string, std::variant<double, std::string>>>;

/// A value for each setting of a contract.
class SettingValues {
 public:
  /// At their defaults, but for those given. @throws Error as set() does.
  explicit SettingValues(std::vector<Setting> declared, const GivenSettings& given = {});

  /// @throws Error for a name that is not declared and for a value that is not accepted.
  void set(const std::string& name, double value);
  /// @param text a number, or one of the choices
  void set(const std::string& name, const std::string& text);

  /// In the order of the contract, a choice by its index. @throws Error that names a setting that has no value.
  std::vector<double> values() const;
  /// "charge -1 e, task omol"; what has no value is left out.
  std::string describe() const;

 private:
  std::size_t find(const std::string& name) const;

  std::vector<Setting> declared_;
  std::vector<std::optional<double>> values_;
};

const char* to_string(SettingKind kind);

}  // namespace mlip
