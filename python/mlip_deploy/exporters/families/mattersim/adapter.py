"""Adapter for MatterSim (H. Yang et al. 2024): package `mattersim`, its published checkpoints and fine-tuned ones.

The layers are in model.py. MatterSim's edges have features that their centres alone update, so that atoms are all that
ranks exchange: the mode is `exchange`.
"""

import contextlib
import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.units import GPa
from torch import Tensor

from mlip_deploy.artifact.contract import EnergyFrame, ModelIdentity
from mlip_deploy.artifact.fixtures import Original
from mlip_deploy.artifact.reader import file_sha256
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.cells import closed_cell
from mlip_deploy.exporters.checkpoints import load_checkpoint
from mlip_deploy.exporters.families.mattersim.model import MatterSimEnergy
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions, keep_elements
from mlip_deploy.exporters.families.sources import downloading, unknown_source
from mlip_deploy.exporters.interface import Adapted
from mlip_deploy.exporters.settings import default_dtype, quiet
from mlip_deploy.result import Result, tensor_to_voigt

CITATION = (
    "Yang, H.; et al. MatterSim: a deep learning atomistic model across elements, temperatures and pressures. "
    "arXiv:2405.04967 (2024)"
)
# MatterSim's model card says PBE, and no more.
FRAME = EnergyFrame(functional="PBE (MatterSim)", hubbard_u="unknown", corrections="unknown", dispersion="none")
# The embedding has rows for these, too. By Matbench Discovery the training data have 89 elements and hold those of the
# Materials Project, which are the 89 others.
UNTRAINED = ("Po", "At", "Rn", "Fr", "Ra")


@dataclass(frozen=True)
class Published:
    """A published checkpoint."""

    file: str
    """its name in the repository microsoft/mattersim, and where mattersim keeps it"""
    git_blob: str
    """by which git knows the file's content in the commit below"""


COMMIT = "296630372948fd35613939d14d3f97daa27cefda"
PUBLISHED = {
    "mattersim-v1.0.0-1m": Published("mattersim-v1.0.0-1M.pth", "812737ca1933fb8860195a5376986fb82f697212"),
    "mattersim-v1.0.0-5m": Published("mattersim-v1.0.0-5M.pth", "7641430c8b1a4877eaed73c11920c6ad7f3846d6"),
}
CACHE = Path("~/.local/mattersim/pretrained_models")
"""where mattersim's own calculator keeps what it downloads"""


def adapt(source: str, options: ExportOptions) -> Adapted:
    """A published or stored MatterSim model as an Adapted model.

    Args:
        source: a name of PUBLISHED in any case, or a file that MatterSim has saved.
        options: `fuse` False takes torch's operators alone; `elements`, `trust_checkpoint`.

    Raises:
        MLIPError: for an unknown source, a file that is no checkpoint of MatterSim's M3GNet, elements that the model
            lacks, or a package that mattersim lacks.
    """
    path, name, published = _locate(source)
    model = _load(path, options.trust_checkpoint)
    known = [symbol for symbol in chemical_symbols[1 : model.max_z + 1] if not (published and symbol in UNTRAINED)]
    elements = keep_elements(known, options.elements, name)
    numbers = [atomic_numbers[symbol] for symbol in elements]
    return Adapted(
        identity=ModelIdentity(
            family="mattersim",
            name=name,
            source_sha256=file_sha256(path),
            license="MIT" if published else "unknown",
            citation=CITATION,
        ),
        elements=elements,
        cutoff=float(model.model_args["cutoff"]),
        message_passing_layers=int(model.model_args["num_blocks"]),
        parallel="exchange",
        energy_frame=FRAME if published else EnergyFrame.unknown(),
        inputs=[],
        inversion_symmetric=True,  # its features are functions of distances and angles
        energy_model=lambda dtype: MatterSimEnergy(copy.deepcopy(model).to(dtype), numbers, options.fuse),
        original=Original(
            package=f"mattersim {FAMILIES['mattersim'].version()}",
            float64=_original(model, torch.float64),
            float32=_original(model, torch.float32),
            calculator=lambda dtype, device, accelerator: _calculator(model, dtype, device),
        ),
    )


def _locate(source: str) -> tuple[Path, str, bool]:
    """(file, name, whether it is published) of a source; downloads a named model to where mattersim keeps it."""
    path = Path(source)
    if not path.is_file():
        name = source.lower().removesuffix(".pth")
        if name not in PUBLISHED:
            raise unknown_source(source, "a MatterSim model", PUBLISHED, ".pth")
        path = _download(PUBLISHED[name])
    blob = _git_blob(path)
    same = [name for name, published in PUBLISHED.items() if published.git_blob == blob]
    return path, same[0] if same else path.stem, bool(same)


def _download(published: Published) -> Path:
    """The file of a published model, where mattersim keeps it.

    Raises:
        MLIPError: without a connection, or when another file is there.
    """
    url = f"https://github.com/microsoft/mattersim/raw/{COMMIT}/pretrained_models/{published.file}"
    path = CACHE.expanduser() / published.file
    if not path.is_file():
        with downloading(published.file, url), quiet():
            pooch.retrieve(url, None, fname=published.file, path=path.parent)
    if _git_blob(path) != published.git_blob:
        raise MLIPError(f"'{path}' is not the published file, which is at {url}. Delete it, or give it another name")
    return path


def _git_blob(path: Path) -> str:
    """What `git hash-object` prints."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _load(path: Path, trust: bool) -> Any:
    """MatterSim's own model in float32."""
    content = load_checkpoint(path, trust)
    try:
        from mattersim.forcefield.m3gnet.m3gnet import M3Gnet
    except ImportError as error:
        raise MLIPError(f"mattersim cannot be imported ({error}). Type: {FAMILIES['mattersim'].install}") from error
    parts = ("model_name", "model_args", "model")
    absent = [part for part in parts if part not in content] if isinstance(content, Mapping) else list(parts)
    if absent:
        raise MLIPError(f"'{path}' is no checkpoint of MatterSim: it has no {', '.join(absent)}")
    name, settings, state = (content[part] for part in parts)  # type: ignore[index]
    if name != "m3gnet":
        raise MLIPError(f"'{path}' holds a model of kind '{name}'. MatterSim publishes the code of 'm3gnet' alone")
    try:
        with default_dtype(torch.float32):
            model = M3Gnet(device="cpu", **settings)
        missing, unexpected = model.load_state_dict(state, strict=False)
    except (AssertionError, RuntimeError, TypeError) as error:
        raise MLIPError(f"'{path}' is no checkpoint of MatterSim's M3GNet ({error})") from error
    # Constants of the bases follow from the settings, and files of earlier versions lack some.
    wrong = [name for name in missing if name.split(".")[0] not in ("rbf", "sbf")] + list(unexpected)
    if wrong:
        raise MLIPError(f"'{path}': its weights do not fit its settings (missing or unknown: {', '.join(wrong)})")
    return model.eval().requires_grad_(False)


def _potential(model: Any, dtype: torch.dtype, device: str = "cpu") -> Any:
    from mattersim.forcefield.potential import Potential

    model = copy.deepcopy(model).to(dtype)
    model.device = model.normalizer.device = device
    return Potential(model, device=device)


def _calculator(model: Any, dtype: str, device: str) -> Any:
    """MatterSim's own, which computes in float32."""
    from mattersim.forcefield.potential import MatterSimCalculator

    if dtype != "float32":
        raise MLIPError(f"MatterSim's calculator computes in float32, the artifact in {dtype}. Export it in float32")
    return MatterSimCalculator(_potential(model, torch.float32, device), device=device)


def _original(model: Any, dtype: torch.dtype) -> Callable[[Atoms], Result]:
    """MatterSim's own graph, layers and derivatives in `dtype`."""
    potential: Any = None
    seen: list[Tensor] = []

    def evaluate(atoms: Atoms) -> Result:
        nonlocal potential
        if potential is None:
            with quiet(), default_dtype(dtype):
                potential = _potential(model, dtype)
            # MatterSim returns their sum alone.
            potential.model.normalizer.register_forward_hook(lambda module, inputs, output: seen.append(output))
        with quiet(), default_dtype(dtype), _float_is(dtype):
            found = potential(_graph(atoms, potential.model.model_args, dtype))
        energies = seen.pop().detach().numpy().astype(float)
        tensor = found["stresses"][0].detach().numpy().astype(float) * GPa
        return Result(
            energy=float(energies.sum()),
            atomic_energies=energies,
            forces=found["forces"].detach().numpy().astype(float),
            stress=tensor_to_voigt(tensor) if atoms.pbc.all() else None,
        )

    return evaluate


def _graph(atoms: Atoms, settings: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """MatterSim's own graph, with positions and cell that are not rounded to float32."""
    from mattersim.datasets.utils.convertor import GraphConvertor
    from mattersim.forcefield.potential import batch_to_dict
    from torch_geometric.data import Batch

    closed = Atoms(atoms.numbers, atoms.positions, cell=closed_cell(atoms, settings["cutoff"]), pbc=True)
    convertor = GraphConvertor("m3gnet", settings["cutoff"], True, settings["threebody_cutoff"])
    graph: dict[str, Any] = batch_to_dict(Batch.from_data_list([convertor.convert(closed)]), device="cpu")
    graph["atom_pos"] = torch.tensor(closed.positions, dtype=dtype)  # which it has wrapped into the cell
    graph["cell"] = torch.tensor(closed.cell.array, dtype=dtype).unsqueeze(0)
    return graph


@contextlib.contextmanager
def _float_is(dtype: torch.dtype) -> Iterator[None]:
    """`Tensor.float`, with which MatterSim makes float32 of cell shifts and elements, makes `dtype`."""
    Tensor.float = lambda self: self.to(dtype)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del Tensor.float
