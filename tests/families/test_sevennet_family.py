"""SevenNet: every checkpoint of its package, and files that hold some of a model's elements."""

import numpy as np
import pytest
from ase.build import bulk

pytest.importorskip("sevenn", reason="the package 'sevenn' is not installed. Type: pip install sevenn")

from conftest import mlip
from models import tiny_sevennet_checkpoint

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.exporters.families.sevennet import adapter
from mlip_deploy.validation.fidelity import check

# What to export and the options; names that other tests use, so that each is exported once. All have a fused form.
PACKAGED = {
    "7net-0": ("7net-0",),  # of 11 July 2024
    "7net-0_22May2024": ("7net-0_22May2024",),
    "7net-l3i5": ("7net-l3i5",),
    "mf-PBE": ("7net-mf-0", "--modal", "PBE"),
    "mf-R2SCAN": ("7net-mf-0", "--modal", "R2SCAN"),
}


def packaged(artifacts, name):
    source, *options = PACKAGED[name]
    return artifacts.export(source, "float64", *options, name=name)


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_checkpoint(name, artifacts):
    """Exported with the fused operators, which is the default, and right to rounding in float64."""
    path = packaged(artifacts, name)
    assert "mlip::edge_tensor_product" in Artifact(path).contract.operators
    report = check(path, ["ase"], [1])
    assert report.passed, [c.reason for c in report.comparisons if c.verdict == "fail"]


def test_the_two_dates_are_two_models(artifacts):
    first, second = (Artifact(packaged(artifacts, name)) for name in ("7net-0", "7net-0_22May2024"))
    assert first.contract.model.source_sha256 != second.contract.model.source_sha256
    energies = [file.fixtures().structures[0].energy for file in (first, second)]
    assert abs(energies[0] - energies[1]) > 1e-3


@pytest.mark.parametrize("parity", [False, True])
def test_what_the_contract_says_of_mirror_images_is_so(parity, tmp_path):
    """SevenNet's `is_parity`: off in every packaged model."""
    checkpoint = tiny_sevennet_checkpoint(tmp_path / "tiny.pth", parity=parity)
    path = tmp_path / "tiny.mlip.pt"
    done = mlip("export", "sevennet", checkpoint, "-o", path, "--dtype", "float64", "--trust-checkpoint")
    assert done.returncode == 0, done.stderr
    assert Artifact(path).contract.inversion_symmetric is parity
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.rattle(0.3, seed=1)
    atoms.calc = MLIPCalculator(path)
    forces = atoms.get_forces()
    atoms.positions *= -1.0
    difference = np.abs(atoms.get_forces() + forces).max()
    assert difference < 1e-9 if parity else difference > 1e-6


# ---- --elements ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--no-fuse",)], ids=["fused", "plain"])
def test_kept_elements(options, artifacts):
    """The same numbers from a smaller file; the order on the command line does not matter."""
    checkpoint = str(artifacts.checkpoint())
    name = "-".join(["tiny", *options])
    whole = artifacts.export(checkpoint, "float64", *options, name=name)
    part = artifacts.export(checkpoint, "float64", *options, "--elements", "Cl", "Na", name=f"{name}-NaCl")
    assert Artifact(part).contract.elements == ["Na", "Cl"]
    assert part.stat().st_size < whole.stat().st_size
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.rattle(0.1, seed=1)
    results = []
    for path in (part, whole):
        atoms.calc = MLIPCalculator(path)
        results.append((atoms.get_potential_energies(), atoms.get_forces(), atoms.get_stress()))
    assert np.abs(results[0][1]).max() > 0.1
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    assert check(part, ["ase"], [1]).passed


def omni_checkpoint(path, **changes):
    """As SevenNet-Omni's: odd and even irreps, several tasks, each with shifts of its own; random weights."""
    tasks = ["mpa", "omat24", "spice"]
    return tiny_sevennet_checkpoint(
        path,
        parity=True,
        use_modality=True,
        use_modal_node_embedding=False,
        use_modal_output_block=True,
        use_modal_self_inter_intro=True,
        use_modal_self_inter_outro=True,
        use_modal_wise_shift=True,
        use_modal_wise_scale=False,
        modal_list=tasks,
        _modal_map={task: k for k, task in enumerate(tasks)},
        _number_of_modalities=len(tasks),
        shift=[[-1.0 * element - 0.1 * task for element in range(6)] for task in range(3)],
        **changes,
    )


def test_kept_elements_with_modalities(tmp_path):
    """Shifts have a row for each task and a column for each element."""
    checkpoint = omni_checkpoint(tmp_path / "omni.pth", layers=2)
    path = tmp_path / "omni.mlip.pt"
    options = ["--dtype", "float64", "--trust-checkpoint", "--modal", "omat24", "--elements", "O", "Si"]
    done = mlip("export", "sevennet", checkpoint, "-o", path, *options)
    assert done.returncode == 0, done.stderr
    assert Artifact(path).contract.elements == ["O", "Si"]
    assert check(path, ["ase"], [1]).passed


def test_an_element_that_the_model_lacks(artifacts, tmp_path):
    done = mlip("export", "sevennet", artifacts.checkpoint(), "-o", tmp_path / "x.mlip.pt", "--elements", "Na", "Xe")
    assert done.returncode == 2
    assert "--elements Na Xe: tiny does not know Xe. Its 6 elements: H C O Na Si Cl" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "modal", "functional", "license_"),
    [
        ("7net-0", None, "PBE (MPtrj)", "MIT"),
        ("SevenNet-0", None, "PBE (MPtrj)", "MIT"),
        ("7net-0_22May2024", None, "PBE (MPtrj)", "MIT"),
        ("7net-l3i5", None, "PBE (MPtrj)", "MIT"),
        ("7net-mf-0", "PBE", "PBE (MPtrj)", "MIT"),
        ("7net-mf-0", "R2SCAN", "R2SCAN", "MIT"),
        ("7net-mf-ompa", "mpa", "PBE (MPtrj, sAlex)", "unknown"),
        ("7net-mf-ompa", "omat24", "PBE (OMat24)", "unknown"),
        ("7net-omat", None, "PBE (OMat24)", "unknown"),
        ("7net-omni", "mpa", "PBE (MPtrj, sAlex)", "unknown"),
        ("7net-omni-i12", "matpes_r2scan", "r2SCAN (MatPES)", "unknown"),
        ("7net-omni-i8", "spice", "spice", "unknown"),
    ],
)
def test_frames_and_licences_of_published_names(name, modal, functional, license_):
    assert adapter._energy_frame(name, modal).functional == functional
    assert adapter._license(name) == license_


@pytest.mark.parametrize(
    ("layers", "lmax", "irreps"),
    [(3, 3, "8x0e+2x0o+4x1o+2x1e+2x2e+2x2o+2x3o+2x3e"), (12, 1, "8x0e+4x1o")],  # twelve with all irreps take minutes
)
def test_the_architecture_of_the_downloaded_models(layers, lmax, irreps, tmp_path):
    """SevenNet-Omni: l up to 3, odd and even irreps, several tasks. -Omni-i12: twelve layers."""
    irreps_of_layers = ["8x0e", *[irreps] * (layers - 1), "8x0e"]
    checkpoint = omni_checkpoint(tmp_path / "omni.pth", layers=layers, lmax=lmax, irreps_manual=irreps_of_layers)
    path = tmp_path / "omni.mlip.pt"
    options = ["--dtype", "float64", "--trust-checkpoint", "--modal", "omat24"]
    done = mlip("export", "sevennet", checkpoint, "-o", path, *options)
    assert done.returncode == 0, done.stderr
    contract = Artifact(path).contract
    assert contract.message_passing_layers == layers
    assert "mlip::edge_tensor_product" in contract.operators
    engines, ranks = (["ase", "lammps"], [1, 2]) if layers == 3 else (["lammps"], [2])
    report = check(path, engines, ranks)
    assert report.passed, [c.reason for c in report.comparisons if c.verdict == "fail"]
