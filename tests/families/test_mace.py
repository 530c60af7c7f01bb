"""MACE: artifacts against MACE's own calculator, on small models of the real classes (tests/mace_models.py).

MACE's package pins a version of e3nn that SevenNet's excludes: `make test-mace` runs this file in .venv-mace.
"""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import heat_flux_truth as truth
import numpy as np
import pytest
import torch

pytest.importorskip("mace", reason="mace-torch is not installed: make test-mace")
from ase import Atoms
from ase.build import bulk, molecule
from conftest import mlip
from mace_models import mace_model
from tolerances import FLOAT64_SUM, FORCE_SIGNAL, HEAT_FLUX_FLOAT64, HEAT_FLUX_SIGNAL
from vesin import NeighborList

import mlip_deploy
from mlip_deploy import export
from mlip_deploy.artifact.reader import Artifact, file_sha256
from mlip_deploy.artifact.tolerances import FLOAT64
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.engines import lammps, lammps_files
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.mace import adapter as mace
from mlip_deploy.exporters.families.mace import fused as mace_fused
from mlip_deploy.exporters.families.mace import radial as mace_radial
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions
from mlip_deploy.exporters.interface import TORCH_DTYPE
from mlip_deploy.exporters.parts import graph
from mlip_deploy.exporters.settings import default_dtype, quiet
from mlip_deploy.exporters.targets.torchforce import KJ_PER_MOL
from mlip_deploy.operators import load_operators
from mlip_deploy.validation.fidelity import check

load_operators()

FUSED_FLOAT64 = 1e-9  # eV, eV/Å: the same sums in another order
HEADS = ["pbe", "r2scan"]
PLAIN, RESIDUAL = "RealAgnosticInteractionBlock", "RealAgnosticResidualInteractionBlock"
GATED = "RealAgnosticResidualNonLinearInteractionBlock"
DENSITY, DENSITY_RESIDUAL = "RealAgnosticDensityInteractionBlock", "RealAgnosticDensityResidualInteractionBlock"
MODELS = {
    "scale-shift": {},
    "three layers, two heads": {"layers": 3, "heads": HEADS, "first": PLAIN, "others": RESIDUAL},
    "density, pair repulsion": {"first": DENSITY, "others": DENSITY_RESIDUAL, "pair_repulsion": True},
    "Agnesi, cutoff outside": {"first": DENSITY_RESIDUAL, "distance_transform": "Agnesi", "apply_cutoff": False},
    "one layer, no scale-shift": {"layers": 1, "scale_shift": False, "first": PLAIN, "scale": 60.0},
    "last read-out only": {"heads": HEADS, "use_last_readout_only": True, "hidden": "6x0e", "correlation": 2},
    "gated": {"first": GATED, "others": GATED, "apply_cutoff": False},
    "gated as in MACE-MH-1": {
        "first": GATED,
        "others": GATED,
        "heads": HEADS,
        "hidden": "8x0e+8x1o",
        "edge_irreps": "4x0e+4x1o",
        "use_edge_irreps_first": True,
        "max_ell": 3,
        "pair_repulsion": True,
        "distance_transform": "Agnesi",
        "apply_cutoff": False,
        "use_agnostic_product": True,
    },
    # Not the same when mirrored: the one model whose energies tell the sign of an edge vector.
    "without parity": {"use_so3": True, "hidden": "6x0e+6x1e"},
    "scalars to quadrupoles": {"hidden": "5x0e+5x1o+5x2e", "max_ell": 3, "use_agnostic_product": True},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The path of a model's file, by the model's name."""
    directory = tmp_path_factory.mktemp("mace")

    def save(name):
        path = directory / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.model"
        if not path.exists():
            torch.save(mace_model(**MODELS[name]), path)
        return path

    return save


def options(name, **chosen):
    head = MODELS[name].get("heads", [None])[-1]
    return ExportOptions(trust_checkpoint=True, head=head, **chosen)


def structures():
    random = np.random.default_rng(7)
    salt = bulk("NaCl", "rocksalt", a=5.2, cubic=True)
    salt.set_cell(salt.cell.array @ np.array([[1, 0.06, 0], [0, 0.97, 0.05], [0, 0, 1.02]]), scale_atoms=True)
    salt.positions += random.normal(scale=0.2, size=salt.positions.shape)
    ethanol = molecule("CH3CH2OH")
    ethanol.positions += random.normal(scale=0.05, size=ethanol.positions.shape)
    return [salt, ethanol]


def evaluate(model, dtype: torch.dtype, atoms: Atoms, elements: list[str], cutoff: float, *settings: torch.Tensor):
    """Energies [n] and forces [n, 3] as an engine sums them."""
    pairs = NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    i, j, vectors = pairs.compute(atoms.positions, atoms.cell.array, bool(atoms.pbc.any()), "ijD")
    i, j = i.astype(np.int64), j.astype(np.int64)
    types = torch.tensor([elements.index(symbol) for symbol in atoms.get_chemical_symbols()])
    edges = torch.tensor(np.stack([i, j]))
    energies, gradients = model(types, len(atoms), edges, torch.tensor(vectors, dtype=dtype), *settings)
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, i, gradients.double().numpy())
    np.add.at(forces, j, -gradients.double().numpy())
    return energies.detach().numpy(), forces


def scripted(adapted, dtype: str):
    with default_dtype(TORCH_DTYPE[dtype]), quiet():
        model = adapted.interface(TORCH_DTYPE[dtype]).eval()
        return adapted.scripted(model)


# ---- the same numbers as MACE -------------------------------------------------------------------------------------


FORMS = [(name, fuse) for name in MODELS for fuse in (False, True)]


@pytest.mark.parametrize(("name", "fuse"), FORMS)
def test_float64_agrees_with_mace(name, fuse, saved):
    adapted = mace.adapt(str(saved(name)), options(name, fuse=fuse))
    model = scripted(adapted, "float64")
    tolerance = FUSED_FLOAT64 if fuse else FLOAT64_SUM
    for atoms in structures():
        truth = adapted.original.float64(atoms)
        energies, forces = evaluate(model, torch.float64, atoms, adapted.elements, adapted.cutoff)
        assert np.abs(truth.forces).max() > FORCE_SIGNAL
        np.testing.assert_allclose(forces, truth.forces, rtol=0, atol=tolerance)
        np.testing.assert_allclose(energies, truth.atomic_energies, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_features_are_the_scalars_that_the_read_outs_are_given(name, saved):
    """Of MACE's own read-outs, by a hook: each of them reads the features of one layer."""
    atoms, seen = structures()[0], []

    def note(module, arguments):
        if "Readout" in type(module).__name__:
            seen.append((module, arguments[0].detach().numpy()))

    adapted = mace.adapt(str(saved(name)), options(name, fuse=False))
    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        adapted.original.float64(atoms)
    finally:
        hook.remove()
    linears = [next(one for one in module.modules() if hasattr(one, "irreps_in")) for module, _ in seen]
    scalars = [linear.irreps_in.count("0e") for linear in linears]
    expected = np.concatenate([given[:, :n] for (_, given), n in zip(seen, scalars, strict=True)], axis=1)
    assert np.ptp(expected, axis=0).max() > 1e-3  # atoms differ
    for fuse, tolerance in ((False, FLOAT64_SUM), (True, FUSED_FLOAT64)):
        adapted = mace.adapt(str(saved(name)), options(name, fuse=fuse))
        with default_dtype(torch.float64), quiet():
            model = adapted.energy_model(torch.float64).eval()
        types, edges, vectors = graph(atoms, adapted.elements, adapted.cutoff, torch.float64)
        found = model.energies_and_features(types, len(atoms), edges, vectors)[1].detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_what_the_contract_says_of_mirror_images_is_so(name, saved):
    adapted = mace.adapt(str(saved(name)), options(name))
    (atoms, _) = structures()
    mirrored = atoms.copy()
    mirrored.positions *= -1.0  # a lattice is its own image
    difference = np.abs(adapted.original.float64(mirrored).forces + adapted.original.float64(atoms).forces).max()
    assert adapted.inversion_symmetric == (name != "without parity")
    if adapted.inversion_symmetric:
        assert difference < FLOAT64_SUM
    else:
        assert difference > 1e-6


def test_heads_differ(saved):
    name = "three layers, two heads"
    (atoms, _) = structures()
    energies = []
    for head in HEADS:
        adapted = mace.adapt(str(saved(name)), ExportOptions(trust_checkpoint=True, head=head))
        found, _ = evaluate(scripted(adapted, "float64"), torch.float64, atoms, adapted.elements, adapted.cutoff)
        energies.append(found.sum())
        (given,) = adapted.inputs
        assert (given.name, given.choices, given.value) == ("head", HEADS, head)
    assert abs(energies[0] - energies[1]) > 1.0


def test_pair_repulsion_matters(saved):
    """Without it the test of a model that has it would prove nothing."""
    close = Atoms("NaCl", positions=[[0, 0, 0], [0.9, 0, 0]])
    adapted = mace.adapt(str(saved("density, pair repulsion")), options("density, pair repulsion"))
    _, forces = evaluate(scripted(adapted, "float64"), torch.float64, close, adapted.elements, adapted.cutoff)
    assert forces[1, 0] > 100.0
    np.testing.assert_allclose(forces, adapted.original.float64(close).forces, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "fuse"),
    [
        ("density, pair repulsion", True),
        ("three layers, two heads", True),
        ("scalars to quadrupoles", False),
        ("gated", False),
        ("gated", True),
    ],
)
def test_fewer_elements(name, fuse, saved):
    """The same numbers for atoms of the elements that are kept, here not in their alphabetical order."""
    adapted = mace.adapt(str(saved(name)), options(name, fuse=fuse, elements=("Cl", "Na")))
    assert adapted.elements == ["Na", "Cl"]
    (salt, _) = structures()
    truth = adapted.original.float64(salt)
    energies, forces = evaluate(scripted(adapted, "float64"), torch.float64, salt, adapted.elements, adapted.cutoff)
    np.testing.assert_allclose(forces, truth.forces, rtol=0, atol=FLOAT64_SUM)
    np.testing.assert_allclose(energies, truth.atomic_energies, rtol=0, atol=FLOAT64_SUM)


# ---- radial tables for pairs of elements --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n_tables"),
    [("Agnesi, cutoff outside", 3), ("gated as in MACE-MH-1", 4), ("density, pair repulsion", None)],
)
def test_tables_agree_with_mace(name, n_tables, saved):
    """A transform does not tell the centre from the neighbour, a gated block does."""
    (salt, _) = structures()
    notes = []
    adapted = mace.adapt(str(saved(name)), options(name, elements=("Cl", "Na"), radial="table", note=notes.append))
    model = scripted(adapted, "float64")
    truth = adapted.original.float64(salt)
    energies, forces = evaluate(model, torch.float64, salt, adapted.elements, adapted.cutoff)
    np.testing.assert_allclose(forces, truth.forces, rtol=0, atol=FLOAT64.forces)
    np.testing.assert_allclose(energies, truth.atomic_energies, rtol=0, atol=FLOAT64.atomic_energies)
    assert np.abs(forces - truth.forces).max() > 1e-14  # there are tables
    expected = [] if n_tables is None else [rf"tables, {n_tables} for the pairs of 2 elements, [\d.]+ MB"]
    assert len(notes) == len(expected)
    assert all(re.search(words, line) for words, line in zip(expected, notes, strict=True))


def test_networks_stay_where_tables_are_too_large(saved, monkeypatch):
    (salt, _) = structures()
    notes = []
    monkeypatch.setattr(mace_radial, "MOST_BYTES", 1_000_000)
    name = "Agnesi, cutoff outside"
    adapted = mace.adapt(str(saved(name)), options(name, radial="table", note=notes.append))
    with default_dtype(torch.float64), quiet():
        model = adapted.interface(torch.float64).eval()
    (line,) = notes
    assert "Tables for the pairs of 6 elements would take more than 1 MB" in line
    assert "--elements Si,O" in line
    _, forces = evaluate(model, torch.float64, salt, adapted.elements, adapted.cutoff)
    np.testing.assert_allclose(forces, adapted.original.float64(salt).forces, rtol=0, atol=FUSED_FLOAT64)


def test_types_in_another_order_than_the_elements_of_the_file(artifact, saved, tmp_path):
    """LAMMPS's first type is the file's second element, on one rank and on two."""
    path = artifact("gated", "float64", "--elements", "Na,Cl", "--radial", "table")
    (salt, _) = structures()
    salt = salt[[atom.index for atom in sorted(salt, key=lambda atom: atom.symbol)]]
    frame = lammps_files.write_data(salt, tmp_path / "salt.data")
    assert frame.elements == ["Cl", "Na"]
    assert Artifact(path).contract.elements == ["Na", "Cl"]
    expected = mace.adapt(str(saved("gated")), options("gated")).original.float64(salt).energy
    for ranks in (1, 2):
        output = lammps.run(ENERGY.format(model=path, elements=" ".join(frame.elements)), tmp_path, ranks=ranks)
        (energy,) = re.findall(r"^energy (\S+)$", output, re.MULTILINE)
        assert float(energy) == pytest.approx(expected, abs=FLOAT64.energy_per_atom * len(salt))


ENERGY = """
units metal
read_data salt.data
pair_style mlip
pair_coeff * * {model} {elements}
run 0
variable energy equal pe
print "energy $(v_energy:%.12f)"
"""


# ---- in the engines -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def artifact(saved, tmp_path_factory):
    """An exported file, by model and type, written with the command that users type."""
    directory = tmp_path_factory.mktemp("artifacts")

    def export(name, dtype, *more):
        path = directory / f"{saved(name).stem}-{dtype}{''.join(more)}.mlip.pt"
        if not path.exists():
            chosen = ["--head", MODELS[name]["heads"][-1]] if "heads" in MODELS[name] else []
            done = mlip(
                "export", "mace", saved(name), "-o", path, "--dtype", dtype, "--trust-checkpoint", *chosen, *more
            )
            assert done.returncode == 0, done.stdout + done.stderr
        return path

    return export


@pytest.mark.parametrize("name", ["scale-shift", "gated"])
def test_steps_on_another_device(artifact, name):
    """With a GPU's kernels, emulated."""
    command = Path(__file__).parents[1] / "unit/test_emulated_device.py", "steps", "kernels"
    done = subprocess.run(
        [sys.executable, *command, artifact(name, "float64")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("forces differ by") == 2


def test_two_heads_in_one_file_share_their_layers(artifact, saved, tmp_path):
    """The composed file calls mlip's operators as often as that of one head."""
    name = "three layers, two heads"
    heads = [tmp_path / "first.mlip.pt", artifact(name, "float64")]
    export("mace", saved(name), heads[0], dtype="float64", trust_checkpoint=True, head=HEADS[0])
    path = tmp_path / "both.mlip.pt"
    mlip_deploy.compose("difference", heads, path)
    of_one, of_both = (re.findall(r"mlip::\w+", str(torch.jit.load(one).inlined_graph)) for one in (heads[0], path))
    assert len(of_one) > 3
    assert sorted(of_both) == sorted(of_one)
    atoms = structures()[0]
    first, second, both = (MLIPCalculator(one).get_property("forces", atoms) for one in (*heads, path))
    assert np.abs(first - second).max() > FORCE_SIGNAL
    np.testing.assert_allclose(both, first - second, rtol=0, atol=FLOAT64_SUM)


@pytest.mark.parametrize(
    ("name", "dtype", "more"),
    [
        ("three layers, two heads", "float32", ()),
        ("three layers, two heads", "float64", ()),
        ("density, pair repulsion", "float32", ()),
        ("density, pair repulsion", "float64", ()),
        ("scale-shift", "float32", ("--no-fuse",)),
        ("gated", "float64", ("--no-fuse",)),
        ("gated", "float64", ()),
        ("gated", "float32", ("--elements", "Na,Cl")),
    ],
)
def test_in_every_engine(name, dtype, more, artifact):
    report = check(artifact(name, dtype, *more), ["ase", "lammps", "openmm"], [1, 2])
    failed = [f"{c.engine} {c.ranks} {c.structure}: {c.reason}" for c in report.comparisons if c.verdict == "fail"]
    assert not failed
    runs = {(c.engine, c.ranks) for c in report.comparisons if c.verdict == "pass"}
    assert runs == {("ase", 1), ("lammps", 1), ("lammps", 2), ("openmm", 1)}


COMPILED = ["--backend", "aotinductor", "--trust-checkpoint"]


@pytest.mark.parametrize("name", ["scale-shift", "density, pair repulsion"])
def test_compiled(name, saved, tmp_path):
    """The parity table of a file of the back end aotinductor."""
    path = tmp_path / "compiled.mlip.pt2"
    done = mlip("export", "mace", saved(name), "-o", path, *COMPILED)
    assert done.returncode == 0, done.stderr
    report = check(path, ["ase", "lammps", "openmm"], [1, 2])
    assert report.passed, [f"{c.engine} {c.ranks} {c.structure}: {c.reason}" for c in report.comparisons]


def test_own_layers_are_not_compiled(saved, tmp_path):
    path = tmp_path / "compiled.mlip.pt2"
    done = mlip("export", "mace", saved("scale-shift"), "-o", path, "--no-fuse", *COMPILED)
    assert done.returncode == 2
    assert "has layers that its framework stores as TorchScript" in " ".join(done.stderr.split())
    assert not path.exists()


def test_contract(artifact):
    contract = Artifact(artifact("three layers, two heads", "float64")).contract
    assert contract.elements == ["H", "C", "O", "Na", "Si", "Cl"]
    assert (contract.cutoff, contract.message_passing_layers, contract.parallel) == (4.0, 3, "exchange")
    assert list(contract.operators) == [
        "mlip::edge_harmonics",
        "mlip::edge_tensor_product",
        "mlip::equivariant_linear",
        "mlip::ghost_gather",
        "mlip::symmetric_contraction",
    ]
    assert (contract.model.license, contract.energy_frame.functional) == ("unknown", "unknown")


def test_torchforce_file(saved, tmp_path):
    """MACE's own layers in a file without custom operators, in nm and kJ/mol."""
    output = tmp_path / "mace.torchforce.pt"
    chosen = ["--trust-checkpoint", "--target", "torchforce", "--dtype", "float64"]
    done = mlip("export", "mace", saved("scale-shift"), "-o", output, *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    (salt, _) = structures()
    module = torch.jit.load(str(output))
    module.set_atoms(salt.get_chemical_symbols(), [])
    energy, forces = module(torch.tensor(0.1 * salt.positions), torch.tensor(0.1 * salt.cell.array))
    truth = mace.adapt(str(saved("scale-shift")), options("scale-shift")).original.float64(salt)
    assert float(energy) == pytest.approx(truth.energy * KJ_PER_MOL, rel=1e-9)
    np.testing.assert_allclose(0.1 * forces.numpy() / KJ_PER_MOL, truth.forces, rtol=0, atol=FUSED_FLOAT64)


NVE = """
units metal
read_data salt.data
pair_style mlip
pair_coeff * * {model} {elements}
velocity all create 300 4711
timestep 0.0005
thermo 10
thermo_style custom step temp pe etotal
thermo_modify format float %.10f
fix nve all nve
run 200
"""


def test_molecular_dynamics_conserves_energy(artifact, tmp_path):
    atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True).repeat((2, 1, 1))
    frame = lammps_files.write_data(atoms, tmp_path / "salt.data")
    model = artifact("scale-shift", "float64")
    output = lammps.run(NVE.format(model=model, elements=" ".join(frame.elements)), tmp_path, ranks=2)
    rows = [line.split() for line in output.splitlines() if re.fullmatch(r"\s*\d+(\s+-?\d+\.\d{10}){3}\s*", line)]
    potential, total = (np.array([float(row[k]) for row in rows]) for k in (2, 3))
    assert len(rows) == 21
    assert np.ptp(potential) > 0.05  # eV: the atoms did move
    # A velocity Verlet step of 0.5 fs errs by a few thousandths of what is exchanged.
    assert np.ptp(total) < 0.01 * np.ptp(potential)


# ---- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (None, r"several heads \(pbe, r2scan\) and no --head was given\. Add: --head pbe"),
        ("hse", r"--head hse is not one of them\. Add: --head pbe"),
    ],
)
def test_several_heads(head, words, saved):
    with pytest.raises(MLIPError, match=words):
        mace.adapt(str(saved("three layers, two heads")), ExportOptions(trust_checkpoint=True, head=head))


def test_a_head_that_is_not_there(saved):
    with pytest.raises(MLIPError, match=r"has one head, Default\. Leave --head out"):
        mace.adapt(str(saved("scale-shift")), ExportOptions(trust_checkpoint=True, head="pbe"))


def test_an_element_that_is_not_there(saved):
    with pytest.raises(MLIPError, match=r"--elements Na Xe: scale-shift does not know Xe\. Its 6 elements: H C O"):
        mace.adapt(str(saved("scale-shift")), ExportOptions(trust_checkpoint=True, elements=("Na", "Xe")))


def test_a_modality(saved):
    with pytest.raises(MLIPError, match="Type: --head PBE"):
        FAMILIES["mace"].adapt(str(saved("scale-shift")), ExportOptions(trust_checkpoint=True, modal="PBE"))


def test_a_pickle_needs_trust(saved, tmp_path):
    output = tmp_path / "out.mlip.pt"
    done = mlip("export", "mace", saved("scale-shift"), "-o", output)
    assert done.returncode == 2
    assert "runs the code that it carries" in " ".join(done.stderr.split())
    assert "--trust-checkpoint" in done.stderr
    assert not output.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": {}, "optimizer": {}}, r"holds the state of a training run\. Give the file \*\.model"),
        (torch.nn.Linear(1, 1), "holds a Linear"),
    ],
)
def test_a_file_of_another_kind(content, words, tmp_path):
    torch.save(content, tmp_path / "other.model")
    with pytest.raises(MLIPError, match=words):
        mace.adapt(str(tmp_path / "other.model"), ExportOptions(trust_checkpoint=True))


def test_a_layer_that_torchscript_refuses(tmp_path):
    torch.save(mace_model(others="RealAgnosticAttResidualInteractionBlock"), tmp_path / "attention.model")
    with pytest.raises(MLIPError, match=r"layer RealAgnosticAttResidualInteractionBlock\. Layers that can be exported"):
        mace.adapt(str(tmp_path / "attention.model"), ExportOptions(trust_checkpoint=True))


def test_a_layer_without_a_fused_form(saved, monkeypatch):
    monkeypatch.setattr(mace_fused, "FUSIBLE", set())
    with pytest.raises(MLIPError, match=rf"a layer {RESIDUAL}\. This model has no fused form; .* add --no-fuse"):
        mace.adapt(str(saved("scale-shift")), options("scale-shift")).energy_model(torch.float64)


def test_an_unknown_name():
    with pytest.raises(MLIPError, match=r"'huge': neither a file nor a MACE foundation model\. Known models: small"):
        mace.adapt("huge", ExportOptions())
    with pytest.raises(MLIPError, match=r"'gone\.model': no such model file"):
        mace.adapt("gone.model", ExportOptions())


def test_licence_and_frame_of_every_name():
    """The names are mace-torch's: a new one wants a line in the table, and in docs/families.md."""
    from mace.calculators import foundations_models

    names = {*foundations_models.mace_mp_urls, *(f"off-{size}" for size in foundations_models.mace_off_urls)}
    assert set(mace.FOUNDATION) == names
    page = (Path(__file__).parents[2] / "docs" / "families.md").read_text()
    assert [name for name in names if f"`{name}`" not in page] == []


@pytest.mark.parametrize("name", ["medium-mpa-0", "off-small"])
def test_a_name_is_downloaded_once(name, saved, tmp_path, monkeypatch):
    """Through mace-torch's own code, from a file in place of the address."""
    from mace.calculators import foundations_models

    source = tmp_path / "published.model"
    source.write_bytes(saved("scale-shift").read_bytes())
    urls = foundations_models.mace_off_urls if name.startswith("off-") else foundations_models.mace_mp_urls
    monkeypatch.setitem(urls, name.removeprefix("off-"), source.as_uri())
    monkeypatch.setattr(foundations_models, "get_cache_dir", lambda: str(tmp_path / "cache"))
    for _ in range(2):
        adapted = mace.adapt(name, ExportOptions(trust_checkpoint=True))
        assert adapted.identity.source_sha256 == file_sha256(saved("scale-shift"))
        assert (adapted.identity.name, adapted.identity.license) == (name, mace.FOUNDATION[name][0])
        assert adapted.energy_frame == mace.FOUNDATION[name][1]
        source.unlink(missing_ok=True)  # the second time it comes from the cache


def test_a_download_that_fails(monkeypatch):
    from mace.calculators import foundations_models

    def unreachable(*_):
        raise OSError("no route to host")

    monkeypatch.setattr(foundations_models, "download_mace_mp_checkpoint", unreachable)
    with pytest.raises(MLIPError, match=r"could not be downloaded \(OSError: no route to host\)") as caught:
        mace.adapt("medium-mpa-0", ExportOptions())
    assert foundations_models.mace_mp_urls["medium-mpa-0"] in str(caught.value)


def test_a_missing_package():
    family = dataclasses.replace(FAMILIES["mace"], package="not_installed_here")
    with pytest.raises(MLIPError, match=r"'not_installed_here' is not installed\. Type: pip install mace-torch"):
        family.adapt("medium-mpa-0", ExportOptions())


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("name", ["scale-shift", "three layers, two heads", "density, pair repulsion", "gated"])
def test_virials_of_atoms_are_those_of_mace(name, fuse, saved, tmp_path):
    """Each atomic energy differentiated by MACE itself, with nothing folded: what a heat flux needs."""
    atoms = truth.rattled(bulk("NaCl", "rocksalt", a=5.4))
    head = {"head": HEADS[1]} if "heads" in MODELS[name] else {}
    path = tmp_path / "model.mlip.pt"
    export("mace", saved(name), path, dtype="float64", fuse=fuse, trust_checkpoint=True, **head)
    contract = Artifact(path).contract
    original = truth.of_mace(mace_model(**MODELS[name]), 1 if head else 0)
    expected = truth.virials_of_atoms(original, atoms, contract.interaction_range)
    assert contract.message_passing_layers > 1
    assert np.abs(expected).max() > HEAT_FLUX_SIGNAL
    found = MLIPCalculator(path).get_property("virials", atoms)
    np.testing.assert_allclose(found, expected, rtol=0, atol=HEAT_FLUX_FLOAT64 * np.abs(expected).max())


# ---- charge and spin, as in MACE-OMOL ------------------------------------------------------------------------------


def categories(number, offset):
    return {"type": "categorical", "per": "graph", "num_classes": number, "offset": offset, "emb_dim": 4}


SPECS = {"total_charge": categories(11, 5), "total_spin": categories(6, 0)}
NUMBERS = {"total_charge": {"type": "continuous", "per": "graph", "in_dim": 1, "emb_dim": 4}}
CHARGED = {
    "charge and spin": {"embedding_specs": SPECS, "scale": 4.0},
    "energies of the embedding": {
        "embedding_specs": SPECS,
        "use_embedding_readout": True,
        "heads": HEADS,
        "scale": 4.0,
    },
    "a network of the charge": {"embedding_specs": NUMBERS, "first": DENSITY, "others": DENSITY_RESIDUAL},
    "gated": {"embedding_specs": SPECS, "first": GATED, "others": GATED, "apply_cutoff": False},
}


def charged(name, directory, **chosen):
    """The model's file and, of its adapter, what it makes of it."""
    path = directory / "charged.model"
    torch.save(mace_model(**CHARGED[name]), path)
    head = CHARGED[name].get("heads", [None])[-1]
    return path, mace.adapt(str(path), ExportOptions(trust_checkpoint=True, head=head, **chosen))


@pytest.mark.parametrize(
    ("name", "fuse"), [*((name, True) for name in CHARGED), *((name, False) for name in list(CHARGED)[:2])]
)
def test_charge_and_spin_agree_with_mace(name, fuse, tmp_path):
    from mace.calculators import MACECalculator

    path, adapted = charged(name, tmp_path, fuse=fuse)
    model = scripted(adapted, "float64")
    with quiet():
        own = MACECalculator(
            str(path), device="cpu", default_dtype="float64", head=CHARGED[name].get("heads", [None])[-1]
        )
    totals = set()
    for atoms in structures():
        for charge, spin in ((0, 1), (-2, 3)):
            atoms.info.update(charge=charge, spin=spin)
            found = adapted.original.float64(atoms)
            values = {"charge": charge, "spin": spin}
            given = torch.tensor([float(values[setting.name]) for setting in adapted.settings], dtype=torch.float64)
            energies, forces = evaluate(model, torch.float64, atoms, adapted.elements, adapted.cutoff, given)
            np.testing.assert_allclose(forces, found.forces, rtol=0, atol=FUSED_FLOAT64)
            np.testing.assert_allclose(energies, found.atomic_energies, rtol=0, atol=FUSED_FLOAT64)
            with default_dtype(torch.float64):
                own.calculate(atoms)
            np.testing.assert_allclose(energies.sum(), own.results["energy"], rtol=0, atol=FUSED_FLOAT64 * len(atoms))
            totals.add(round(float(energies.sum()), 3))
    assert len(totals) == 4, "charge and spin change the energy"


def test_charge_and_spin_in_every_engine(tmp_path):
    path, adapted = charged("charge and spin", tmp_path)
    assert [setting.range for setting in adapted.settings] == [(-5, 5), (1, 5)]
    output = tmp_path / "charged.mlip.pt"
    export("mace", path, output, dtype="float64", trust_checkpoint=True)
    report = check(output, ["ase", "lammps", "openmm"], [1, 2])
    assert report.passed, [c.reason for c in report.comparisons if c.verdict == "fail"]
    fixed = tmp_path / "neutral.mlip.pt"
    export("mace", path, fixed, dtype="float64", trust_checkpoint=True, fix={"charge": "-1", "spin": "2"})
    assert Artifact(fixed).contract.settings == []
    atoms = structures()[0]
    found = MLIPCalculator(fixed).get_property("energy", atoms)
    assert found == pytest.approx(MLIPCalculator(output, charge=-1, spin=2).get_property("energy", atoms), abs=1e-8)
    with pytest.raises(MLIPError, match="setting 'spin' is 0, expected an integer from 1 to 5"):
        MLIPCalculator(output, charge=0, spin=0)


def test_other_inputs_are_refused(tmp_path):
    specs = {"external_field": {"type": "continuous", "per": "graph", "in_dim": 3, "emb_dim": 4}}
    torch.save(mace_model(embedding_specs=specs), tmp_path / "field.model")
    with pytest.raises(
        MLIPError, match=r"an input 'external_field' per graph\. Inputs that can be exported: total_charge, "
    ):
        mace.adapt(str(tmp_path / "field.model"), ExportOptions(trust_checkpoint=True))
