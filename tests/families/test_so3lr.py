"""SO3LR artifacts against so3krates-torch: the weights in its package, every term alone, random weights in other
settings, charges in every engine."""

import copy
import re
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import openmm
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from conftest import EXAMPLES, mlip
from models import so3lr_model
from passes import assert_passes
from tolerances import FINITE_DIFFERENCE, FLOAT64_SUM, FORCE_SIGNAL

if find_spec("so3krates_torch") is None:
    pytest.skip(
        "the package 'so3krates_torch' is not installed. Type: pip install so3krates-torch --no-deps",
        allow_module_level=True,
    )

import mlip_deploy
from mlip_deploy import export
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.bench.systems import build_system
from mlip_deploy.engines.lammps import LAMMPSError, run
from mlip_deploy.engines.lammps_files import write_data
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions
from mlip_deploy.exporters.families.so3lr import adapter
from mlip_deploy.exporters.fixed_settings import FixedSettings, fix_settings
from mlip_deploy.exporters.parts import graph
from mlip_deploy.exporters.settings import default_dtype
from mlip_deploy.exporters.targets.torchforce import KJ_PER_MOL
from mlip_deploy.exporters.targets.torchscript import operators_of
from mlip_deploy.openmm import system_of

WATER = -495.8705186908738
"""eV, of ase.build's water, as so3krates-torch 0.2.1 itself printed it in float64"""
FUSED = {"mlip::neighbour_attention", "mlip::long_range_pairs", "mlip::edge_harmonics"}
RELATIVE = 1e-9
"""Of one term: the same formulas in float64, with constants folded in another order."""


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    """The published weights in float64."""
    return export("so3lr", "so3lr", tmp_path_factory.mktemp("so3lr") / "double.mlip.pt", dtype="float64")


@pytest.fixture(scope="module")
def published():
    return adapt("so3lr")


def adapt(source, **options):
    return FAMILIES["so3lr"].adapt(str(source), ExportOptions(**options))


def refusal(source, **options):
    with pytest.raises(MLIPError) as error:
        adapt(source, **options)
    return str(error.value)


def saved(tmp_path, model, name="mine.model"):
    torch.save(model, tmp_path / name)
    return tmp_path / name


def acetate(charge=-1):
    atoms = molecule("CH3COOH")
    del atoms[-1]
    atoms.rattle(0.1, seed=2)
    atoms.info["charge"] = charge
    return atoms


def clump():
    """All eight elements, near enough that each atom is within the network's cutoff of each other kind."""
    random = np.random.default_rng(5)
    grid = np.array([[i, j, k] for i in range(3) for j in range(3) for k in range(2)], dtype=float)
    symbols = [*random.permutation(["H", "C", "N", "O", "F", "P", "S", "Cl"] * 2), "H", "O"]
    return Atoms(symbols, positions=1.3 * grid + random.normal(scale=0.1, size=grid.shape), info={"charge": 1})


def water_box():
    """Smaller than the long cutoff: atoms meet several images of each other."""
    atoms = build_system("water24")
    atoms.info["charge"] = 2
    return atoms


def test_published_weights_in_every_engine(double):
    assert_passes(double, ["ase", "lammps", "openmm"], [1, 2, 4])
    artifact = Artifact(double)
    contract = artifact.contract
    assert contract.elements == ["H", "C", "N", "O", "F", "P", "S", "Cl"]
    assert (contract.model.name, contract.model.license, contract.cutoff) == ("so3lr", "MIT", 12.0)
    assert [(setting.name, setting.default) for setting in contract.settings] == [("charge", None)]
    assert contract.collectives == ["sum_over_atoms"]
    assert contract.operators.keys() >= FUSED
    structures = artifact.fixtures().structures
    assert {structure.settings["charge"] for structure in structures} == {-1, 0, 1, 2}
    assert np.abs(structures[0].forces).max() > FORCE_SIGNAL
    atoms = molecule("H2O")
    atoms.calc = MLIPCalculator(double, charge=0)
    assert atoms.get_potential_energy() == pytest.approx(WATER, abs=FLOAT64_SUM)


def test_published_weights_in_float32(tmp_path):
    path = export("so3lr", "so3lr", tmp_path / "single.mlip.pt", elements=["O", "H"])
    assert_passes(path, ["ase", "lammps"], [1])
    noise = Artifact(path).fixtures().float32_noise
    assert 1e-8 < noise.energy_per_atom < 1e-4  # 163 eV in float32 alone are rounded by 1e-5


def test_without_fused_operators(tmp_path):
    path = export("so3lr", "so3lr", tmp_path / "plain.mlip.pt", dtype="float64", fuse=False)
    assert not Artifact(path).contract.operators.keys() & FUSED
    assert_passes(path, ["ase"], [1])


def test_tables_in_float64(tmp_path):
    path = export("so3lr", "so3lr", tmp_path / "tables.mlip.pt", dtype="float64", radial="table", elements=["O", "H"])
    assert_passes(path, ["ase"], [1])


@pytest.mark.parametrize("system", [acetate, clump, water_box])
def test_the_packages_own_calculator(double, system):
    """With what its users type, not with the neighbours and constants of the adapter's original."""
    from so3krates_torch.calculator.so3 import SO3LRCalculator

    atoms = system()
    with default_dtype(torch.float64):
        own = SO3LRCalculator(default_dtype="float64", compute_stress=bool(atoms.pbc.all()))
        own.calculate(atoms)
    atoms.calc = MLIPCalculator(double)
    assert atoms.get_potential_energy() == pytest.approx(own.results["energy"], rel=1e-12)
    np.testing.assert_allclose(atoms.get_forces(), own.results["forces"], rtol=0, atol=FLOAT64_SUM)
    assert np.abs(own.results["forces"]).max() > FORCE_SIGNAL
    if atoms.pbc.all():
        np.testing.assert_allclose(atoms.get_stress(), own.results["stress"], rtol=0, atol=FLOAT64_SUM)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("system", [acetate, clump, water_box])
def test_each_term(published, system, fuse):
    """Repulsion, charges, electrostatics, volumes, dispersion and the network's energy, one by one."""
    atoms = system()
    model = adapter._load("so3lr", trust=True)[0]
    adapter._complete(model, True, "so3lr")
    original = copy.deepcopy(model).double()
    blocks = {
        "repulsion": original.zbl_repulsion,
        "charges": original.partial_charges_output_block,
        "electrostatics": original.electrostatic_potential,
        "volumes": original.hirshfeld_output_block,
        "dispersion": original.dispersion_potential,
        "short_range": original.atomic_energy_output_block,
    }
    expected, found = {}, {}
    record(blocks, expected)
    # the model adds to this block's result in place, after the hook
    original.atomic_energy_output_block.energy_shifts.data.zero_()
    read_out = []
    original.atomic_energy_output_block.register_forward_pre_hook(lambda module, given: read_out.extend(given[:1]))
    with default_dtype(torch.float64):
        total = original(adapter._batch(atoms, original))["node_energy"]

    ours = FAMILIES["so3lr"].adapt("so3lr", ExportOptions(fuse=fuse)).energy_model(torch.float64)
    modules = dict(ours.named_children()) | dict(ours.pairs.named_children())
    record({name: module for name, module in modules.items() if name in {*blocks, "pairs"}}, found)
    energies, features = ours.energies_and_features(*inputs(atoms, published))
    torch.testing.assert_close(features, read_out[0], rtol=RELATIVE, atol=RELATIVE)
    expected["pairs"] = expected["electrostatics"] + expected["dispersion"]
    if fuse:  # in one operator
        del expected["electrostatics"], expected["dispersion"]
    for name, value in expected.items():
        scale = float(value.abs().max())
        assert scale > 1e-3, name
        difference = float((found[name] - value.reshape(found[name].shape)).abs().max())
        assert difference <= RELATIVE * scale, (name, difference, scale)
    shifts = model.atomic_energy_output_block.energy_shifts.detach().double()[torch.tensor(atoms.numbers) - 1]
    torch.testing.assert_close(energies, total.squeeze(1) + shifts, rtol=0, atol=FLOAT64_SUM)
    assert float(found["charges"].sum()) == pytest.approx(atoms.info["charge"], abs=1e-12)


def test_a_domain_of_frames_with_their_charges(double, tmp_path):
    """Features depend on the charge, which each frame brings."""
    frames = [acetate() for _ in range(10)]
    for k, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=k)
    path = tmp_path / "known.mlip.pt"
    mlip_deploy.fit_domain(double, [frames], output=path)
    atoms = frames[0]
    known = MLIPCalculator(path).get_property("grade", atoms)
    atoms.info["charge"] = 2
    assert MLIPCalculator(path).get_property("grade", atoms).max() > 2.0 * known.max()
    del atoms.info["charge"]
    with pytest.raises(MLIPError, match="frame 1: so3lr needs its setting 'charge'"):
        mlip_deploy.fit_domain(double, [frames], output=path)


def record(blocks, results):
    def keep(name):
        return lambda module, given, result: results.__setitem__(name, result.detach().clone())

    for name, block in blocks.items():
        block.register_forward_hook(keep(name))


def inputs(atoms, adapted):
    types, edges, vectors = graph(atoms, adapted.elements, adapted.cutoff, torch.float64)
    return types, len(atoms), edges, vectors, torch.tensor([float(atoms.info["charge"])], dtype=torch.float64)


SETTINGS = {
    "gaussian": {"radial_basis_fn": "gaussian", "cutoff_fn": "cosine", "message_normalization": "sqrt_num_features"},
    "bessel": {"radial_basis_fn": "bessel", "cutoff_fn": "polynomial", "layer_normalization_1": False},
    "degrees": {"degrees": [0, 2, 3], "num_features": 24, "num_heads": 2, "residual_mlp_2": True},
    "exponential": {"cutoff_fn": "exponential", "layer_normalization_2": False, "final_mlp_layers": 3},
    "without spin": {"use_spin_embed": False, "residual_mlp_1": False, "r_max_lr": 7.0},
    "another activation": {"activation_fn": "tanh"},
}


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("kind", SETTINGS)
def test_random_weights_in_other_settings(kind, fuse, tmp_path):
    """As TorchScript, without the way through a file."""
    adapted = adapt(saved(tmp_path, so3lr_model(**SETTINGS[kind])), trust_checkpoint=True, fuse=fuse)
    model = adapted.scripted(adapted.energy_model(torch.float64).eval())
    called = operators_of(model)
    if kind == "another activation":  # which the attention's operator does not know
        assert called & FUSED == (FUSED - {"mlip::neighbour_attention"} if fuse else set())
    else:
        assert called & FUSED == (FUSED if fuse else set())
    for atoms in (acetate(), acetate(1), Atoms("H", positions=[[0.0, 0.0, 0.0]], info={"charge": 0})):
        truth = adapted.original.float64(atoms)
        types, n_owned, edges, vectors, charge = inputs(atoms, adapted)
        vectors.requires_grad_(True)
        energies = model(types, n_owned, edges, vectors, charge)
        np.testing.assert_allclose(energies.detach(), truth.atomic_energies, rtol=0, atol=FLOAT64_SUM)
        (gradient,) = torch.autograd.grad(energies.sum(), vectors)
        forces = torch.zeros(len(atoms), 3, dtype=torch.float64)
        forces = forces.index_add(0, edges[0], gradient).index_add(0, edges[1], -gradient)
        np.testing.assert_allclose(forces, truth.forces, rtol=0, atol=FLOAT64_SUM)
        assert len(atoms) == 1 or np.abs(truth.forces).max() > FORCE_SIGNAL


def test_a_file(tmp_path):
    source = saved(tmp_path, so3lr_model())
    path = export("so3lr", source, tmp_path / "mine.mlip.pt", dtype="float64", trust_checkpoint=True)
    assert_passes(path, ["ase"], [1])
    contract = Artifact(path).contract
    assert (contract.model.name, contract.model.license, contract.cutoff) == ("mine", "unknown", 9.0)
    assert contract.energy_frame.functional == "unknown"
    assert contract.elements == ["H", "C", "O"]


def test_a_fixed_charge(tmp_path):
    source = saved(tmp_path, so3lr_model())
    path = tmp_path / "ion.mlip.pt"
    options = ["--dtype", "float64", "--trust-checkpoint", "--fix", "charge=-1"]
    done = mlip("export", "so3lr", source, "-o", path, *options)
    assert done.returncode == 0, done.stderr
    assert_passes(path, ["ase", "openmm"], [1])
    contract = Artifact(path).contract
    assert contract.settings == []
    assert ("charge", "-1") in [(given.name, given.value) for given in contract.inputs]
    atoms = acetate(-1)
    truth = adapt(source, trust_checkpoint=True).original.float64(atoms)
    del atoms.info["charge"]
    atoms.calc = MLIPCalculator(path)
    assert atoms.get_potential_energy() == pytest.approx(truth.energy, abs=FLOAT64_SUM)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("charge=x", "--fix charge=x: expected an integer from -100 to 100, e"),
        ("charge=0.5", "--fix charge=0.5: expected an integer from -100 to 100, e"),
        ("spin=1", "--fix spin: so3lr has no such setting. It has: charge (an integer from -100 to 100, e"),
    ],
)
def test_a_value_that_cannot_be_fixed(published, text, message):
    name, _, value = text.partition("=")
    with pytest.raises(MLIPError) as error:
        fix_settings(published, {name: value})
    assert message in str(error.value)


class Settings(torch.nn.Module):
    """A model that gives back its settings."""

    def forward(
        self,
        node_types: torch.Tensor,
        n_owned: int,
        edge_index: torch.Tensor,
        edge_vectors: torch.Tensor,
        settings: torch.Tensor,
    ) -> torch.Tensor:
        return settings


@pytest.mark.parametrize(("free", "given", "expected"), [([1], [7.0], [5.0, 7.0, 6.0]), ([], None, [5.0, 0.0, 6.0])])
def test_some_settings_are_fixed(free, given, expected):
    model = torch.jit.script(FixedSettings(Settings(), [5.0, 0.0, 6.0], free))
    none = torch.zeros(0, dtype=torch.int64)
    arguments = [] if given is None else [torch.tensor(given)]
    assert model(none, 0, none.reshape(2, 0), torch.zeros(0, 3), *arguments).tolist() == expected


def test_forces_are_the_slope_of_the_energy(double):
    """Through the sums over all atoms, too: the charge of every atom depends on every position."""
    atoms = acetate()
    atoms.calc = MLIPCalculator(double)
    forces = atoms.get_forces()
    for atom, axis in ((0, 0), (3, 1), (5, 2)):
        energies = []
        for step in (1e-4, -1e-4):
            moved = atoms.copy()
            moved.positions[atom, axis] += step
            moved.calc = atoms.calc
            energies.append(moved.get_potential_energy())
        slope = (energies[0] - energies[1]) / 2e-4
        assert -slope == pytest.approx(forces[atom, axis], abs=20 * FINITE_DIFFERENCE)


def test_charges_in_lammps(double, tmp_path):
    """A run that is charged by a variable, from step to step, on 1 and 2 ranks."""
    atoms = water_box()
    write_data(atoms, tmp_path / "data.lammps")
    deck = (
        "units metal\natom_modify map yes\nread_data data.lammps\nvariable q equal -1+step\n"
        f"pair_style mlip setting charge v_q\npair_coeff * * {double} O H\n"
        "fix still all move linear 0 0 0\nthermo 1\nthermo_style custom step pe\nthermo_modify format float %.17g\n"
        "run 2\n"
    )
    expected = []
    for charge in (-1, 0, 1):
        atoms.calc = MLIPCalculator(double)
        atoms.info["charge"] = charge
        expected.append(atoms.get_potential_energy())
    assert min(abs(np.diff(expected))) > 0.1
    for ranks in (1, 2):
        log = run(deck, tmp_path, ranks=ranks)
        rows = [line.split() for line in log.splitlines() if line.split()[:1] in (["0"], ["1"], ["2"])]
        found = [float(row[1]) for row in rows if len(row) == 2]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


def test_charges_in_openmm(double):
    atoms = acetate(0)
    context = openmm.Context(
        system_of(atoms, double), openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(0.1 * atoms.positions)
    for charge in (0, -1):
        context.setParameter("charge", charge)
        atoms.info["charge"] = charge
        atoms.calc = MLIPCalculator(double)
        found = context.getState(energy=True).getPotentialEnergy()._value / KJ_PER_MOL
        assert found == pytest.approx(atoms.get_potential_energy(), abs=1e-7)


@pytest.mark.parametrize(("solute", "charge", "atoms"), [("methanol", 0, 6), ("acetate", -1, 7)])
def test_the_example_in_water(double, solute, charge, atoms, tmp_path):
    command = [sys.executable, EXAMPLES / "openmm" / "so3lr_in_water.py", "--model", double, "--solute", solute]
    command += ["--charge", str(charge), "--edge", "1.0", "--steps", "2", "--threads", "1", "--platform", "CPU"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    total = int(re.search(rf"{solute} in water: (\d+) atoms, charge {charge} e", done.stdout).group(1))
    assert (total - atoms) % 3 == 0
    assert total > 60
    assert re.search(r"with one electron more: [+-]\d+ kJ/mol", done.stdout)
    assert (tmp_path / "so3lr_in_water.dcd").stat().st_size > 1000


def test_fewer_elements(tmp_path, published):
    path = export("so3lr", "so3lr", tmp_path / "h.mlip.pt", dtype="float64", elements=["H"])
    assert_passes(path, ["ase"], [1])
    atoms = Atoms("H3", positions=[[0, 0, 0], [0.9, 0, 0], [0.4, 0.8, 0]], info={"charge": 1})
    truth = published.original.float64(atoms)
    atoms.calc = MLIPCalculator(path)
    assert atoms.get_potential_energy() == pytest.approx(truth.energy, abs=FLOAT64_SUM)
    np.testing.assert_allclose(atoms.get_forces(), truth.forces, rtol=0, atol=FLOAT64_SUM)


def test_a_charge_is_never_assumed(double, tmp_path):
    atoms = molecule("H2O")
    atoms.calc = MLIPCalculator(double)
    with pytest.raises(MLIPError, match="the model needs a value of its setting 'charge'"):
        atoms.get_potential_energy()
    atoms.info["charge"] = 0.5
    with pytest.raises(MLIPError, match=r"setting 'charge' is 0\.5, expected an integer from -100 to 100, e"):
        atoms.get_potential_energy()


def test_a_charge_that_leaves_no_electrons(double, tmp_path):
    proton = Atoms("H", positions=[[0.0, 0.0, 0.0]], info={"charge": 1})
    proton.calc = MLIPCalculator(double)
    with pytest.raises(MLIPError, match="a charge of 1 leaves 0 electrons in the system"):
        proton.get_potential_energy()
    water_box().write(tmp_path / "x.xyz")
    write_data(water_box(), tmp_path / "data.lammps")
    deck = (
        f"units metal\nread_data data.lammps\npair_style mlip setting charge 81\npair_coeff * * {double} O H\nrun 0\n"
    )
    for ranks in (1, 2):
        with pytest.raises(LAMMPSError, match="a charge of 81 leaves -1 electrons in the system"):
            run(deck, tmp_path, ranks=ranks)


def test_a_fixed_charge_that_a_lone_atom_cannot_have(tmp_path):
    path = export(
        "so3lr", "so3lr", tmp_path / "cation.mlip.pt", dtype="float64", elements=["H", "O"], fix={"charge": 9}
    )
    names = [structure.name for structure in Artifact(path).fixtures().structures]
    assert "single atom" not in names
    assert {"sheared crystal", "molecule without periodicity"} <= set(names)
    assert_passes(path, ["ase"], [1])


def test_a_pickle_needs_trust(tmp_path):
    source = saved(tmp_path, so3lr_model())
    message = refusal(source)
    assert "loading this one runs the code that it carries" in message
    assert message.endswith("add: --trust-checkpoint")
    done = mlip("export", "so3lr", source, "-o", tmp_path / "x.mlip.pt")
    assert done.returncode == 2
    assert "--trust-checkpoint" in " ".join(done.stderr.split())
    assert not (tmp_path / "x.mlip.pt").exists()


def test_names_and_elements():
    assert refusal("so4lr") == "'so4lr': neither a file nor an SO3LR model. Known models: so3lr"
    assert refusal("gone.model") == "'gone.model': no such model file. Known models: so3lr"
    assert "so3lr does not know Na" in refusal("so3lr", elements=("Na", "O"))


def test_models_that_are_not_known(tmp_path):
    def refused(**changes):
        return refusal(saved(tmp_path, so3lr_model(**changes)), trust_checkpoint=True)

    assert "holds a builtins.dict, expected so3krates_torch.modules.models.SO3LR" in refusal(
        saved(tmp_path, {"weights": torch.zeros(2)}), trust_checkpoint=True
    )
    assert "does not say the model's r_max_lr (Å)" in refused(r_max_lr=None)
    assert "has use_charge_embed=False; only True can be exported" in refused(use_charge_embed=False)
    assert "has qk_non_linearity='silu'; only 'identity'" in refused(qk_non_linearity="silu")
    model = so3lr_model()
    attention = model.euclidean_transformers[0].euclidean_attention_block
    attention.__class__ = sys.modules[type(attention).__module__].EuclideanAttentionBlockLORA
    assert "has layers of kind EuclideanAttentionBlockLORA" in refusal(saved(tmp_path, model), trust_checkpoint=True)


def test_a_model_that_does_not_tell_its_elements(tmp_path):
    model = so3lr_model()
    torch.nn.init.ones_(model.atomic_energy_output_block.energy_scales.weight)
    source = saved(tmp_path, model)
    assert refusal(source, trust_checkpoint=True) == (
        f"'{source}' does not tell which elements it was trained on. Name them: --elements H,C,O"
    )
    assert adapt(source, trust_checkpoint=True, elements=("Na", "Cl")).elements == ["Na", "Cl"]
