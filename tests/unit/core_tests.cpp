// The core without Python, without a model: contract, graph, neighbour list, units, checksums, validation record. Exits
// with the number of failures.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "core/archive.h"
#include "core/contract.h"
#include "core/crc32.h"
#include "core/elements.h"
#include "core/error.h"
#include "core/graph.h"
#include "core/neighbours.h"
#include "core/processor_time.h"
#include "core/settings.h"
#include "core/sha256.h"
#include "core/unfolded.h"
#include "core/units.h"
#include "core/validation_record.h"
#include "model/exchange_relay.h"
#include "model/model.h"
#include "model/moment_exchange.h"
#include "unit/expect.h"

namespace {

using mlip::testing::expect;
using mlip::testing::expect_error;
using mlip::testing::expect_near;

std::string contract_json() {
  return R"({"schema": "1.0", "requires": [],
    "producer": {"package": "mlip-deploy", "version": "0", "torch": "2"},
    "model": {"family": "f", "name": "m", "license": "MIT", "citation": "c",
      "source_sha256": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
    "backend": "torchscript", "elements": ["Si", "O"], "cutoff": 5.0, "message_passing_layers": 2,
    "interaction_range": 10.0, "dtype": "float32", "units": {"length": "angstrom", "energy": "eV"},
    "parallel": "exchange", "collectives": [], "inputs": [], "settings": [],
    "outputs": [{"name": "atomic_energies", "unit": "eV", "scope": "atom"},
      {"name": "edge_gradients", "unit": "eV/angstrom", "scope": "edge"},
      {"name": "magmoms", "unit": "mu_B", "scope": "atom"}, {"name": "gap", "unit": "eV", "scope": "system"}],
    "atomic_energies_meaningful": false,
    "energy_frame": {"functional": "PBE", "hubbard_u": "none", "corrections": "MP2020", "dispersion": "none"},
    "operators": {"mlip::ghost_gather": 1}})";
}

// Which contracts are refused: tests/contracts.json, replayed by tests/unit/test_contract.py.
void test_contract() {
  const auto contract = mlip::parse_contract(contract_json(), "file");
  expect(contract.type_index("O") == 1, "type index of O");
  expect(contract.parallel == mlip::Parallel::exchange, "parallel mode");
  expect(contract.precision == mlip::Precision::float32, "precision");
  expect(contract.extras == std::vector<std::string>{"magmoms"}, "values of every atom alone are extras");
  expect(!contract.atomic_energies_meaningful, "meaning of atomic energies");
  expect(contract.energy_frame == "PBE, corrections MP2020", "energy frame");
  expect(contract.operators.at("mlip::ghost_gather") == 1, "version of an operator");
  expect_error([&] { contract.type_index("Xx"); }, "'Xx', not an element of m (2 elements: Si O)");
  expect_error([] { mlip::parse_contract("{", "file"); }, "'file': contract: not valid JSON");
}

void test_graph() {
  // Atom 2 is an engine's ghost of atom 0, one cell away along x; pair (1, 2) lies inside the cutoff.
  mlip::CandidateEdges candidates;
  candidates.node_of = {0, 1, 0};
  candidates.neighbours = {1};
  candidates.close_centre(0);
  candidates.neighbours.insert(candidates.neighbours.end(), {0, 2});
  candidates.close_centre(1);
  const double positions[9] = {0, 0, 0, 3, 0, 0, 4, 1, 0};
  mlip::Graph graph;
  graph.n_owned = 2;
  graph.node_types = {0, 0};
  mlip::refresh_edges(candidates, positions, 1.0, 2.0, graph);
  expect(graph.n_edges() == 1, "one edge inside the cutoff");
  expect(graph.centres[0] == 1 && graph.neighbours[0] == 0, "the ghost is folded onto its owner");
  expect_near(graph.vectors[0], 1.0, 0, "r_ij = r_j - r_i");

  const std::vector<double> gradients = {2.0, -1.0, 0.5};
  std::vector<double> forces(6, 0.0);
  mlip::add_forces(graph, gradients, forces.data());
  expect_near(forces[3], 2.0, 0, "F_i = +g");
  expect_near(forces[0], -2.0, 0, "F_j = -g");
  const auto w = mlip::virial(graph, gradients);
  expect_near(w[0], -2.0, 0, "W_xx = -r_x g_x");
  expect_near(w[1], 1.0, 0, "W_xy = -r_x g_y");
  expect_near(w[3], -2.0, 0, "W_yx = -r_y g_x");
  std::vector<double> per_atom(12, 0.0);
  mlip::add_atom_virials(graph, gradients, per_atom.data());
  expect_near(per_atom[0] + per_atom[6], w[0], 1e-15, "atoms' virials sum to the total, xx");
  expect_near(per_atom[3] + per_atom[9], 0.5 * (w[1] + w[3]), 1e-15, "atoms' virials sum to the total, xy");
  std::vector<double> centroid(18, 0.0);
  mlip::add_centroid_virials(graph, gradients, centroid.data());
  const int rows[9] = {0, 1, 2, 0, 0, 1, 1, 2, 2}, columns[9] = {0, 1, 2, 1, 2, 2, 0, 0, 1};
  for (int c = 0; c < 9; ++c) {
    expect_near(centroid[c], w[3 * rows[c] + columns[c]], 0, "the neighbour, atom 0, has the edge's whole virial");
    expect_near(centroid[9 + c], 0.0, 0, "the centre has none of it");
  }

  // Buffers stay where they are from step to step.
  const double* buffer = graph.vectors.data();
  mlip::refresh_edges(candidates, positions, 1.0, 2.0, graph);
  expect(graph.vectors.data() == buffer && graph.n_edges() == 1, "a second step allocates nothing");
  mlip::refresh_edges(candidates, positions, 0.5, 2.0, graph);
  expect(graph.n_edges() == 3, "half the length unit brings every candidate inside the cutoff");

  // The image of atom 0 by its shift, as lists of whole cells say it.
  candidates.images = {0, 0, 1};
  candidates.shifts = {{0, 0, 0}, {4, 1, 0}};
  candidates.neighbours[2] = 0;
  mlip::refresh_edges(candidates, positions, 1.0, 2.0, graph);
  expect(graph.n_edges() == 1 && graph.centres[0] == 1 && graph.neighbours[0] == 0, "the edge to an image");
  expect_near(graph.vectors[0], 1.0, 0, "r_ij = r_j - r_i + S·h, x");
  expect_near(graph.vectors[1], 1.0, 0, "r_ij = r_j - r_i + S·h, y");
}

/// A row of atoms 1.5 Å apart, folded onto one.
mlip::Graph row_of_atoms() {
  mlip::Graph graph;
  graph.n_owned = 1;
  graph.node_types = {3};
  for (const double x : {1.5, -1.5}) {
    const double vector[3] = {x, 0, 0};
    graph.add_edge(0, 0, vector);
  }
  return graph;
}

void test_unfolded() {
  mlip::UnfoldedGraph unfolded;
  const std::vector<double> home = {7, 8, 9};
  unfolded.build(row_of_atoms(), home, 1);
  expect(unfolded.graph().n_nodes() == 3 && unfolded.n_folded() == 1, "an image to either side");
  expect(unfolded.graph().neighbours == std::vector<std::int64_t>{1, 2}, "edges lead to images");
  expect(unfolded.graph().node_types == std::vector<std::int64_t>{3, 3, 3}, "of the atom's type");
  expect_near(unfolded.positions()[0], 0.0, 1e-15, "the owned atoms are around the origin");
  expect_near(unfolded.positions()[3], 1.5, 1e-15, "and the images where edges end");
  expect(unfolded.folded().neighbours == std::vector<std::int64_t>{0, 0}, "and folded again they are the atom");

  unfolded.build(row_of_atoms(), home, 2);
  expect(unfolded.graph().n_nodes() == 5 && unfolded.graph().n_edges() == 6, "with two hops images have edges too");
  expect(unfolded.graph().neighbours == std::vector<std::int64_t>{1, 2, 3, 0, 0, 4}, "those that come back, home");
  expect_near(unfolded.positions()[9], 3.0, 1e-15, "the second image");
  const mlip::Graph folded = unfolded.folded();
  expect(folded.n_nodes() == 1 && *std::max_element(folded.centres.begin(), folded.centres.end()) == 0, "all at home");
}

void test_moment_exchange() {
  mlip::UnfoldedGraph unfolded;
  unfolded.build(row_of_atoms(), {0, 0, 0}, 1);
  mlip::MomentExchange exchange(unfolded, nullptr);
  exchange.find_homes();
  std::vector<double> rows = {5, 0, 0};
  const mlip::FeatureRows view{rows.data(), mlip::Precision::float64, 1, 3, 1};
  exchange.gather(view);
  expect(rows == std::vector<double>{5, 5, 5}, "images have the features of their atom");
  exchange.carry_adjoints();
  rows = {1, 2, 3};
  exchange.scatter_add(view);
  expect_near(rows[0], 6.0, 0, "adjoints add up at home");
  exchange.carry_moments(0);
  rows = {10, 20, 30};
  exchange.scatter_add(view);
  expect_near(rows[0], 10 + (20 - 1.5 * 2) + (30 + 1.5 * 3), 0, "and moments less the shift times the adjoint");
  expect_error([&] { exchange.scatter_add(view); }, "two backward passes of one model exchange other features");
  exchange.carry_moments(1);
  rows = {10, 20, 30};
  exchange.scatter_add(view);
  expect_near(rows[0], 60, 0, "along an axis without a shift");
}

void test_neighbours() {
  mlip::NeighbourList list;
  mlip::Graph graph;
  const auto build = [&](const double* positions, std::int64_t n_atoms, const std::array<double, 9>& cell,
                         const std::array<bool, 3>& periodic, double cutoff) {
    const mlip::NewCandidates is_new = list.update(positions, n_atoms, cell, periodic, cutoff);
    mlip::refresh_edges(list.candidates(), positions, 1.0, cutoff, graph);
    return is_new == mlip::NewCandidates::all;
  };
  const double atom[3] = {0.3, -7.0, 100.0};  // not wrapped
  const std::array<double, 9> cubic = {2, 0, 0, 0, 2, 0, 0, 0, 2};
  // Lattice points of a simple cubic lattice of 2 Å within 4.1 Å: 6 + 12 + 8 + 6 (at 4 Å)
  build(atom, 1, cubic, {true, true, true}, 4.1);
  expect(graph.n_edges() == 32, "several images in a small cell: " + std::to_string(graph.n_edges()));
  build(atom, 1, cubic, {true, true, false}, 4.1);
  expect(graph.n_edges() == 12, "a plane of images: " + std::to_string(graph.n_edges()));
  build(atom, 1, cubic, {false, true, false}, 4.1);
  expect(graph.n_edges() == 4, "a row of images: " + std::to_string(graph.n_edges()));
  const std::array<double, 9> none = {};
  build(atom, 1, none, {false, false, false}, 4.1);
  expect(graph.n_edges() == 0, "an isolated atom has no edges");
  build(atom, 0, none, {false, false, false}, 4.1);
  expect(graph.n_edges() == 0, "no atoms, no edges");
  const double pair[6] = {0, 0, 0, 1, 2, 2};
  build(pair, 2, none, {false, false, false}, 4.0);
  expect(graph.n_edges() == 2, "two ordered pairs of a dimer");
  build(pair, 2, none, {false, false, false}, 3.0);
  expect(graph.n_edges() == 0, "a pair exactly at the cutoff is outside");
  expect(!build(pair, 2, none, {false, false, false}, 3.0), "the same positions need no new candidates");
  expect(build(pair, 2, none, {false, false, false}, 4.0), "another cutoff needs new candidates");
  expect_error([&] { build(atom, 1, none, {true, true, true}, 4.0); }, "no volume");
  // Fragments that have flown away from each other, in one direction, two and three.
  for (const double far : {5e3, 1e6, 1e9})
    for (int thin = 0; thin < 3; ++thin)
      for (const int wide : {1, 2, 3}) {
        double fragments[9] = {};
        for (int k = 0; k < wide; ++k) fragments[3 + (thin + k + 1) % 3] = fragments[6 + (thin + k + 1) % 3] = far;
        fragments[6 + thin] += 2.5;
        build(fragments, 3, none, {false, false, false}, 4.0);
        expect(graph.n_edges() == 2, "one pair in a wide system: " + std::to_string(graph.n_edges()));
      }
  const double broken[3] = {0, std::nan(""), 0};
  expect_error([&] { build(broken, 1, cubic, {true, true, true}, 4.0); }, "position of atom 0");
}

void test_neighbours_on_threads() {
  std::vector<double> positions;
  for (int k = 0; k < 3 * 600; ++k) positions.push_back(15.0 * std::fmod(0.618034 * (k + 1) * (k % 7 + 1), 1.0));
  const std::array<double, 9> cell = {15, 0, 0, 3, 14, 0, -2, 1, 16};
  mlip::NeighbourList one, several;
  several.use_threads(3);
  for (auto* list : {&one, &several}) list->update(positions.data(), 600, cell, {true, true, true}, 4.0);
  expect(one.candidates().n_candidates() > 1000, "candidates were found");
  expect(one.candidates().neighbours == several.candidates().neighbours &&
             one.candidates().images == several.candidates().images &&
             one.candidates().shifts == several.candidates().shifts &&
             one.candidates().first == several.candidates().first,
         "the same candidates on three threads as on one, in the same order");
  mlip::Graph graph;
  mlip::refresh_edges(one.candidates(), positions.data(), 1.0, 4.0, graph);
  std::vector<double> lengths;
  for (std::int64_t e = 0; e < graph.n_edges(); ++e)
    lengths.push_back(std::hypot(graph.vectors[3 * e], graph.vectors[3 * e + 1], graph.vectors[3 * e + 2]));
  std::int64_t longer = 0, others = 0;
  for (std::int64_t e = 1; e < graph.n_edges(); ++e)
    if (graph.centres[e] == graph.centres[e - 1]) ++(lengths[e] > lengths[e - 1] - 1e-9 ? longer : others);
  expect(longer > 1000 && others == 0, "edges of a centre stand by distance");
}

using Edge = std::array<long, 5>;  // nodes and vector, 1e-9 Å

std::vector<Edge> edges_of(const mlip::NeighbourList& list, const std::vector<double>& positions, double cutoff) {
  mlip::Graph graph;
  mlip::refresh_edges(list.candidates(), positions.data(), 1.0, cutoff, graph);
  std::vector<Edge> edges;
  for (std::int64_t e = 0; e < graph.n_edges(); ++e) {
    Edge edge = {graph.centres[e], graph.neighbours[e], 0, 0, 0};
    for (int axis = 0; axis < 3; ++axis) edge[2 + axis] = std::lround(1e9 * graph.vectors[3 * e + axis]);
    edges.push_back(edge);
  }
  expect(std::is_sorted(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) { return a[0] < b[0]; }),
         "edges stand centre by centre");
  std::sort(edges.begin(), edges.end());
  return edges;
}

/// Steps of a simulation, with one list that keeps its candidates and a new one for each step.
void test_kept_candidates() {
  const std::array<double, 9> cell = {6, 0, 0, 1, 5, 0, -0.5, 1, 7};
  const std::array<bool, 3> periodic = {true, true, true};
  std::vector<double> positions;
  unsigned state = 1;
  const auto random = [&state] {
    return static_cast<double>((state = 1664525u * state + 1013904223u) >> 8) / (1 << 24);
  };
  for (int k = 0; k < 60; ++k) positions.push_back(7.0 * random());
  mlip::NeighbourList kept;
  int differences = 0, searches = 0;
  std::size_t fewest = 1 << 20, most = 0;
  for (int step = 0; step < 40; ++step) {
    for (double& x : positions) x += 0.04 * (random() - 0.5);
    for (int atom = 0; atom < 20; ++atom) positions[3 * atom] += atom % 2 ? 0.06 : -0.06;
    if (step % 10 == 5) positions[3] += 6.0;  // atom 1 is put back into the cell, as engines do
    searches += kept.update(positions.data(), 20, cell, periodic, 4.0) == mlip::NewCandidates::all;
    mlip::NeighbourList fresh;
    fresh.update(positions.data(), 20, cell, periodic, 4.0);
    const auto found = edges_of(kept, positions, 4.0);
    differences += found != edges_of(fresh, positions, 4.0);
    fewest = std::min(fewest, found.size());
    most = std::max(most, found.size());
  }
  expect(differences == 0, "kept candidates give the edges of a new search: " + std::to_string(differences) + " of 40");
  expect(fewest < most && fewest > 100, "edges come and go");
  expect(searches > 11 && searches < 35,
         "candidates are kept for some steps: " + std::to_string(searches) + " searches");
}

using Rows = std::array<double, 9>;

/// Each row carried along, [n, 3].
void carry(double* rows, std::size_t n, const Rows& map) {
  for (std::size_t k = 0; k < n; ++k) {
    double* const x = rows + 3 * k;
    const std::array<double, 3> before = {x[0], x[1], x[2]};
    for (int axis = 0; axis < 3; ++axis)
      x[axis] = before[0] * map[axis] + before[1] * map[3 + axis] + before[2] * map[6 + axis];
  }
}

/// A barostat: the cell changes in every step and carries the atoms along, which move on their own too.
void test_kept_candidates_in_a_changing_cell() {
  constexpr double cutoff = 4.0;
  unsigned state = 5;
  const auto random = [&state] {
    return static_cast<double>((state = 1664525u * state + 1013904223u) >> 8) / (1 << 24) - 0.5;
  };
  const Rows shrinking = {0.997, 0, 0, 0, 0.998, 0, 0, 0, 0.996}, sheared = {1, 0, 0, 0.004, 1, 0, -0.003, 0.002, 1},
             growing = {1.004, 0, 0, 0, 1.003, 0, 0, 0, 1.002};
  for (const std::array<bool, 3> periodic :
       {std::array<bool, 3>{true, true, true}, {true, false, true}, {false, true, false}, {false, false, false}})
    for (const Rows& map : {shrinking, sheared, growing})
      for (const double moves : {0.0, 0.05}) {
        Rows cell = {8, 0, 0, 1, 9, 0, -1, 1.5, 7};
        std::vector<double> positions;
        for (int k = 0; k < 90; ++k) positions.push_back(20.0 * random());  // far from the origin too
        mlip::NeighbourList kept;
        int differences = 0, searches = 0, placed = 0;
        for (int step = 0; step < 60; ++step) {
          const auto is_new = kept.update(positions.data(), 30, cell, periodic, cutoff);
          searches += is_new == mlip::NewCandidates::all;
          placed += is_new == mlip::NewCandidates::shifts;
          mlip::NeighbourList fresh;
          fresh.update(positions.data(), 30, cell, periodic, cutoff);
          differences += edges_of(kept, positions, cutoff) != edges_of(fresh, positions, cutoff);
          carry(cell.data(), 3, map);
          carry(positions.data(), 30, map);
          for (double& x : positions) x += moves * random();
        }
        expect(differences == 0, "the edges of a new search in " + std::to_string(60 - differences) + " of 60 steps");
        expect(searches < 30, "few of 60 steps search in a changing cell: " + std::to_string(searches));
        if (periodic[0] && periodic[1]) expect(searches > 3, "and some do: " + std::to_string(searches));
        if (periodic[0] || periodic[1]) expect(placed > 20, "shifts follow the cell: " + std::to_string(placed));
      }

  // An atom and its images, which no move brings closer but the cell alone.
  mlip::NeighbourList list;
  const double atom[3] = {0, 0, 0};
  for (double edge = 4.7; edge > 3.8; edge -= 0.02) {
    const Rows cubic = {edge, 0, 0, 0, edge, 0, 0, 0, edge};
    list.update(atom, 1, cubic, {true, true, true}, cutoff);
    const std::size_t expected = edge < cutoff ? 6 : 0;
    expect(edges_of(list, {0, 0, 0}, cutoff).size() == expected, "images in a cell of " + std::to_string(edge));
  }
  // Others with every call: no skin.
  mlip::NeighbourList one;
  const double pair[6] = {0, 0, 0, 4.2, 0, 0};
  for (const double edge : {20.0, 15.0, 30.0}) {
    const Rows cubic = {edge, 0, 0, 0, edge, 0, 0, 0, edge};
    expect(one.update(pair, 2, cubic, {true, true, true}, cutoff) == mlip::NewCandidates::all, "another structure");
    expect(one.candidates().n_candidates() == 0, "candidates of one evaluation are edges");
  }
}

void test_units() {
  expect_near(mlip::units::ev_in_kj_per_mol, 96.48533212331002, 1e-12, "eV in kJ/mol");
  expect_near(1.0 / mlip::units::lammps_units("real").energy_in_ev, 23.060547830619026, 1e-12, "eV in kcal/mol");
  expect_near(mlip::units::lammps_units("metal").length_in_angstrom, 1.0, 0, "metal length");
  expect_near(1.0 / mlip::units::lammps_units("si").energy_in_ev, 1.602176634e-19, 1e-34, "eV in J");
  expect_near(mlip::units::lammps_units("si").length_in_angstrom, 1e10, 0, "metre in Å");
  expect_near(28.085 / mlip::units::lammps_units("si").mass_in_dalton, 4.66362397506e-26, 1e-36, "mass of Si in kg");
  expect_near(mlip::units::lammps_units("electron").energy_in_ev, 27.211386245981, 0, "Hartree in eV");
  expect_near(mlip::units::lammps_units("electron").length_in_angstrom, 0.529177210544, 0, "Bohr in Å");
  expect_error([] { mlip::units::lammps_units("lj"); }, "'units metal', real, si or electron");
  expect_near(mlip::standard_mass("Si"), 28.085, 0, "mass of silicon");
  expect_near(mlip::standard_mass("NULL"), 0.0, 0, "no mass for what is not an element");
}

void test_sha256() {
  // FIPS 180-4's examples, and lengths on both sides of a block's end.
  expect(mlip::sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "sha256 of abc");
  expect(mlip::sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "sha256 of nothing");
  expect(mlip::sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
             "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
         "sha256 of 56 bytes");
  for (const std::size_t n : {55, 63, 64, 65, 119, 128, 200}) {
    const std::string whole(n, 'x');
    mlip::Sha256 pieces;
    for (std::size_t k = 0; k < n; k += 7) pieces.update(std::string_view(whole).substr(k, 7));
    expect(pieces.finish() == mlip::sha256(whole), "sha256 in pieces of " + std::to_string(n) + " bytes");
  }
}

void test_crc32() {
  // The check value of the catalogue of CRCs (CRC-32/ISO-HDLC), and lengths around the eight bytes of a turn.
  expect(mlip::crc32("123456789") == 0xcbf43926u, "CRC-32 of 123456789");
  expect(mlip::crc32("") == 0, "CRC-32 of nothing");
  for (const std::size_t n : {1, 7, 8, 9, 16, 31}) {
    std::string whole;
    for (std::size_t k = 0; k < n; ++k) whole += static_cast<char>(37 * k + 200);
    std::uint32_t bytewise = 0;
    for (char byte : whole) bytewise = mlip::crc32(std::string_view(&byte, 1), bytewise);
    expect(mlip::crc32(whole) == bytewise, "CRC-32 in pieces of " + std::to_string(n) + " bytes");
  }
}

void test_validation_record() {
  const std::string text = R"({"schema": "1.0", "verdict": "pass", "content_sha256": "ab", "suites": ["fidelity"],
    "engines": ["ase", "lammps"], "elements": ["H"], "versions": {"torch": "2.13.0", "lammps": "2025.7.22"},
    "expected_failures": [], "failures": []})";
  mlip::ValidationRecord record = mlip::parse_validation_record(text, "file");
  expect(record.passed, "the verdict");
  expect(record.describe() == "fidelity in ase, lammps (lammps 2025.7.22, torch 2.13.0)", record.describe());
  const auto problem = [&](const std::string& digest, const mlip::Surroundings& here) {
    return mlip::unvalidated(record, digest, here);
  };
  expect(problem("ab", {"lammps", "2025.7.22", "2.13.0"}).empty(), "a record that holds");
  expect(problem("ac", {"lammps", "2025.7.22", "2.13.0"}) == "it was changed after it was validated", "edited");
  expect(problem("ab", {"openmm", "8.6", "2.13.0"}) == "it was validated in ase, lammps, not in openmm", "engine");
  expect(problem("ab", {"lammps", "2026.1.1", "2.13.0"}) == "it was validated with lammps 2025.7.22, this is 2026.1.1",
         "another LAMMPS");
  expect(problem("ab", {"lammps", "2025.7.22", "2.9.0"}) == "it was validated with torch 2.13.0, this is 2.9.0",
         "another torch");
  expect(mlip::unvalidated(std::nullopt, "", {"lammps", "1", "1"}) == "it has not been validated", "no record");
  expect_error([] { mlip::parse_validation_record("{}", "file"); }, "file: the validation record cannot be read");
  for (const char* foreign : {R"({"schema": "2.0", "verdict": "pass"})", R"({"schema": "1.0", "verdict": "maybe"})"})
    expect_error([&] { mlip::parse_validation_record(foreign, "file"); }, "another schema");

  std::string failed = text;
  failed.replace(failed.find("\"pass\""), 6, "\"fail\"");
  failed.replace(failed.rfind("[]"), 2, R"(["dimers: Si-Si", "ase: forces"])");
  record = mlip::parse_validation_record(failed, "file");
  expect(problem("ab", {"lammps", "2025.7.22", "2.13.0"}) ==
             "it failed its validation (2 check(s), the first: dimers: Si-Si)",
         "a verdict of fail");
  expect(problem("ac", {"lammps", "2025.7.22", "2.13.0"}) == "it was changed after it was validated", "fail, edited");
  expect(!mlip::Validation{std::nullopt, "it has not been validated"}.in_doubt(), "a fresh file");
  expect(!mlip::Validation{record, ""}.in_doubt(), "a record that holds is no doubt");
  expect(mlip::Validation{record, "it failed"}.in_doubt(), "a failed file");
}

void test_settings() {
  mlip::Setting charge{"charge", mlip::SettingKind::integer, "e", std::pair{-2.0, 3.0}, {}, std::nullopt};
  mlip::Setting task{"task", mlip::SettingKind::choice, "", std::nullopt, {"omat", "omol"}, 1.0};
  mlip::SettingValues values({charge, task});
  expect_error([&] { values.values(); }, "needs a value of its setting 'charge' (an integer from -2 to 3, e)");
  values.set("charge", "-2");
  expect(values.values() == std::vector<double>{-2.0, 1.0}, "a value and a default");
  values.set("task", "omat");
  values.set("charge", 3.0);
  expect(values.describe() == "charge 3 e, task omat", "in words");
  for (const char* wrong : {"4", "0.5", "one", "", "1 2", "nan", "inf"})
    expect_error([&] { values.set("charge", wrong); }, "expected an integer from -2 to 3, e");
  expect_error([&] { values.set("task", "oc20"); }, "setting 'task' is 'oc20', expected one of omat, omol");
  expect_error([&] { values.set("task", 2.0); }, "setting 'task' is 2, expected one of omat, omol");
  expect_error([&] { values.set("spin", 1.0); },
               "no setting 'spin'. It has: charge (an integer from -2 to 3, e); task (one of omat, omol)");
  expect(values.values() == std::vector<double>{3.0, 0.0}, "what is refused changes nothing");
  expect(charge.example() == 0.0 && task.example() == 1.0, "examples");
  charge.range = {1.5, 4.0};
  expect(charge.example() == 2.0, "an example in a range without zero");
}

void test_device_on_node() {
  expect(mlip::device_on_node("cuda", 5, 4) == "cuda:1", "the sixth process of a node with four GPUs");
  expect(mlip::device_on_node("auto", 3, 4) == "cuda:3", "auto with GPUs");
  expect(mlip::device_on_node("auto", 3, 0) == "auto", "auto without");
  expect(mlip::device_on_node("cuda", 3, 0) == "cuda", "left for the model to refuse");
  expect(mlip::device_on_node("cuda:0", 3, 4) == "cuda:0", "a device that was named");
  expect(mlip::device_on_node("cpu", 3, 4) == "cpu", "the processor");
}

/// Notes the threads that it is called on; fails at the call that it is told to.
class WatchedExchange : public mlip::Exchange {
 public:
  std::int64_t n_ghosts() const override { return 0; }
  void gather(const mlip::FeatureRows& rows) override { call("gather", rows.width); }
  void scatter_add(const mlip::FeatureRows& rows) override { call("scatter_add", rows.width); }
  void sum(double* values, std::int64_t n) override {
    call("sum", n);
    for (std::int64_t k = 0; k < n; ++k) values[k] *= 2.0;
  }
  std::vector<std::string> calls;
  std::vector<std::thread::id> threads;
  std::size_t failing = 99;

 private:
  void call(const char* what, std::int64_t width) {
    calls.push_back(std::string(what) + " " + std::to_string(width));
    threads.push_back(std::this_thread::get_id());
    if (calls.size() == failing) throw mlip::Error("the line is dead");
  }
};

void test_exchange_relay() {
  const mlip::FeatureRows wide{nullptr, mlip::Precision::float32, 0, 0, 7};
  WatchedExchange engine;
  std::thread::id of_body;
  mlip::ExchangeRelay on_this_thread;
  on_this_thread.run(engine, [&](mlip::Exchange& relay) {
    of_body = std::this_thread::get_id();
    relay.gather(wide);
    // As torch's backward pass on a GPU: yet another thread.
    std::thread([&] { relay.scatter_add(wide); }).join();
    double values[2] = {1.0, 2.0};
    relay.sum(values, 2);
    expect(values[1] == 4.0, "what the engine adds up");
  });
  expect(engine.calls == std::vector<std::string>{"gather 7", "scatter_add 7", "sum 2"}, "all calls, in order");
  expect(engine.threads == std::vector<std::thread::id>(3, std::this_thread::get_id()), "on the engine's thread");
  expect(of_body != std::this_thread::get_id(), "the body runs elsewhere");

  engine.failing = 4;
  bool reached_body = false;
  expect_error(
      [&] {
        on_this_thread.run(engine, [&](mlip::Exchange& relay) {
          expect(std::this_thread::get_id() == of_body, "on the same thread as before");
          try {
            relay.gather(wide);
          } catch (const mlip::Error&) {
            reached_body = true;
            throw;
          }
        });
      },
      "the line is dead");
  expect(reached_body, "the engine's error passes through the body");
  expect_error([&] { on_this_thread.run(engine, [](mlip::Exchange&) { throw mlip::Error("no model"); }); }, "no model");
}

void test_busy_cores() {
  const double before = mlip::processor_seconds();
  while (mlip::processor_seconds() < before + 0.01) {
  }
  expect(mlip::busy_cores(10.0, 10.0).empty() && mlip::busy_cores(19.0, 10.0).empty(), "cores of their own");
  expect(mlip::busy_cores(0.1, 0.9).empty(), "too short to tell");
  expect(mlip::busy_cores(4.0, 10.0).rfind("had 0.4 of one core, since other programs", 0) == 0, "somebody else's");
}

}  // namespace

int main() {
  test_contract();
  test_graph();
  test_unfolded();
  test_moment_exchange();
  test_neighbours();
  test_neighbours_on_threads();
  test_kept_candidates();
  test_kept_candidates_in_a_changing_cell();
  test_units();
  test_sha256();
  test_crc32();
  test_validation_record();
  test_device_on_node();
  test_settings();
  test_exchange_relay();
  test_busy_cores();
  return mlip::testing::report();
}
