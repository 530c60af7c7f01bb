"""Positions and cell as inputs: Ewald's sum of examples/long_range.py (docs/long-range.md) against LAMMPS's, OpenMM's
and known constants, its derivatives, and what engines refuse."""

import re
import sys

import numpy as np
import openmm
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from conftest import EXAMPLES
from openmm import unit
from tolerances import FINITE_DIFFERENCE, FLOAT64_ROTATED, FLOAT64_SUM, FORCE_SIGNAL, STRESS_SIGNAL

from mlip_deploy import _core, export_module
from mlip_deploy.artifact.contract import Setting
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.engines.lammps import LAMMPSError, run
from mlip_deploy.engines.lammps_files import LAMMPS_METAL_NKTV2P, write_data
from mlip_deploy.errors import MLIPError
from mlip_deploy.openmm import system_of
from mlip_deploy.progress import silent
from mlip_deploy.result import VOIGT
from mlip_deploy.validation import physics
from mlip_deploy.validation.case import Context
from mlip_deploy.validation.fidelity import check

sys.path.insert(0, str(EXAMPLES))
from long_range import LongRange

# Relative, of energies and pressures: what LAMMPS and OpenMM leave out at the accuracy that they are asked for, and
# their constants
EWALD = 1e-6
COULOMB = 14.399645  # eV Å


def export(path, module, **changes):
    options = {
        "elements": ["Na", "Cl"],
        "cutoff": module.cutoff,
        "name": "long-range",
        "message_passing_layers": 2,
        "parallel": "exchange",
        "positions": "periodic",
        "dtype": "float64",
    }
    export_module(module, path, **{**options, **changes})
    return path


@pytest.fixture(scope="module")
def ionic(tmp_path_factory):
    """Charges that depend on the surroundings, and a repulsion."""
    return export(tmp_path_factory.mktemp("ionic") / "ionic.mlip.pt", LongRange([0.9, -0.9], cutoff=5.0, accuracy=4.0))


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """Fixed charges alone, to exp(-25)."""
    module = LongRange([1.0, -1.0], cutoff=6.0, response=0.0, repulsion=0.0, accuracy=5.0)
    return export(tmp_path_factory.mktemp("fixed") / "fixed.mlip.pt", module)


def rocksalt():
    """16 atoms in a triclinic cell."""
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True).repeat((2, 1, 1))
    atoms.set_cell(atoms.cell.array @ [[1.0, 0.0, 0.0], [0.08, 0.97, 0.0], [-0.05, 0.06, 1.02]], scale_atoms=True)
    atoms.rattle(0.1, seed=2)
    return atoms


def with_model(atoms, path):
    atoms = atoms.copy()
    atoms.calc = MLIPCalculator(path)
    return atoms


# ---- the same everywhere ------------------------------------------------------------------------------------------


def test_the_contract_says_what_a_reader_must_know(ionic):
    contract = Artifact(ionic).contract
    assert contract.requires == ["positions", "sum_over_atoms"]
    assert contract.positions == "periodic"
    assert all(all(structure.pbc) for structure in Artifact(ionic).fixtures().structures)


@pytest.mark.parametrize(("dtype", "ranks"), [("float64", [1, 2, 4]), ("float32", [2])])
def test_every_engine_and_several_ranks(dtype, ranks, tmp_path):
    """A crystal of two atoms leaves ranks empty."""
    path = export(tmp_path / "ionic.mlip.pt", LongRange([0.9, -0.9], cutoff=5.0, accuracy=4.0), dtype=dtype)
    report = check(path, ["ase", "lammps", "openmm"], ranks)
    assert report.passed, [
        f"{c.engine} {c.ranks} {c.structure}: {c.reason}" for c in report.comparisons if c.verdict == "fail"
    ]
    assert sum(c.verdict == "pass" for c in report.comparisons) == 3 * (2 + len(ranks))
    assert report.parts.verdict == "pass"


@pytest.mark.parametrize("edges", ["host", "device"])
def test_images_of_atoms_change_nothing(edges, ionic):
    """Neither energy, forces nor virial, whose two parts both do."""
    atoms = rocksalt()
    potential = _core.Potential(str(ionic), edges=edges)
    types = Artifact(ionic).contract.types_of(atoms.get_chemical_symbols())
    images = np.random.default_rng(1).integers(-20, 20, (len(atoms), 3))
    here = potential.compute(atoms.positions, types, atoms.cell.array, [True] * 3)
    there = potential.compute(atoms.positions + images @ atoms.cell.array, types, atoms.cell.array, [True] * 3)
    assert there["energy"] == pytest.approx(here["energy"], abs=FLOAT64_SUM)
    np.testing.assert_allclose(there["forces"], here["forces"], rtol=0, atol=FLOAT64_SUM)
    np.testing.assert_allclose(there["virial"], here["virial"], rtol=0, atol=100 * FLOAT64_SUM)


def test_edges_on_the_device_and_on_the_host(ionic):
    atoms = rocksalt()
    types = Artifact(ionic).contract.types_of(atoms.get_chemical_symbols())
    host, device = (
        _core.Potential(str(ionic), edges=edges).compute(atoms.positions, types, atoms.cell.array, [True] * 3)
        for edges in ("host", "device")
    )
    assert device["energy"] == pytest.approx(host["energy"], abs=FLOAT64_SUM)
    for name in ("forces", "virial"):
        np.testing.assert_allclose(device[name], host[name], rtol=0, atol=FLOAT64_SUM)


# ---- derivatives --------------------------------------------------------------------------------------------------


def test_forces_are_derivatives(ionic):
    atoms = with_model(rocksalt(), ionic)
    forces, step = atoms.get_forces(), 1e-4
    assert np.abs(forces).max() > FORCE_SIGNAL
    assert np.abs(forces.sum(axis=0)).max() < FLOAT64_ROTATED
    for atom, axis in ((0, 0), (5, 1), (11, 2)):
        energies = []
        for sign in (1, -1):
            moved = with_model(atoms, ionic)
            moved.positions[atom, axis] += sign * step
            energies.append(moved.get_potential_energy())
        assert (energies[1] - energies[0]) / (2 * step) == pytest.approx(forces[atom, axis], abs=FINITE_DIFFERENCE)


def test_the_stress_is_a_derivative(ionic):
    atoms = with_model(rocksalt(), ionic)
    stress, step = atoms.get_stress(), 1e-5
    assert np.abs(stress).max() > STRESS_SIGNAL
    for (a, b), component in zip(VOIGT, stress, strict=True):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += 0.5 * sign * step
            strain[b, a] += 0.5 * sign * step
            strained = with_model(atoms, ionic)
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            energies.append(strained.get_potential_energy())
        slope = (energies[0] - energies[1]) / (2 * step * atoms.get_volume())
        assert slope == pytest.approx(component, abs=FINITE_DIFFERENCE / 10)


# ---- against others -----------------------------------------------------------------------------------------------

CRYSTALS = {
    "NaCl": (bulk("NaCl", "rocksalt", a=5.64), 5.64 / 2, 1.7475645946331822),
    "CsCl": (bulk("NaCl", "cesiumchloride", a=4.12), 4.12 * 3**0.5 / 2, 1.7626747730709883),
    "ZnS": (bulk("NaCl", "zincblende", a=5.41), 5.41 * 3**0.5 / 4, 1.6380550533887967),
}
"""cell of two ions, distance of neighbours and Madelung's constant (Y. Sakamoto, J. Chem. Phys. 28, 164, 1958)"""


@pytest.mark.parametrize("name", CRYSTALS)
def test_madelung_constants(name, fixed):
    atoms, distance, constant = CRYSTALS[name]
    for repeats in (1, 2):
        crystal = with_model(atoms.repeat(repeats), fixed)
        found = -crystal.get_potential_energy() / repeats**3 * distance / COULOMB
        assert found == pytest.approx(constant, rel=EWALD)


def ions(seed=3):
    """64 ions in a triclinic cell, 0.15 Å from their sites."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat(2)
    atoms.set_cell(atoms.cell.array @ [[1.0, 0.0, 0.0], [0.2, 0.98, 0.0], [-0.1, 0.15, 1.02]], scale_atoms=True)
    atoms.rattle(0.15, seed=seed)
    return atoms


DECK = """\
units metal
atom_style charge
box tilt large
read_data data.lammps
{pair}
compute virial all pressure NULL virial
thermo_style custom step pe c_virial[*]
dump atoms all custom 1 {name}.dump id fx fy fz
dump_modify atoms sort id format float %.17g
run 0
print "FOUND $(pe:%.17g) $(c_virial[1]:%.17g) $(c_virial[2]:%.17g) $(c_virial[3]:%.17g) $(c_virial[4]:%.17g) &
$(c_virial[5]:%.17g) $(c_virial[6]:%.17g)"
"""
LAMMPS_EWALD = """\
pair_style coul/long 12.0
pair_modify table 16
pair_coeff * *
kspace_style ewald 1e-9"""


def in_lammps(name, pair, atoms, directory, ranks):
    """Energy (eV), virial (eV) and forces (eV/Å) in LAMMPS's frame."""
    frame = write_data(atoms, directory / "data.lammps")
    charges = {"Na": 1.0, "Cl": -1.0}
    head, rows = (directory / "data.lammps").read_text().split("Atoms # atomic\n\n")
    lines = []
    for row in rows.splitlines():
        number, kind, *position = row.split()
        lines.append(" ".join([number, kind, str(charges[frame.elements[int(kind) - 1]]), *position]))
    (directory / "data.lammps").write_text(head + "Atoms # charge\n\n" + "\n".join(lines) + "\n")
    pair = pair.format(elements=" ".join(frame.elements))
    printed = run(DECK.format(pair=pair, name=name), directory, ranks=ranks)
    numbers = [float(word) for word in re.search(r"^FOUND (.*)$", printed, flags=re.MULTILINE).group(1).split()]
    forces = np.loadtxt(directory / f"{name}.dump", skiprows=9)[:, 1:]
    return numbers[0], np.array(numbers[1:]) * atoms.get_volume() / LAMMPS_METAL_NKTV2P, forces


def test_against_lammps_own_ewald(fixed, tmp_path):
    """Fixed charges in a triclinic cell: coul/long with kspace_style ewald, and pair_style mlip on 1, 2 and 4 ranks."""
    atoms = ions()
    energy, virial, forces = in_lammps("ewald", LAMMPS_EWALD, atoms, tmp_path, 1)
    assert np.abs(forces).max() > FORCE_SIGNAL
    first = None
    for ranks in (1, 2, 4):
        pair = f"pair_style mlip\npair_coeff * * {fixed} {{elements}}"
        ours = in_lammps(f"mlip{ranks}", pair, atoms, tmp_path, ranks)
        assert ours[0] == pytest.approx(energy, rel=EWALD)
        np.testing.assert_allclose(ours[1], virial, rtol=0, atol=EWALD * np.abs(virial).max())
        np.testing.assert_allclose(ours[2], forces, rtol=0, atol=EWALD * np.abs(forces).max())
        first = first or ours
        assert ours[0] == pytest.approx(first[0], abs=FLOAT64_SUM)
        np.testing.assert_allclose(ours[1], first[1], rtol=0, atol=FLOAT64_SUM)
        np.testing.assert_allclose(ours[2], first[2], rtol=0, atol=FLOAT64_SUM)


def test_against_openmm_own_ewald(fixed):
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat(3)
    atoms.rattle(0.15, seed=4)
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(openmm.Vec3(*row) * 0.1 for row in atoms.cell.array))
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.Ewald)
    force.setCutoffDistance(0.8)
    force.setEwaldErrorTolerance(1e-8)
    for symbol in atoms.get_chemical_symbols():
        system.addParticle(1.0)
        force.addParticle(1.0 if symbol == "Na" else -1.0, 1.0, 0.0)
    system.addForce(force)
    theirs = state_of(system, atoms)
    ours = state_of(system_of(atoms, fixed), atoms)
    assert ours[0] == pytest.approx(theirs[0], rel=EWALD)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=EWALD * np.abs(theirs[1]).max())
    assert np.abs(ours[1]).max() > FORCE_SIGNAL


def state_of(system, atoms):
    """Energy (eV) and forces (eV/Å) in OpenMM."""
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(0.1 * atoms.positions)
    return of_state(context.getState(energy=True, forces=True))


def of_state(state):
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    return energy / _core.EV_IN_KJ_PER_MOL, np.array(forces) / _core.EV_IN_KJ_PER_MOL / 10


# ---- cells that change --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_cell_of_each_step_in_lammps(ranks, ionic, tmp_path):
    """A triclinic barostat, with more than a neighbour list's steps between: the last step is ASE's of that cell."""
    frame = write_data(rocksalt(), tmp_path / "data.lammps")
    script = f"""\
units metal
box tilt large
read_data data.lammps
pair_style mlip
pair_coeff * * {ionic} {" ".join(frame.elements)}
velocity all create 300 1
neigh_modify delay 50 every 50 check no
fix move all npt temp 300 300 0.1 tri 20000 20000 0.05
run 12
write_data after.lammps
print "FOUND $(pe:%.17g) $(lx:%.17g)"
"""
    printed = run(script, tmp_path, ranks=ranks)
    energy, length = map(float, re.search(r"^FOUND (.*)$", printed, flags=re.MULTILINE).group(1).split())
    from ase.io import read

    after = read(tmp_path / "after.lammps", format="lammps-data", atom_style="atomic")
    after.symbols = [frame.elements[number - 1] for number in after.arrays["type"]]
    assert abs(length - rocksalt().cell.lengths()[0]) > 1e-3
    assert with_model(after, ionic).get_potential_energy() == pytest.approx(energy, abs=1e-8)


def test_openmm_barostat(ionic):
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True).repeat((2, 2, 2))
    atoms.rattle(0.05, seed=1)
    system = system_of(atoms, ionic)
    system.addForce(openmm.MonteCarloBarostat(20000.0, 300.0, 1))
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.001)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(0.1 * atoms.positions)
    integrator.step(10)
    state = context.getState(energy=True, forces=True, positions=True)
    after = atoms.copy()
    after.set_cell(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom))
    after.positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    assert abs(after.get_volume() - atoms.get_volume()) > 1.0
    after = with_model(after, ionic)
    energy, forces = of_state(state)
    assert energy == pytest.approx(after.get_potential_energy(), abs=FLOAT64_ROTATED)
    np.testing.assert_allclose(forces, after.get_forces(), rtol=0, atol=FLOAT64_ROTATED)


# ---- any cell -----------------------------------------------------------------------------------------------------


class Waves(torch.nn.Module):
    """Pairs, and the squares of one structure factor for each periodic direction, shared out among the atoms; a
    setting scales them."""

    def __init__(self, cutoff: float):
        super().__init__()
        self.cutoff = cutoff

    def forward(self, node_types, n_owned: int, edge_index, edge_vectors, positions, cell, settings):
        periodic = (cell.abs().sum(1) > 0).to(cell.dtype)
        dual = torch.linalg.inv(cell + torch.diag(1 - periodic)).t() if bool(periodic.sum() < 3) else cell.inverse().t()
        phases = 6.283185307179586 * positions @ dual.t()
        waves = torch.stack([torch.cos(phases), torch.sin(phases)], dim=1)
        factors = torch.ops.mlip.sum_over_atoms(torch.cat([waves, torch.ones_like(waves)], dim=1))
        share = ((waves * factors[:2] / factors[2:3]).sum(1) * periodic).sum(1)
        near = (1 - (edge_vectors.square().sum(1) / self.cutoff**2)).clamp(min=0).pow(3)
        pairs = torch.zeros([n_owned], dtype=near.dtype).index_add(0, edge_index[0], near)
        return pairs + settings[0] * share.to(near.dtype)


def test_a_model_for_any_cell_with_a_setting(tmp_path):
    """Molecules, slabs and crystals, in every engine; the rows of open directions are zero."""
    path = export(
        tmp_path / "waves.mlip.pt",
        Waves(4.0),
        name="waves",
        positions="any",
        parallel="local",
        message_passing_layers=0,
        settings=[Setting(name="strength", kind="number", unit="eV", range=(0, 2))],
    )
    assert Artifact(path).contract.requires == ["positions", "settings", "sum_over_atoms"]
    report = check(path, ["ase", "lammps", "openmm"], [1, 2])
    assert report.passed, [
        f"{c.engine} {c.ranks} {c.structure}: {c.reason}" for c in report.comparisons if c.verdict == "fail"
    ]
    assert {c.structure for c in report.comparisons if c.engine == "lammps" and c.verdict == "pass"} == {
        structure.name for structure in Artifact(path).fixtures().structures
    }


# ---- validation ---------------------------------------------------------------------------------------------------


def test_validation_knows_what_does_not_apply(tmp_path):
    """Physics in ASE: structures without a cell say nothing, nor does locality; the rest holds."""
    path = export(tmp_path / "ionic.mlip.pt", LongRange([0.9, -0.9], cutoff=5.0))
    context = Context(artifact=Artifact(path), engine="ase", directory=tmp_path)
    wanted = ("dimers", "smoothness across the cutoff", "locality", "extensivity", "symmetry: images of atoms")
    verdicts = {
        case.name: {check.verdict for check in case.run(context, silent).checks}
        for case in physics.cases(context)
        if case.name in wanted
    }
    assert verdicts == {name: {"not-applicable"} if k < 3 else {"pass"} for k, name in enumerate(wanted)}


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_ase_refuses_other_cells_and_virials_of_atoms(ionic):
    slab = rocksalt()
    slab.pbc = (True, True, False)
    with pytest.raises(
        MLIPError, match="long-range needs a cell that is periodic in three directions, this one is in 2"
    ):
        with_model(slab, ionic).get_potential_energy()
    molecule = Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2.4]])
    with pytest.raises(MLIPError, match=r"this one is in 0\. Make a periodic one with vacuum around a molecule or"):
        with_model(molecule, ionic).get_potential_energy()
    for name in ("stresses", "virials", "heat_flux"):
        with pytest.raises(PropertyNotImplementedError):
            MLIPCalculator(ionic).get_property(name, rocksalt())
    with pytest.raises(PropertyNotImplementedError, match="has no virials of single atoms: its energy depends on the"):
        MLIPCalculator(ionic).calculate(rocksalt(), ["stresses"])
    atoms = rocksalt()
    types = Artifact(ionic).contract.types_of(atoms.get_chemical_symbols())
    with pytest.raises(MLIPError, match="long-range has no virials of single atoms"):
        _core.Potential(str(ionic)).compute(atoms.positions, types, atoms.cell.array, [True] * 3, atom_virials=True)


@pytest.mark.parametrize(
    ("boundary", "computes", "message"),
    [
        ("p p f", "", "long-range needs a box that is periodic in three directions. Use 'boundary p p p'"),
        ("p p p", "compute s all stress/atom NULL\ndump d all custom 1 d id c_s[1]", "long-range has no virials of"),
        (
            "p p p",
            "compute s all centroid/stress/atom NULL\ndump d all custom 1 d id c_s[1]",
            "Remove compute stress/atom, centroid/stress/atom and heat/flux from the input; the pressure is exact",
        ),
    ],
)
def test_lammps_refuses(boundary, computes, message, ionic, tmp_path):
    frame = write_data(bulk("NaCl", "rocksalt", a=5.4, cubic=True), tmp_path / "data.lammps")
    script = f"""\
units metal
boundary {boundary}
read_data data.lammps
pair_style mlip
pair_coeff * * {ionic} {" ".join(frame.elements)}
{computes}
run 0
"""
    with pytest.raises(LAMMPSError, match=re.escape(message)):
        run(script, tmp_path, ranks=2)


def test_openmm_refuses_what_is_not_periodic(ionic):
    atoms = rocksalt()
    atoms.pbc = False
    with pytest.raises(openmm.OpenMMException, match="needs a cell that is periodic in three directions"):
        state_of(system_of(atoms, ionic), atoms)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("outside", "change by .* eV where atoms move by cell vectors, or all together. Use positions in structure"),
        ("halves", "change by .* eV where atoms move by cell vectors"),
        ("norm", r"dE/d\(positions\) of 'sheared crystal' is not finite"),
        ("own", "atomic energies depend on how atoms are divided among ranks"),
    ],
)
def test_export_refuses(wrong, message, tmp_path, monkeypatch):
    sound = LongRange.beyond

    def beyond(self, charges, positions, cell):
        energies = sound(self, charges, positions, cell)
        if wrong == "outside":  # a potential with a place of its own
            return energies + torch.cos(positions @ torch.linalg.inv(cell)[:, 0] * 6.283185307179586)
        if wrong == "halves":  # k-vectors that are not of the reciprocal lattice
            return energies + (charges @ torch.cos(positions @ torch.linalg.inv(cell)[:, 0] * 3.1415)) * charges
        if wrong == "norm":
            return energies + (positions - positions.detach()).square().sum(1).sqrt()
        phases = positions @ self.k_vectors(cell).t()  # of this rank's atoms alone
        return energies + (charges @ torch.cos(phases)).square().sum() + (charges @ torch.sin(phases)).square().sum()

    monkeypatch.setattr(LongRange, "beyond", beyond)
    with pytest.raises(MLIPError, match=message):
        export(tmp_path / "x.mlip.pt", LongRange([0.9, -0.9], cutoff=5.0, accuracy=4.0))


def test_other_targets_are_refused(tmp_path):
    module = LongRange([0.9, -0.9], cutoff=5.0, accuracy=4.0)
    with pytest.raises(
        MLIPError, match="long-range takes positions and cell beside its edges, which compiled files do"
    ):
        export(tmp_path / "x.mlip.pt2", module, backend="aotinductor")
