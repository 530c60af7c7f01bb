"""CHGNet artifacts against CHGNet itself: the three packaged models, every engine, magnetic moments, dynamics."""

import re
from pathlib import Path

import heat_flux_truth as truth
import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from conftest import mlip
from passes import assert_passes
from tolerances import FINITE_DIFFERENCE, FORCE_SIGNAL, HEAT_FLUX_FLOAT64, HEAT_FLUX_SIGNAL

pytest.importorskip("chgnet", reason="the package 'chgnet' is not installed. Type: pip install chgnet")

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.engines import lammps, lammps_files
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.chgnet.adapter import adapt
from mlip_deploy.exporters.families.registry import ExportOptions

# float64 sums in another order; seen: 1e-15 μB
MOMENT = 1e-12


def export(directory, source, dtype, *options):
    path = directory / f"{Path(source).name}-{dtype}.mlip.pt"
    done = mlip("export", "chgnet", source, "-o", path, "--dtype", dtype, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return path


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    return export(tmp_path_factory.mktemp("chgnet"), "0.3.0", "float64")


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return export(tmp_path_factory.mktemp("chgnet"), "0.3.0", "float32")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A user's file: two layers with random weights, and so a halo of 12 Å instead of 24."""
    from models import tiny_chgnet_checkpoint

    directory = tmp_path_factory.mktemp("chgnet")
    return export(directory, tiny_chgnet_checkpoint(directory / "mine.pth.tar"), "float64")


def antiferromagnet():
    """A sheared and rattled cell of MnO, small enough that every atom meets images of itself."""
    atoms = bulk("MnO", "rocksalt", a=4.45).repeat((2, 1, 1))
    atoms.set_cell(atoms.cell.array @ np.array([[1.0, 0.04, 0.0], [0.0, 0.98, 0.03], [0.02, 0.0, 1.01]]), True)
    atoms.rattle(0.08, seed=5)
    return atoms


def test_every_engine_in_float64(double):
    assert_passes(double, ["ase", "lammps", "openmm"], [1, 2])


def test_every_engine_in_float32(single):
    assert_passes(single, ["ase", "lammps", "openmm"], [1])
    noise = Artifact(single).fixtures().float32_noise
    assert 1e-8 < noise.energy_per_atom < 1e-5
    assert 1e-7 < noise.forces < 1e-3


@pytest.mark.parametrize(("source", "cutoff"), [("0.2.0", 5.0), ("r2scan", 6.0)])
def test_other_versions(source, cutoff, tmp_path):
    path = export(tmp_path, source, "float64")
    assert Artifact(path).contract.cutoff == cutoff
    assert_passes(path, ["ase"], [1])


def test_contract(double):
    contract = Artifact(double).contract
    assert (contract.model.name, contract.model.license, contract.parallel) == ("chgnet-0.3.0", "BSD-3-Clause", "halo")
    assert (contract.cutoff, contract.message_passing_layers, contract.interaction_range) == (6.0, 4, 24.0)
    assert contract.energy_frame.corrections == "MP2020"
    assert contract.extras == ["magmoms"]
    assert len(contract.elements) == 89
    assert contract.inversion_symmetric is True


# ---- a graph with ghosts ------------------------------------------------------------------------------------------


def test_the_name_in_a_file_is_a_source(double):
    """`mlip bench --against original` takes it for one."""
    model = Artifact(double).contract.model
    assert adapt(model.name, ExportOptions()).identity == model


def test_owned_energies_need_no_more_than_the_halo():
    """Half of a chain of atoms as owned atoms, edges out to as many hops as there are layers."""
    adapted = adapt("0.3.0", ExportOptions())
    model = adapted.energy_model(torch.float64)
    atoms = bulk("NaCl", "rocksalt", a=5.0).repeat((14, 1, 1))
    atoms.rattle(0.05, seed=1)
    atoms.pbc = (False, True, True)
    from ase.neighborlist import neighbor_list

    i, j, vectors = neighbor_list("ijD", atoms, adapted.cutoff)
    types = torch.tensor([adapted.elements.index(symbol) for symbol in atoms.get_chemical_symbols()])
    n_owned = 6
    reached = set(range(n_owned))
    for _ in range(adapted.message_passing_layers - 1):
        reached |= set(j[np.isin(i, list(reached))].tolist())
    assert n_owned < len(reached) < len(atoms)
    inside = np.isin(i, list(reached))

    def evaluate(n, kept):
        r = torch.tensor(vectors[kept], requires_grad=True)
        energies = model(types, n, torch.tensor(np.array([i[kept], j[kept]])), r)
        gradient = torch.autograd.grad(energies[:n_owned].sum(), r)[0]
        return energies[:n_owned].detach().numpy(), gradient.numpy()

    everything = np.ones(len(i), dtype=bool)
    whole, whole_gradient = evaluate(len(atoms), everything)
    halo, halo_gradient = evaluate(n_owned, inside)
    np.testing.assert_allclose(halo, whole, rtol=0, atol=1e-12)

    def forces(kept, gradient):
        total = np.zeros((len(atoms), 3))
        np.add.at(total, i[kept], gradient)
        np.subtract.at(total, j[kept], gradient)
        return total

    expected = forces(everything, whole_gradient)
    assert np.abs(expected).max() > FORCE_SIGNAL
    np.testing.assert_allclose(forces(inside, halo_gradient), expected, rtol=0, atol=1e-12)


# ---- magnetic moments ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moments():
    """CHGNet's own, with its layers and graph in float64."""
    from mlip_deploy.exporters.families.chgnet import adapter as chgnet

    model = chgnet._load(chgnet._find("0.3.0")[0], trust=True).double()
    model.composition_model.float()
    atoms = antiferromagnet()
    with chgnet._silent(), chgnet._graphs_in(torch.float64):
        graph = model.graph_converter(chgnet._periodic_structure(atoms, 6.0))
        found = model([graph], task="em")["m"][0].detach().numpy()
    assert found.max() > 3.0  # Mn
    assert found.min() < 0.2  # O
    return found


def test_magnetic_moments_in_ase(double, moments):
    atoms = antiferromagnet()
    atoms.calc = MLIPCalculator(double)
    atoms.get_potential_energy()
    assert "magmoms" not in atoms.calc.results  # computed when they are asked for
    assert np.abs(atoms.get_magnetic_moments() - moments).max() < MOMENT


MOMENTS_DECK = """\
units metal
box tilt large
read_data data.lammps
pair_style mlip
pair_coeff * * {path} Mn O
neigh_modify delay 0 every 1 check no
fix moments all pair 2 mlip magmoms {flag}
dump atoms all custom 2 moments.dump id f_moments
dump_modify atoms sort id format float %.17g
fix still all setforce 0 0 0
fix nve all nve
run 2
"""


def moments_in_lammps(path, directory, ranks=1, flag=1):
    frame = lammps_files.write_data(antiferromagnet(), directory / "data.lammps")
    assert frame.elements == ["Mn", "O"]
    lammps.run(MOMENTS_DECK.format(path=path, flag=flag), directory, ranks=ranks)
    frames = re.split(r"ITEM: TIMESTEP\n", (directory / "moments.dump").read_text())[1:]
    assert len(frames) == 2
    first, last = (np.array([line.split() for line in text.splitlines()[8:]], dtype=float)[:, 1] for text in frames)
    np.testing.assert_allclose(last, first, rtol=0, atol=MOMENT)  # the atoms stand still
    return last


@pytest.mark.parametrize("flag", [0, 1])
def test_magnetic_moments_in_lammps(double, moments, flag, tmp_path):
    assert np.abs(moments_in_lammps(double, tmp_path, flag=flag) - moments).max() < MOMENT


def test_magnetic_moments_on_two_ranks(small, tmp_path):
    atoms = antiferromagnet()
    atoms.calc = MLIPCalculator(small)
    expected = atoms.get_magnetic_moments()
    assert np.ptp(expected) > 1e-3
    assert np.abs(moments_in_lammps(small, tmp_path, ranks=2) - expected).max() < MOMENT


def test_an_output_that_the_model_lacks(double, tmp_path):
    lammps_files.write_data(antiferromagnet(), tmp_path / "data.lammps")
    deck = MOMENTS_DECK.format(path=double, flag=1).replace("magmoms", "charges")
    with pytest.raises(lammps.LAMMPSError, match="charges"):
        lammps.run(deck, tmp_path)


# ---- dynamics -----------------------------------------------------------------------------------------------------


def test_energy_is_conserved(double):
    """100 fs of hot LiF at constant energy, in float64."""
    atoms = bulk("LiF", "rocksalt", a=4.08).repeat((2, 1, 1))
    atoms.calc = MLIPCalculator(double)
    MaxwellBoltzmannDistribution(atoms, temperature_K=1200, rng=np.random.default_rng(2))
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    totals, potentials = [], []
    for _ in range(20):
        dynamics.run(5)
        totals.append(atoms.get_total_energy() / len(atoms))
        potentials.append(atoms.get_potential_energy() / len(atoms))
    assert np.ptp(potentials) > 0.02  # eV/atom that were exchanged
    assert np.ptp(totals) < 0.02 * np.ptp(potentials)


# ---- choices and refusals -----------------------------------------------------------------------------------------


def test_kept_elements(double, tmp_path):
    path = export(tmp_path, "0.3.0", "float64", "--elements", "O", "Mn")
    assert Artifact(path).contract.elements == ["O", "Mn"]
    assert path.stat().st_size < double.stat().st_size
    energies = []
    for model in (path, double):
        atoms = antiferromagnet()
        atoms.calc = MLIPCalculator(model)
        energies.append(atoms.get_potential_energies())
    np.testing.assert_array_equal(*energies)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["9.9"], "'9.9' is neither a file nor a CHGNet model. Known models: 0.3.0, 0.2.0, r2scan"),
        (["no/such.pth.tar"], "no such checkpoint file"),
        (["0.3.0", "--modal", "PBE"], "chgnet models have no modalities"),
        (["0.3.0", "--elements", "Na", "Po"], "chgnet-0.3.0 does not know Po. Its 89 elements: H He"),
    ],
)
def test_wrong_input(arguments, message, tmp_path):
    done = mlip("export", "chgnet", *arguments, "-o", tmp_path / "x.mlip.pt")
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_another_architecture(tmp_path):
    from chgnet.model.model import CHGNet

    path = tmp_path / "attention.pth.tar"
    torch.save({"model": CHGNet(mlp_first=False, read_out="attn").as_dict()}, path)
    adapted = adapt(str(path), ExportOptions())
    with pytest.raises(MLIPError, match="this CHGNet has a read-out other than a sum of atomic energies"):
        adapted.energy_model(torch.float64)


def test_a_file_of_a_user(small):
    contract = Artifact(small).contract
    assert (contract.model.name, contract.model.license, contract.message_passing_layers) == ("mine", "unknown", 2)
    assert contract.energy_frame.functional == "unknown"
    assert_passes(small, ["ase", "lammps"], [2])


def test_virials_of_atoms_are_those_of_chgnet(small):
    """A molecule by central differences of Σ_i r_i E_i, with CHGNet's own energies: what a heat flux needs."""
    atoms = truth.rattled(antiferromagnet().repeat((1, 2, 1)))
    atoms.pbc = False
    original = adapt(str(small.with_name("mine.pth.tar")), ExportOptions()).original.float64
    expected = np.zeros((len(atoms), 3, 3))
    step = 1e-4  # Å
    for j in range(len(atoms)):
        for b in range(3):
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[j, b] += sign * step
                energies = original(moved).atomic_energies
                # (r_i - r_j) as they are, in the middle
                expected[j, :, b] += sign * energies @ (atoms.positions - atoms.positions[j]) / (2 * step)
    assert np.abs(expected).max() > HEAT_FLUX_SIGNAL
    calculator = MLIPCalculator(small)
    calculator.calculate(atoms, ["magmoms", "virials"])
    found = calculator.results["virials"]
    assert calculator.results["magmoms"].shape == (len(atoms),)
    np.testing.assert_allclose(found, expected, rtol=0, atol=FINITE_DIFFERENCE * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("ranks", [1, 2])
def test_virials_of_atoms_do_not_know_the_cell(small, ranks, tmp_path):
    """A crystal and a larger cell of it, in which an atom's image is another atom; in ASE, and the sums in LAMMPS."""
    atoms = antiferromagnet()
    larger = atoms.repeat((1, 2, 1))
    one, two = (MLIPCalculator(small).get_property("virials", system) for system in (atoms, larger))
    assert np.abs(one).max() > HEAT_FLUX_SIGNAL
    np.testing.assert_allclose(two[: len(atoms)], one, atol=HEAT_FLUX_FLOAT64 * np.abs(one).max())
    box = lammps_files.in_a_box(atoms)
    frame = lammps_files.write_data(box, tmp_path / "data")
    script = f"units metal\nbox tilt large\nread_data data\nmass * 1.0\npair_style mlip\npair_coeff * * {small} "
    script += " ".join(frame.elements) + "\ncompute w all centroid/stress/atom NULL virial\n"
    script += "dump d all custom 1 d.dump c_w[*]\ndump_modify d sort id format float %.17g\nrun 0\n"
    output = lammps.run(script, tmp_path, ranks=ranks)
    assert "heat flux lacks" not in output
    rows = (tmp_path / "d.dump").read_text().split("c_w[9]")[1].split("\n", 1)[1].splitlines()
    table = np.array([row.split() for row in rows], dtype=float) / -lammps_files.LAMMPS_METAL_NKTV2P
    # LAMMPS turns the cell: the traces stay
    expected = np.trace(one, axis1=1, axis2=2)
    np.testing.assert_allclose(table[:, :3].sum(axis=1), expected, atol=HEAT_FLUX_FLOAT64 * np.abs(one).max())
