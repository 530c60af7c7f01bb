// Standard atomic masses, to notice when a LAMMPS type and the element that it is mapped to do not belong together, and
// covalent radii, to notice atoms on top of each other.
#pragma once

#include <string>

namespace mlip {

/// A chemical element, its conventional mass (IUPAC; the longest-lived isotope where there is none) and its covalent
/// radius (Cordero et al., Dalton Trans. 2008, 2832; beyond curium as ASE has it).
struct Element {
  const char* symbol;
  double mass;    ///< Da
  double radius;  ///< Å
};

inline constexpr Element element_table[] = {
    {"H", 1.008, 0.31},    {"He", 4.0026, 0.28},  {"Li", 6.94, 1.28},    {"Be", 9.01218, 0.96}, {"B", 10.81, 0.84},
    {"C", 12.011, 0.76},   {"N", 14.007, 0.71},   {"O", 15.999, 0.66},   {"F", 18.9984, 0.57},  {"Ne", 20.1797, 0.58},
    {"Na", 22.9898, 1.66}, {"Mg", 24.305, 1.41},  {"Al", 26.9815, 1.21}, {"Si", 28.085, 1.11},  {"P", 30.9738, 1.07},
    {"S", 32.06, 1.05},    {"Cl", 35.45, 1.02},   {"Ar", 39.948, 1.06},  {"K", 39.0983, 2.03},  {"Ca", 40.078, 1.76},
    {"Sc", 44.9559, 1.7},  {"Ti", 47.867, 1.6},   {"V", 50.9415, 1.53},  {"Cr", 51.9961, 1.39}, {"Mn", 54.938, 1.39},
    {"Fe", 55.845, 1.32},  {"Co", 58.9332, 1.26}, {"Ni", 58.6934, 1.24}, {"Cu", 63.546, 1.32},  {"Zn", 65.38, 1.22},
    {"Ga", 69.723, 1.22},  {"Ge", 72.63, 1.2},    {"As", 74.9216, 1.19}, {"Se", 78.971, 1.2},   {"Br", 79.904, 1.2},
    {"Kr", 83.798, 1.16},  {"Rb", 85.4678, 2.2},  {"Sr", 87.62, 1.95},   {"Y", 88.9058, 1.9},   {"Zr", 91.224, 1.75},
    {"Nb", 92.9064, 1.64}, {"Mo", 95.95, 1.54},   {"Tc", 97.9072, 1.47}, {"Ru", 101.07, 1.46},  {"Rh", 102.906, 1.42},
    {"Pd", 106.42, 1.39},  {"Ag", 107.868, 1.45}, {"Cd", 112.414, 1.44}, {"In", 114.818, 1.42}, {"Sn", 118.71, 1.39},
    {"Sb", 121.76, 1.39},  {"Te", 127.6, 1.38},   {"I", 126.904, 1.39},  {"Xe", 131.293, 1.4},  {"Cs", 132.905, 2.44},
    {"Ba", 137.327, 2.15}, {"La", 138.905, 2.07}, {"Ce", 140.116, 2.04}, {"Pr", 140.908, 2.03}, {"Nd", 144.242, 2.01},
    {"Pm", 144.913, 1.99}, {"Sm", 150.36, 1.98},  {"Eu", 151.964, 1.98}, {"Gd", 157.25, 1.96},  {"Tb", 158.925, 1.94},
    {"Dy", 162.5, 1.92},   {"Ho", 164.93, 1.92},  {"Er", 167.259, 1.89}, {"Tm", 168.934, 1.9},  {"Yb", 173.054, 1.87},
    {"Lu", 174.967, 1.87}, {"Hf", 178.49, 1.75},  {"Ta", 180.948, 1.7},  {"W", 183.84, 1.62},   {"Re", 186.207, 1.51},
    {"Os", 190.23, 1.44},  {"Ir", 192.217, 1.41}, {"Pt", 195.084, 1.36}, {"Au", 196.967, 1.36}, {"Hg", 200.592, 1.32},
    {"Tl", 204.38, 1.45},  {"Pb", 207.2, 1.46},   {"Bi", 208.98, 1.48},  {"Po", 208.982, 1.4},  {"At", 209.987, 1.5},
    {"Rn", 222.018, 1.5},  {"Fr", 223.02, 2.6},   {"Ra", 226.025, 2.21}, {"Ac", 227.028, 2.15}, {"Th", 232.038, 2.06},
    {"Pa", 231.036, 2},    {"U", 238.029, 1.96},  {"Np", 237.048, 1.9},  {"Pu", 244.064, 1.87}, {"Am", 243.061, 1.8},
    {"Cm", 247.07, 1.69},  {"Bk", 247.07, 2},     {"Cf", 251.08, 2},     {"Es", 252.083, 2},    {"Fm", 257.095, 2},
    {"Md", 258.098, 2},    {"No", 259.101, 2},    {"Lr", 262.11, 2},     {"Rf", 267.122, 2},    {"Db", 268.126, 2},
    {"Sg", 271.134, 2},    {"Bh", 270.133, 2},    {"Hs", 269.134, 2},    {"Mt", 278.156, 2},    {"Ds", 281.165, 2},
    {"Rg", 281.166, 2},    {"Cn", 285.177, 2},    {"Nh", 286.182, 2},    {"Fl", 289.19, 2},     {"Mc", 289.194, 2},
    {"Lv", 293.204, 2},    {"Ts", 293.208, 2},    {"Og", 294.214, 2},
};

/// Null for a name that is not an element's symbol.
inline const Element* find_element(const std::string& symbol) {
  for (const auto& element : element_table)
    if (symbol == element.symbol) return &element;
  return nullptr;
}

/// Da, or 0 for a name that is not an element's symbol.
inline double standard_mass(const std::string& symbol) {
  const Element* element = find_element(symbol);
  return element ? element->mass : 0.0;
}

/// Å, or 0 for a name that is not an element's symbol.
inline double covalent_radius(const std::string& symbol) {
  const Element* element = find_element(symbol);
  return element ? element->radius : 0.0;
}

}  // namespace mlip
