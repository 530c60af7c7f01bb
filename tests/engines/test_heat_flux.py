"""Virials of atoms and heat fluxes, in ASE and LAMMPS, against derivatives of the original models with nothing folded
(heat_flux_truth.py) and against the motion of the energy.
"""

import json
import re
from pathlib import Path

import heat_flux_truth as truth
import numpy as np
import pytest
import toy_models
from archives import rewritten
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet
from conftest import EXAMPLES
from tolerances import HEAT_FLUX_FLOAT32, HEAT_FLUX_FLOAT64, HEAT_FLUX_OF_MOTION, HEAT_FLUX_SIGNAL

from mlip_deploy.artifact.reader import CONTRACT_RECORD, Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.engines.lammps import run
from mlip_deploy.engines.lammps_files import LAMMPS_METAL_NKTV2P, write_data
from mlip_deploy.result import CENTROID

# LAMMPS's own constant in metal units: m v² in eV for m in g/mol and v in Å/ps.
LAMMPS_METAL_MVV2E = 1.0364269e-4
MASSES = {"Na": 22.98976928, "Cl": 35.45}
GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0"
LAYERS, CUTOFF = 3, 4.0  # of the tiny SevenNet, and at least those of the toys


def crystal() -> Atoms:
    """A sheared cell of two atoms, narrower than a cutoff: an atom meets several images of the other, and of itself.

    It stands as LAMMPS wants it, so that no engine turns it.
    """
    atoms = bulk("NaCl", "rocksalt", a=5.2)
    atoms.set_cell([[3.7, 0, 0], [1.6, 3.3, 0], [1.9, 1.2, 3.1]], scale_atoms=True)
    return truth.rattled(atoms)


def chain() -> Atoms:
    """Eight atoms, long enough in x to be cut into slabs thinner than the interaction range."""
    return truth.rattled(bulk("NaCl", "rocksalt", a=5.2, cubic=True) * (2, 1, 1))


def molecule() -> Atoms:
    """A cluster: positions have no images."""
    atoms = truth.rattled(bulk("NaCl", "rocksalt", a=5.2, cubic=True))
    atoms.pbc = False
    return atoms


@pytest.fixture(scope="session")
def toy_exchange(artifacts):
    return artifacts.once("toy-exchange.mlip.pt", lambda path: toy_models.export(path, "exchange"))


@pytest.fixture(scope="module")
def models(artifacts, tiny, toy_local, toy_halo, toy_exchange):
    """Artifacts in float64, and the original models."""

    def toy(kind):
        return truth.of_module(toy_models.MODELS[kind](3.9), toy_models.ELEMENTS, 3.9)

    return {
        "local": (toy_local, toy("local")),
        "exchange": (toy_exchange, toy("exchange")),
        "halo": (toy_halo, toy("halo")),
        "sevennet": (tiny, truth.of_sevennet(artifacts.checkpoint())),
    }


def assert_exact(found: np.ndarray, expected: np.ndarray, relative: float) -> None:
    largest = np.abs(expected).max()
    assert largest > HEAT_FLUX_SIGNAL
    np.testing.assert_allclose(found, expected, rtol=0, atol=relative * largest)


# ---- ASE ----------------------------------------------------------------------------------------------------------


def virials_in_ase(path: Path, atoms: Atoms) -> np.ndarray:
    return MLIPCalculator(path).get_property("virials", atoms)


@pytest.mark.parametrize("make", [crystal, chain, molecule])
@pytest.mark.parametrize("name", ["local", "exchange", "halo", "sevennet"])
def test_virials_of_atoms(name, make, models):
    path, original = models[name]
    atoms = make()
    expected = truth.virials_of_atoms(original, atoms, LAYERS * CUTOFF)
    calculator = MLIPCalculator(path)
    found = calculator.get_property("virials", atoms)
    assert_exact(found, expected, HEAT_FLUX_FLOAT64)
    types = calculator.contract.types_of(atoms.get_chemical_symbols())
    total = calculator.potential.compute(atoms.positions, types, atoms.cell.array, atoms.pbc)["virial"]
    assert_exact(found.sum(axis=0), total, HEAT_FLUX_FLOAT64)


@pytest.mark.parametrize("make", [crystal, chain])
def test_what_the_form_for_local_models_would_give(make, models):
    """Each edge's virial to its neighbour: far off with messages, so that the tests above see what they are for."""
    path, original = models["sevennet"]
    atoms = make()
    expected = truth.virials_of_atoms(original, atoms, LAYERS * CUTOFF)
    calculator = MLIPCalculator(without_differentiable_energies(path))
    types = calculator.contract.types_of(atoms.get_chemical_symbols())
    cell = atoms.cell.array
    found = calculator.potential.compute(atoms.positions, types, cell, atoms.pbc, centroid_virials=True)
    assert found["centroid_virials_inexact"]
    assert np.abs(found["centroid_virials"][:, CENTROID] - expected).max() > 0.01 * np.abs(expected).max()


def without_differentiable_energies(path: Path) -> Path:
    """The same file as schema 1.0 knew it."""

    def change(contents):
        contract = json.loads(contents[f"extra/{CONTRACT_RECORD}"])
        assert contract.pop("differentiable_energies")
        contents[f"extra/{CONTRACT_RECORD}"] = json.dumps(contract | {"schema": "1.0"}).encode()

    return rewritten(path, path.with_name(f"older-{path.name}"), change)


def test_float32(artifacts, models):
    atoms = crystal()
    expected = truth.virials_of_atoms(models["sevennet"][1], atoms, LAYERS * CUTOFF)
    assert_exact(virials_in_ase(artifacts.tiny("float32"), atoms), expected, HEAT_FLUX_FLOAT32)


def test_float32_far_from_the_origin_and_in_a_long_cell(artifacts):
    """Moments are of positions: their roundings grow with the extent, and must stay small where it is large."""
    atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True) * (60, 1, 1)
    atoms = truth.rattled(atoms)
    atoms.positions += [1000.0, -500.0, 0.0]
    double, single = (virials_in_ase(artifacts.tiny(dtype), atoms) for dtype in ("float64", "float32"))
    assert_exact(single, double, HEAT_FLUX_FLOAT32)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_sevennet_0(dtype, artifacts):
    """The published weights, on a sheared sheet: a cluster as far as five layers reach still fits into memory."""
    cell = [[4.4, 0.2, 0], [1.6, 4.1, 0], [0, 0, 12]]
    atoms = Atoms("MgO", positions=[[0, 0, 0], [2.2, 0.1, 0.3]], cell=cell, pbc=[True, True, False])
    atoms = truth.rattled(atoms)
    path = artifacts.sevennet_0(dtype)
    expected = truth.virials_of_atoms(truth.of_sevennet("7net-0"), atoms, Artifact(path).contract.interaction_range)
    relative = {"float64": HEAT_FLUX_FLOAT64, "float32": HEAT_FLUX_FLOAT32}[dtype]
    assert_exact(virials_in_ase(path, atoms), expected, relative)


def flux(virials: np.ndarray, atoms: Atoms, velocities: np.ndarray, path: Path, mass_unit: float) -> np.ndarray:
    energies = ase_engine.evaluate(path, atoms).atomic_energies
    masses = np.array([MASSES[symbol] for symbol in atoms.get_chemical_symbols()])
    kinetic = 0.5 * mass_unit * masses * (velocities**2).sum(axis=1)
    return np.einsum("nab,nb->a", virials, velocities) + (energies + kinetic) @ velocities


def test_heat_flux_in_ase_follows_the_velocities(models):
    """ASE looks at positions to tell whether something has changed."""
    path, original = models["exchange"]
    atoms = crystal()
    atoms.set_masses([MASSES[symbol] for symbol in atoms.get_chemical_symbols()])
    virials = truth.virials_of_atoms(original, atoms, LAYERS * CUTOFF)
    calculator = MLIPCalculator(path)
    for seed in range(2):
        velocities = np.random.default_rng(seed).normal(scale=0.5, size=(len(atoms), 3))
        atoms.set_velocities(velocities)
        found = calculator.get_property("heat_flux", atoms)
        assert_exact(found, flux(virials, atoms, velocities, path, 1.0), HEAT_FLUX_FLOAT64)


def simpson(values: np.ndarray, step: float) -> np.ndarray:
    assert len(values) % 2 == 1
    return step / 3 * (values[0] + values[-1] + 4 * values[1:-1:2].sum(axis=0) + 2 * values[2:-1:2].sum(axis=0))


@pytest.mark.parametrize("name", ["local", "exchange", "halo", "sevennet"])
def test_the_flux_is_the_motion_of_the_energy_in_ase(name, models):
    """A cluster in vacuum in NVE: the change of Σ r_i (E_i + K_i) is the time integral of J."""
    atoms = molecule()
    atoms.calc = MLIPCalculator(models[name][0])
    atoms.set_velocities(np.random.default_rng(0).normal(scale=0.5, size=(len(atoms), 3)))
    moments, fluxes = [], []

    def record():
        fluxes.append(atoms.calc.get_property("heat_flux", atoms))
        kinetic = 0.5 * atoms.get_masses() * (atoms.get_velocities() ** 2).sum(axis=1)
        moments.append((atoms.get_potential_energies() + kinetic) @ atoms.positions)

    dynamics = VelocityVerlet(atoms, timestep=0.05 * units.fs)
    dynamics.attach(record)
    dynamics.run(80)
    change = moments[-1] - moments[0]
    assert_exact(simpson(np.array(fluxes), 0.05 * units.fs), change, HEAT_FLUX_OF_MOTION)


def test_what_ase_refuses(models, artifacts):
    """A number that is not exact is not given."""
    tiny = models["sevennet"][0]
    with pytest.raises(PropertyNotImplementedError, match="Write it anew with: mlip export"):
        virials_in_ase(without_differentiable_energies(tiny), crystal())
    golden = GOLDEN / "fused-float32.mlip.pt"
    elements = Artifact(golden).contract.elements
    with pytest.raises(PropertyNotImplementedError, match="does not hold differentiable atomic energies"):
        virials_in_ase(golden, Atoms([elements[0]] * 2, positions=[[0, 0, 0], [0, 0, 2.5]]))


# ---- LAMMPS -------------------------------------------------------------------------------------------------------

HEAT_FLUX = """\
compute ke all ke/atom
compute pe all pe/atom
compute virials all centroid/stress/atom NULL virial
compute flux all heat/flux ke pe virials
"""
ONCE = """\
thermo_style custom step c_flux[1]
dump virials all custom 1 virials.dump c_virials[*]
dump_modify virials sort id format float %.17g
run 0
print "flux $(c_flux[1]:%.17g) $(c_flux[2]:%.17g) $(c_flux[3]:%.17g)"
"""


def script_of(path: Path, atoms: Atoms, velocities: np.ndarray, directory: Path) -> str:
    frame = write_data(atoms, directory / "flux.data")
    with (directory / "flux.data").open("a") as file:
        file.write("\nVelocities\n\n")
        file.writelines(f"{k + 1} {x:.17g} {y:.17g} {z:.17g}\n" for k, (x, y, z) in enumerate(velocities))
    boundary = " ".join("p" if periodic else "f" for periodic in atoms.pbc)
    script = f"units metal\nboundary {boundary}\nbox tilt large\nread_data flux.data\npair_style mlip\n"
    script += "".join(f"mass {k + 1} {MASSES[element]:.17g}\n" for k, element in enumerate(frame.elements))
    return script + f"pair_coeff * * {path} {' '.join(frame.elements)}\n{HEAT_FLUX}"


def in_lammps(path: Path, atoms: Atoms, velocities: np.ndarray, directory: Path, ranks: int):
    """Heat flux [3], virials of atoms [n, 3, 3] in eV, and what LAMMPS printed."""
    output = run(script_of(path, atoms, velocities, directory) + ONCE, directory, ranks=ranks)
    line = re.search(r"^flux (.*)$", output, flags=re.MULTILINE).group(1)
    rows = (directory / "virials.dump").read_text().split("c_virials[9]")[1].split("\n", 1)[1]
    table = np.array([row.split() for row in rows.splitlines()], dtype=float)
    return np.array(line.split(), dtype=float), -table[:, CENTROID] / LAMMPS_METAL_NKTV2P, output


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("make", [crystal, chain])
@pytest.mark.parametrize("name", ["exchange", "halo", "sevennet"])
def test_virials_of_atoms_and_heat_flux_in_lammps(name, make, ranks, models, tmp_path):
    path, original = models[name]
    atoms = make()
    velocities = np.random.default_rng(8).normal(scale=5.0, size=(len(atoms), 3))
    found_flux, found, output = in_lammps(path, atoms, velocities, tmp_path, ranks)
    assert "heat flux" not in output
    expected = truth.virials_of_atoms(original, atoms, LAYERS * CUTOFF)
    assert_exact(found, expected, HEAT_FLUX_FLOAT64)
    assert_exact(found_flux, flux(expected, atoms, velocities, path, LAMMPS_METAL_MVV2E), HEAT_FLUX_FLOAT64)


@pytest.mark.parametrize("ranks", [1, 2])
def test_heat_flux_is_the_motion_of_energy(ranks, toy_local, tmp_path):
    """J = d/dt Σ r_i ε_i by central differences, for a cluster, where positions have no images.

    Giving half of an edge's virial to either end, or all of it to the centre, is wrong in the first digit.
    """
    atoms = molecule()
    random = np.random.default_rng(8)
    velocities = random.normal(scale=5.0, size=(len(atoms), 3))
    found, _, output = in_lammps(toy_local, atoms, velocities, tmp_path, ranks)
    assert "heat flux" not in output

    masses = np.array([MASSES[symbol] for symbol in atoms.get_chemical_symbols()])[:, None] * LAMMPS_METAL_MVV2E
    accelerations = ase_engine.evaluate(toy_local, atoms).forces / masses
    step = 1e-5

    def moment(time):
        moved = atoms.copy()
        moved.positions += velocities * time + 0.5 * accelerations * time**2
        speeds = velocities + accelerations * time
        kinetic = 0.5 * (masses * speeds**2).sum(axis=1)
        energies = kinetic + ase_engine.evaluate(toy_local, moved).atomic_energies
        return (moved.positions * energies[:, None]).sum(axis=0)

    expected = (moment(step) - moment(-step)) / (2 * step)
    assert np.abs(expected).min() > 1.0
    np.testing.assert_allclose(found, expected, rtol=1e-6)


MOTION = """\
variable moment_x atom x*(c_ke+c_pe)
variable moment_y atom y*(c_ke+c_pe)
variable moment_z atom z*(c_ke+c_pe)
compute moment all reduce sum v_moment_x v_moment_y v_moment_z
fix nve all nve
timestep 0.00005
thermo 1
thermo_style custom step c_flux[1] c_flux[2] c_flux[3] c_moment[1] c_moment[2] c_moment[3]
thermo_modify format float %.17g
run 80
"""


def motion_in_lammps(path: Path, directory: Path, ranks: int) -> tuple[np.ndarray, np.ndarray]:
    """The time integral of J, and the change of Σ r_i (E_i + K_i)."""
    atoms = molecule()
    velocities = np.random.default_rng(8).normal(scale=5.0, size=(len(atoms), 3))
    output = run(script_of(path, atoms, velocities, directory) + MOTION, directory, ranks=ranks)
    rows = re.search(r"\n *Step .*\n((?:\s*\d.*\n)+)Loop", output).group(1).splitlines()
    table = np.array([row.split() for row in rows], dtype=float)
    assert len(table) == 81
    return simpson(table[:, 1:4], 5e-5), table[-1, 4:] - table[0, 4:]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", ["halo", "sevennet"])
def test_the_flux_is_the_motion_of_the_energy_in_lammps(name, ranks, models, tmp_path):
    assert_exact(*motion_in_lammps(models[name][0], tmp_path, ranks), HEAT_FLUX_OF_MOTION)


def test_the_form_for_local_models_is_not_the_motion_of_the_energy(models, tmp_path):
    found, change = motion_in_lammps(without_differentiable_energies(models["sevennet"][0]), tmp_path, 2)
    assert np.abs(found - change).max() > 10 * HEAT_FLUX_OF_MOTION * np.abs(change).max()


def test_heat_flux_with_images(models, tmp_path):
    """Two copies of a cell carry twice the flux, on any number of ranks."""
    path = models["sevennet"][0]
    atoms = chain()
    velocities = np.random.default_rng(9).normal(scale=5.0, size=(len(atoms), 3))
    one, *_ = in_lammps(path, atoms, velocities, tmp_path, 1)
    two, *_ = in_lammps(path, atoms, velocities, tmp_path, 2)
    double, *_ = in_lammps(path, atoms.repeat((2, 1, 1)), np.tile(velocities, (2, 1)), tmp_path, 2)
    assert_exact(two, one, HEAT_FLUX_FLOAT64)
    assert_exact(double, 2 * one, HEAT_FLUX_FLOAT64)


def test_a_heat_flux_that_is_not_exact_is_said_to_be(tiny, tmp_path):
    """A file that was written before this version could differentiate atomic energies."""
    *_, output = in_lammps(without_differentiable_energies(tiny), chain(), np.zeros((16, 3)), tmp_path, 2)
    assert output.count("heat flux lacks what messages carry between atoms, since the file does not hold") == 1


def test_a_compiled_file_says_which_file_to_use(artifacts, tmp_path):
    *_, output = in_lammps(artifacts.compiled(), chain(), np.zeros((16, 3)), tmp_path, 1)
    assert "since the file is compiled. Use one that is not: mlip export without --backend aotinductor" in output


def test_example(toy_local, tmp_path):
    """A short run of examples/lammps/heat_flux.in: long enough for numbers, far too short for a conductivity."""
    script = (EXAMPLES / "lammps" / "heat_flux.in").read_text()
    variables = {"model": toy_local, "element": "Na", "timestep": 0.001}
    variables |= {"equilibration": 100, "every": 2, "length": 20, "steps": 200, "blocks": 3}
    output = run(script, tmp_path, variables=variables)
    found = re.search(r"^thermal conductivity: (\S+) \+- (\S+) W/\(m K\), 3 blocks of 0.2 ps$", output, re.MULTILINE)
    blocks = np.array(re.findall(r"^block \d: (\S+) W", output, re.MULTILINE), dtype=float)
    assert float(found.group(1)) == pytest.approx(blocks.mean(), abs=2e-3)
    assert float(found.group(2)) == pytest.approx(blocks.std(ddof=1) / np.sqrt(3), abs=2e-3)
    assert "heat flux" not in output.replace("heat/flux", "")
