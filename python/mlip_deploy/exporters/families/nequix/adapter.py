"""Adapter for Nequix (T. Koker, M. Kotak, T. Smidt 2025): package `nequix`, checkpoints `*.nqx` and `*.pt`.

The layers are in model.py; nequix's own model, which is the reference, comes from framework.py, without JAX.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import torch
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import complete_cell
from ase.neighborlist import neighbor_list
from torch import nn

from mlip_deploy.artifact.contract import EnergyFrame, ModelIdentity
from mlip_deploy.artifact.fixtures import Original
from mlip_deploy.artifact.reader import file_sha256
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.nequix.checkpoint import Checkpoint, read_checkpoint
from mlip_deploy.exporters.families.nequix.framework import build_model, evaluate
from mlip_deploy.exporters.families.nequix.model import NequixEnergy
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions, keep_elements
from mlip_deploy.exporters.families.sources import downloading, unknown_source
from mlip_deploy.exporters.interface import Adapted
from mlip_deploy.exporters.layers.equivariant import NotFusible, script
from mlip_deploy.exporters.settings import default_dtype, quiet
from mlip_deploy.result import VOIGT, Result

CITATION = (
    "Koker, T.; Kotak, M.; Smidt, T. Training a foundation model for materials on a budget. arXiv:2508.16067 (2025)"
)
# The repository is under the MIT licence; Matbench Discovery lists the weights as CC-BY-4.0.
LICENSE = "MIT (repository), CC-BY-4.0 (weights, by Matbench Discovery)"


@dataclass(frozen=True)
class Published:
    """A published checkpoint."""

    commit: str
    """of the repository atomicarchitects/nequix, in which nequix 0.4.5 finds the file"""
    sha256: str | None
    """None where the file has not been seen here"""
    energy_frame: EnergyFrame


def _frame(functional: str, hubbard_u: str) -> EnergyFrame:
    return EnergyFrame(functional=functional, hubbard_u=hubbard_u, corrections="none", dispersion="none")


_MP, _OAM = "7c2854de8e754b1a60274c7d9d2e014989ed632e", "9c852a9c4cce69ae5e75bc5a2cf670be21ff8c28"
_MPTRJ = _frame("PBE (MPtrj)", "MP2020 values")
_SALEX = _frame("PBE (MPtrj, sAlex)", "MP2020 values")
_OMAT = _frame("PBE (OMat24)", "OMat24 values")
PUBLISHED = {
    "mp-1": Published(_MP, "1647af8e627e1afa11e2bfadeab0797326513a521afd7dd01606a96f56783eee", _MPTRJ),
    "mp-1-pft": Published(_MP, None, _MPTRJ),
    "oam-1": Published(_OAM, "6a43475eaeb32a7a049f36c1306d78aa1e7a17e8af37aeda7901c8fec0ca845c", _SALEX),
    "oam-1-pft": Published(_OAM, None, _SALEX),
    "omat-1": Published(_OAM, "2d0802ae7f5915cb488c44d25649d98404a103697e6500abb40f515e003a46a6", _OMAT),
}
CACHE = Path("~/.cache/nequix/models")
"""where nequix's own calculator keeps what it downloads"""


def adapt(source: str, options: ExportOptions) -> Adapted:
    """A published or stored Nequix model as an Adapted model.

    Args:
        source: a name of PUBLISHED, or a file.
        options: `fuse` False keeps e3nn's tensor products; `elements`.

    Raises:
        MLIPError: for an unknown source, a file that is no checkpoint of Nequix, elements that the model lacks, or a
            layer without a fused form while `options.fuse` is true.
    """
    path, name, published = _locate(source)
    checkpoint = read_checkpoint(path)
    if checkpoint.settings["index_weights"]:
        raise MLIPError(f"'{source}' has weights for each element (index_weights), which nequix cannot run in PyTorch")
    numbers: list[int] = checkpoint.settings["atomic_numbers"]
    known = [chemical_symbols[number] for number in numbers]
    elements = keep_elements(known, options.elements, name)
    species = [known.index(symbol) for symbol in elements]
    layers = int(checkpoint.settings["n_layers"])
    return Adapted(
        identity=ModelIdentity(
            family="nequix",
            name=name,
            source_sha256=file_sha256(path),
            license="unknown" if published is None else LICENSE,
            citation=CITATION,
        ),
        elements=elements,
        cutoff=float(checkpoint.settings["cutoff"]),
        message_passing_layers=layers,
        parallel="exchange",
        energy_frame=EnergyFrame.unknown() if published is None else published.energy_frame,
        inputs=[],
        inversion_symmetric=True,  # its harmonics are of vectors, and its layers keep parity
        energy_model=lambda dtype: _energy_model(checkpoint, path, species, dtype, options),
        original=Original(
            package=f"nequix {FAMILIES['nequix'].version()}",
            float64=_original(checkpoint, path, torch.float64),
            float32=_original(checkpoint, path, torch.float32),
            calculator=lambda dtype, device, accelerator: _calculator(path, dtype),
        ),
        script=script,
    )


def _energy_model(
    checkpoint: Checkpoint, path: Path, species: list[int], dtype: torch.dtype, options: ExportOptions
) -> nn.Module:
    model = build_model(checkpoint, path, dtype)
    in_float64 = build_model(checkpoint, path, torch.float64) if options.tabulate(dtype == torch.float32) else None
    try:
        with default_dtype(dtype):
            return NequixEnergy(model, in_float64, species, options.fuse)
    except NotFusible as reason:
        raise MLIPError(f"{reason}. This model has no form that can be exported") from reason


def _locate(source: str) -> tuple[Path, str, Published | None]:
    """(file, name, what is known of it) of a source; downloads a named model to where nequix keeps it."""
    path = Path(source)
    if path.is_file():
        digest = file_sha256(path)
        same = [name for name, published in PUBLISHED.items() if published.sha256 == digest]
        return path, f"nequix-{same[0]}" if same else path.stem, PUBLISHED[same[0]] if same else None
    name = source.removeprefix("nequix-")
    if name not in PUBLISHED:
        raise unknown_source(source, "a Nequix model", PUBLISHED)
    published = PUBLISHED[name]
    file = f"nequix-{name}.nqx"
    url = f"https://github.com/atomicarchitects/nequix/raw/{published.commit}/models/{file}"
    known_hash = None if published.sha256 is None else f"sha256:{published.sha256}"
    with downloading(source, url), quiet():
        found = pooch.retrieve(url, known_hash, fname=file, path=CACHE.expanduser())
    return Path(found), f"nequix-{name}", published


def _calculator(path: Path, dtype: str) -> Any:
    """nequix's own, in PyTorch and float32. It imports JAX."""
    if dtype != "float32":
        raise MLIPError(f"Nequix's calculator computes in float32, the artifact in {dtype}. Export it in float32")
    try:
        from nequix.calculator import NequixCalculator
    except ImportError as error:
        raise MLIPError(
            f"Nequix's calculator needs JAX and more ({error}). Type: pip install jax equinox e3nn-jax jraph matscipy "
            "torch-geometric cloudpickle h5py"
        ) from error
    # It writes what it converts beside what it reads.
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(path, folder)
        return NequixCalculator(model_path=copy, backend="torch", use_kernel=False)


def _original(checkpoint: Checkpoint, path: Path, dtype: torch.dtype) -> Callable[[Atoms], Result]:
    """nequix's own layers and derivatives in `dtype`, on a neighbour list of ASE."""
    model: Any = None
    numbers: list[int] = checkpoint.settings["atomic_numbers"]

    def evaluate_original(atoms: Atoms) -> Result:
        nonlocal model
        model = model or build_model(checkpoint, path, dtype)
        centres, neighbours, shifts = neighbor_list("ijS", atoms, float(checkpoint.settings["cutoff"]))
        energies, forces, stress = evaluate(
            model,
            torch.tensor([numbers.index(number) for number in atoms.numbers]),
            torch.tensor(atoms.positions),
            torch.tensor(complete_cell(atoms.cell)),  # open directions have no shifts, but a volume is asked for
            torch.tensor(shifts),
            torch.tensor(np.array([centres, neighbours])),
            dtype,
        )
        tensor = stress.numpy().astype(float)
        atomic_energies = energies.numpy().astype(float)
        return Result(
            energy=float(atomic_energies.sum()),
            atomic_energies=atomic_energies,
            forces=forces.numpy().astype(float),
            stress=np.array([tensor[a, b] for a, b in VOIGT]) if atoms.pbc.all() else None,
        )

    return evaluate_original
