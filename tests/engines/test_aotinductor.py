"""The back end aotinductor: the same numbers as TorchScript in every engine and at every size, and its refusals."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import openmm
import pytest
import torch
import toy_models
from archives import rewritten
from ase import Atoms
from ase.build import bulk
from conftest import mlip
from tolerances import FLOAT64_SUM, FORCE_SIGNAL
from torch import nn

from mlip_deploy import _core, export_module
from mlip_deploy.artifact.contract import ENERGY_AND_FORCES, CompiledFor, Output
from mlip_deploy.artifact.gate import problem, write_validation_record
from mlip_deploy.artifact.reader import CONTRACT_RECORD, FIXTURES_RECORD, VALIDATION_RECORD, Artifact
from mlip_deploy.artifact.validation_record import ValidationRecord
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.interface import EdgeGradientModel
from mlip_deploy.exporters.targets import aotinductor
from mlip_deploy.openmm import MLIPForce

ALL_ENGINES = {("ase", 1), ("lammps", 1), ("lammps", 2), ("lammps", 4), ("openmm", 1)}


@pytest.fixture(scope="module")
def local(artifacts):
    return toy_models.export(artifacts.directory / "compiled-local.mlip.pt2", "local", backend="aotinductor")


def edited(source, target, record, change):
    """A copy of an artifact with one JSON record changed."""

    def change_record(contents):
        values = json.loads(contents[f"extra/{record}"])
        change(values)
        contents[f"extra/{record}"] = json.dumps(values).encode()

    return rewritten(source, target, change_record)


def foreign_package(source, target):
    """A copy without what mlip-deploy writes into it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            if "/extra/mlip/" not in entry.filename:
                new.writestr(entry, old.read(entry))
    return target


# ---- the same numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parity_table(dtype, artifacts, tmp_path):
    """Against SevenNet itself, with the fused operators; one atom leaves three of four ranks empty."""
    done = mlip("check", artifacts.compiled(dtype), "--ranks", "1,2,4", "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    comparisons = json.loads((tmp_path / "out.json").read_text())["comparisons"]
    assert {(c["engine"], c["ranks"]) for c in comparisons} == ALL_ENGINES
    assert {c["verdict"] for c in comparisons if c["structure"] == "single atom"} == {"pass"}


def test_parity_table_of_a_module(local, tmp_path):
    done = mlip("check", local, "--ranks", "1,2,4", "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    comparisons = json.loads((tmp_path / "out.json").read_text())["comparisons"]
    assert {(c["engine"], c["ranks"]) for c in comparisons} == ALL_ENGINES


def cluster(n_atoms):
    """Atoms 2.8 Å apart on a line with kinks, of two elements: every count of atoms and edges there is."""
    random = np.random.default_rng(n_atoms)
    line = np.arange(n_atoms)[:, None] * [2.8, 0.0, 0.0]
    return Atoms((["Na", "Cl"] * n_atoms)[:n_atoms], positions=line + random.normal(scale=0.2, size=(n_atoms, 3)))


def crystal(repeat):
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(repeat)
    atoms.positions += np.random.default_rng(3).normal(scale=0.1, size=atoms.positions.shape)
    return atoms


def compare(atoms, compiled, scripted):
    results = []
    for path in (compiled, scripted):
        atoms.calc = MLIPCalculator(path)
        results.append((atoms.get_potential_energies(), atoms.get_forces()))
    (energies, forces), (expected_energies, expected_forces) = results
    np.testing.assert_allclose(energies, expected_energies, rtol=0, atol=FLOAT64_SUM)
    np.testing.assert_allclose(forces, expected_forces, rtol=0, atol=FLOAT64_SUM)
    return expected_forces


# Widths of the tiny model's features are 2, 4, 8 and 16; 61 and 67 are the atoms of the traced example.
@pytest.mark.parametrize("n_atoms", [1, 2, 3, 4, 8, 16, aotinductor.N_OWNED, aotinductor.N_NODES])
def test_any_small_size(n_atoms, artifacts, tiny):
    forces = compare(cluster(n_atoms), artifacts.compiled(), tiny)
    assert n_atoms == 1 or np.abs(forces).max() > FORCE_SIGNAL


def test_a_large_system(artifacts, tiny):
    assert np.abs(compare(crystal((6, 6, 6)), artifacts.compiled(), tiny)).max() > FORCE_SIGNAL


def test_a_hundred_thousand_atoms(local, toy_local):
    atoms = crystal((30, 30, 30))
    assert len(atoms) > 100_000
    assert np.abs(compare(atoms, local, toy_local)).max() > FORCE_SIGNAL


def test_energies_alone(local):
    """What a barostat asks for: the compiled graph has no way to them but the whole one."""
    atoms = crystal((2, 2, 2))
    atoms.calc = MLIPCalculator(local)
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(0.1 * atoms.cell.array))
    for mass in atoms.get_masses():
        system.addParticle(mass)
    system.addForce(MLIPForce(local, atoms.get_chemical_symbols(), periodic=True))
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(0.1 * atoms.positions)
    energy = context.getState(getEnergy=True).getPotentialEnergy()._value
    assert energy == pytest.approx(atoms.get_potential_energy() * _core.EV_IN_KJ_PER_MOL, rel=1e-10)


# ---- the same records ---------------------------------------------------------------------------------------------


def test_info(local):
    contract = Artifact(local).contract
    done = mlip("info", local)
    assert done.returncode == 0
    words = " ".join(done.stdout.split())
    assert f"back end aotinductor, float64, compiled for {contract.compiled_for.describe()}" in words


def test_a_recorded_file_runs(local, tmp_path):
    path = shutil.copy(local, tmp_path / "recorded.mlip.pt2")
    artifact = Artifact(path)
    versions = {"torch": str(torch.__version__).partition("+")[0]}
    write_validation_record(
        artifact,
        ValidationRecord(
            schema="1.0", verdict="pass", content_sha256=artifact.content_sha256(), suites=["fidelity", "physics"],
            engines=["ase"], elements=["Na"], versions=versions,
        ),
    )  # fmt: skip
    assert problem(Artifact(path), "ase") == ""
    compare(cluster(5), path, local)
    with zipfile.ZipFile(path) as archive:
        assert sum(name.endswith(VALIDATION_RECORD) for name in archive.namelist()) == 1


def test_compiling_the_same_again_is_free(tmp_path, monkeypatch):
    """The second time only the trace is made; another model is another entry."""
    monkeypatch.setattr(aotinductor.pooch, "os_cache", lambda name: tmp_path / name)
    compiled = []
    monkeypatch.setattr(aotinductor, "_compile", lambda *_: compiled.append(1) or [str(__file__)])
    contract = Artifact(toy_models.export(tmp_path / "toy.mlip.pt", "local")).contract
    contract = aotinductor.contract_of(contract, "cpu")

    def run(cutoff):
        model = EdgeGradientModel(toy_models.LocalEnergy(cutoff)).eval()
        return aotinductor.compile_model(model, contract, lambda message: None)

    assert run(3.9) == run(3.9)
    assert len(compiled) == 1
    assert run(4.0) != run(3.9)
    assert len(compiled) == 2


# ---- it must go red -----------------------------------------------------------------------------------------------


class PushedApart(EdgeGradientModel):
    """Forces with the wrong sign."""

    def forward(self, node_types, n_owned, edge_index, edge_vectors):
        energies, gradients = super().forward(node_types, n_owned, edge_index, edge_vectors)
        return energies, -gradients


def test_wrong_forces_fail_the_check(local, tmp_path):
    artifact = Artifact(local)
    contract = artifact.contract
    model = PushedApart(toy_models.LocalEnergy(contract.cutoff)).eval()
    files, _ = aotinductor.compile_model(model, contract, lambda message: None)
    path = tmp_path / "wrong.mlip.pt2"
    aotinductor.save(files, path, contract, artifact.fixtures(), model)
    done = mlip("check", path, "--engines", "ase")
    assert done.returncode == 1
    assert "sheared crystal: forces differ by" in " ".join(done.stderr.split())


def test_changed_fixtures_fail_the_check(local, tmp_path):
    def change(fixtures):
        fixtures["structures"][0]["energy"] += 1e-6

    done = mlip("check", edited(local, tmp_path / "x.mlip.pt2", FIXTURES_RECORD, change), "--engines", "ase")
    assert done.returncode == 1
    assert "sheared crystal: energy differ by" in " ".join(done.stderr.split())


@pytest.mark.parametrize("wrong", [0, 1], ids=["energies", "gradients"])
@pytest.mark.parametrize("error", [1e-6, float("nan")])
def test_a_miscompiled_model_is_refused(wrong, error, local, tmp_path, monkeypatch):
    """Without the comparison at export nobody would know before `mlip check`."""
    load_package = torch._inductor.aoti_load_package

    class Miscompiled:
        def __init__(self, path):
            self.package = load_package(path)
            self.loader = self

        def run(self, inputs):
            outputs = self.package.loader.run(inputs)
            outputs[wrong][-1] += error * outputs[wrong].abs().max()
            return outputs

    monkeypatch.setattr(torch._inductor, "aoti_load_package", Miscompiled)
    path = tmp_path / "wrong.mlip.pt2"
    with pytest.raises(MLIPError, match="compiles this model to code that computes other numbers"):
        toy_models.export(path, "local", backend="aotinductor")
    assert not path.exists()


# Right at any size, so that the examination of the module takes them; their traces would hold for one size alone.


class BranchOnCount(toy_models.LocalEnergy):
    def forward(self, node_types, n_owned, edge_index, edge_vectors):
        energies = super().forward(node_types, n_owned, edge_index, edge_vectors)
        return energies + 0.0 if edge_vectors.shape[0] > 100 else energies


class CountInTensor(toy_models.LocalEnergy):
    def forward(self, node_types, n_owned, edge_index, edge_vectors):
        energies = super().forward(node_types, n_owned, edge_index, edge_vectors)
        return energies * torch.tensor(len(node_types) + 1.0) / torch.tensor(len(node_types) + 1.0)


class BranchOnValue(toy_models.LocalEnergy):
    def forward(self, node_types, n_owned, edge_index, edge_vectors):
        energies = super().forward(node_types, n_owned, edge_index, edge_vectors)
        return 2.0 * energies if float(energies.sum()) > 0.0 else energies


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (
            BranchOnCount,
            r"code depends on the number of atoms or edges.*test_aotinductor.*Use x.shape\[0\]",
        ),
        (CountInTensor, "code depends on the number of atoms or edges.*or export without --backend aotinductor"),
        (BranchOnValue, "cannot be traced: .*Export it without --backend aotinductor"),
    ],
)
def test_what_a_trace_would_fix_is_refused(module: type[nn.Module], words, tmp_path):
    path = tmp_path / "x.mlip.pt2"
    with pytest.raises(MLIPError, match=words):
        export_module(
            module(3.9), path, elements=["Na", "Cl"], cutoff=3.9, name="toy", dtype="float64", backend="aotinductor"
        )
    assert not path.exists()


def test_layers_in_torchscript_are_refused(tmp_path):
    module = toy_models.LocalEnergy(3.9)
    module.layer = torch.jit.script(nn.Linear(1, 1))
    contract = aotinductor.contract_of(Artifact(toy_models.export(tmp_path / "toy.mlip.pt", "local")).contract, "cpu")
    with pytest.raises(MLIPError, match=r"stores as TorchScript.*Leave out --no-fuse if it is there, or --backend"):
        aotinductor.compile_model(EdgeGradientModel(module).eval(), contract, lambda message: None)


class Brittle(toy_models.LocalEnergy):
    """An operator in the compiled code refuses its arguments when two atoms are closer than half an ångström."""

    def forward(self, node_types, n_owned, edge_index, edge_vectors):
        energies = super().forward(node_types, n_owned, edge_index, edge_vectors)
        close = ((edge_vectors * edge_vectors).sum(1) < 0.25).sum()
        types = node_types[:n_owned] + 3 * close
        one = energies.new_ones([3, 1, 1])
        return torch.ops.mlip.element_linear(energies.view(-1, 1, 1), types, one).flatten()


def test_what_an_operator_says_reaches_the_user(tmp_path):
    path = tmp_path / "brittle.mlip.pt2"
    export_module(
        Brittle(3.9), path, elements=["Na", "Cl"], cutoff=3.9, name="toy", dtype="float64", backend="aotinductor"
    )
    pair = Atoms("NaCl", positions=[[0.0, 0.0, 0.0], [0.4, 0.0, 0.0]], calculator=MLIPCalculator(path))
    with pytest.raises(MLIPError, match=r"^toy: element_linear: type 7 is not one of 3 elements$"):
        pair.get_potential_energy()
    pair.positions[1, 0] = 2.0
    assert np.abs(pair.get_forces()).max() > FORCE_SIGNAL


# ---- refusals -----------------------------------------------------------------------------------------------------


def compiled_for(**fields):
    return lambda contract: contract["compiled_for"].update(fields)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            compiled_for(torch="2.4"),
            r"compiled for torch 2\.4, this is torch \d+\.\d+\. Compile it here: export_module",
        ),
        (
            compiled_for(device="cuda"),
            r"for device cuda, this is device cpu\. Compile it here: export_module\(\.\.\., backend=\"aotinductor\", "
            r"device=\"cpu\"\), or write a file that runs anywhere: export_module\(\.\.\., \"NAME\.mlip\.pt\"\)",
        ),
        (compiled_for(processor="x86-64-v9"), r"is compiled for processors of x86-64-v9, this is x86-64\S*\. Compile"),
    ],
)
def test_compiled_for_another_machine(change, words, local, tmp_path):
    path = edited(local, tmp_path / "x.mlip.pt2", CONTRACT_RECORD, change)
    for device in ("cpu", "auto"):
        with pytest.raises(MLIPError, match=words):
            _core.Potential(str(path), device=device)


def test_auto_is_the_device_that_the_code_is_for(local):
    assert _core.Potential(str(local), device="auto").device == "cpu"


def test_an_operator_of_another_version(local, tmp_path):
    def change(contract):
        contract["operators"] = {"mlip::ghost_gather": 2}

    path = edited(local, tmp_path / "x.mlip.pt2", CONTRACT_RECORD, change)
    with pytest.raises(MLIPError, match="needs version 2 of the operator mlip::ghost_gather, this mlip-deploy has"):
        _core.Potential(str(path))


def test_a_missing_temporary_folder_is_named_with_its_cure(local, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    with pytest.raises(ValueError, match=r"missing' is not a folder\. Type: export TMPDIR=/tmp"):
        MLIPCalculator(local)


def test_nothing_stays_unpacked(local, toy_local, tmp_path, monkeypatch):
    """A process that is killed cannot remove what it has unpacked: it is gone once the file is loaded."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    calculators = [MLIPCalculator(local), MLIPCalculator(local)]
    assert list(tmp_path.iterdir()) == []
    for calculator in (*calculators, MLIPCalculator(local)):
        found, expected = crystal(1), crystal(1)
        found.calc, expected.calc = calculator, MLIPCalculator(toy_local)
        np.testing.assert_allclose(found.get_forces(), expected.get_forces(), atol=FLOAT64_SUM)
    assert list(tmp_path.iterdir()) == []


NO_SPACE = """
import resource, sys
from mlip_deploy.ase import MLIPCalculator
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
MLIPCalculator(sys.argv[1])
"""


def test_no_space_to_unpack(local, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", NO_SPACE, str(local)], env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert f"cannot be unpacked in '{tmp_path}'. Free some space there, or type: export TMPDIR=FOLDER" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_line_to_type_names_the_family(local, tmp_path):
    def change(contract):
        contract["model"]["family"] = "sevennet"
        contract["compiled_for"]["torch"] = "2.4"

    path = edited(local, tmp_path / "x.mlip.pt2", CONTRACT_RECORD, change)
    line = "mlip export sevennet CHECKPOINT --backend aotinductor --device cpu -o NAME.mlip.pt2"
    with pytest.raises(MLIPError, match=line):
        MLIPCalculator(path)


def test_a_contract_of_the_other_back_end(local, toy_local, tmp_path):
    def scripted(contract):
        contract["backend"] = "torchscript"
        del contract["compiled_for"]

    def compiled(contract):
        contract["backend"] = "aotinductor"
        contract["compiled_for"] = CompiledFor(torch="2.13", device="cpu", processor="x86-64").model_dump()

    path = edited(local, tmp_path / "a.mlip.pt2", CONTRACT_RECORD, scripted)
    with pytest.raises(MLIPError, match="the contract says back end torchscript, the file holds none of it"):
        _core.Potential(str(path))
    path = edited(toy_local, tmp_path / "b.mlip.pt", CONTRACT_RECORD, compiled)
    with pytest.raises(MLIPError, match="the contract says back end aotinductor, the file holds TorchScript"):
        _core.Potential(str(path))


@pytest.mark.parametrize("backend", ["torchscript", "aotinductor"])
def test_compiled_for_belongs_to_compiled_files(backend, local):
    contract = json.loads(Artifact(local).contract.to_json())
    contract["backend"] = backend
    if backend == "aotinductor":
        del contract["compiled_for"]
    with pytest.raises(MLIPError, match="compiled_for"):
        _core.check_contract(json.dumps(contract), "file")


def test_damaged(local, tmp_path):
    path = tmp_path / "half.mlip.pt2"
    content = local.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    foreign = foreign_package(local, tmp_path / "foreign.pt2")
    for file, words in (
        (path, "is truncated or damaged"),
        (foreign, "is a package of torch.export without a contract"),
    ):
        with pytest.raises(MLIPError, match=words):
            Artifact(file)
        with pytest.raises(MLIPError, match=words):
            _core.Potential(str(file))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--backend", "aotinductor", "-o", "x.mlip.pt"], "file names end in .mlip.pt2 here. Type: -o x.mlip.pt2"),
        (["-o", "x.mlip.pt2"], "Type: -o x.mlip.pt, or add --backend aotinductor"),
        (
            ["--target", "torchforce", "--backend", "aotinductor", "-o", "x.torchforce.pt"],
            "--target torchforce is TorchScript. Leave out --backend aotinductor",
        ),
    ],
)
def test_wrong_command_line(arguments, words):
    done = mlip("export", "sevennet", "7net-0", *arguments)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())


def test_extras_are_refused(toy_local):
    moments = Output(name="magmoms", unit="mu_B", scope="atom")
    contract = Artifact(toy_local).contract.model_copy(update={"outputs": [*ENERGY_AND_FORCES, moments]})
    with pytest.raises(
        MLIPError, match=r"outputs beside energy and forces \(magmoms\).*Leave out --backend aotinductor"
    ):
        aotinductor.contract_of(contract, "cpu")


def test_roofline_needs_a_graph(local):
    done = mlip("bench", local, "--roofline", "--systems", "si64", "--engines", "ase", "--pairs", "1", "--steps", "1")
    assert done.returncode == 2
    assert "a compiled file does not say what it computes. Give a TorchScript file" in " ".join(done.stderr.split())
