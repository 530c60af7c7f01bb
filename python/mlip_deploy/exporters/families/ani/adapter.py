"""Adapter for ANI (ANI-2x, ANI-1x, ANI-1ccx): package `torchani`, its stored models and the files of NeuroChem.

The layers are in model.py. TorchANI computes in hartree; energies here are in eV.
"""

import copy
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.units import Hartree
from torch import Tensor

from mlip_deploy.artifact.contract import EnergyFrame, Input, ModelIdentity, Output
from mlip_deploy.artifact.fixtures import Original
from mlip_deploy.artifact.reader import file_sha256
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.cells import closed_cell
from mlip_deploy.exporters.checkpoints import load_checkpoint
from mlip_deploy.exporters.families.ani.model import ANIEnergy
from mlip_deploy.exporters.families.ani.neurochem import build_model, find_files
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions, keep_elements
from mlip_deploy.exporters.families.sources import unknown_source
from mlip_deploy.exporters.interface import Adapted
from mlip_deploy.exporters.settings import default_dtype, quiet
from mlip_deploy.result import VOIGT, Result


@dataclass(frozen=True)
class Published:
    """A published ensemble of eight members, as TorchANI names it."""

    factory: str
    """function of torchani.models, which downloads it"""
    file: str
    """where that keeps it, in torchani.paths.state_dicts_dir()"""
    functional: str
    citation: str


PUBLISHED = {
    "2x": Published(
        "ANI2x",
        "ani2x_state_dict.pt",
        "ωB97X/6-31G(d) (ANI-2x)",
        "Devereux, C.; et al. Extending the applicability of the ANI deep learning molecular potential to sulfur and "
        "halogens. J. Chem. Theory Comput. 2020, 16, 4192. doi:10.1021/acs.jctc.0c00121",
    ),
    "1x": Published(
        "ANI1x",
        "ani1x_state_dict.pt",
        "ωB97X/6-31G(d) (ANI-1x)",
        "Smith, J. S.; et al. Less is more: sampling chemical space with active learning. J. Chem. Phys. 2018, 148, "
        "241733. doi:10.1063/1.5023802",
    ),
    "1ccx": Published(
        "ANI1ccx",
        "ani1ccx_state_dict.pt",
        "CCSD(T)*/CBS (ANI-1ccx)",
        "Smith, J. S.; et al. Approaching coupled cluster accuracy with a general-purpose neural network potential "
        "through transfer learning. Nat. Commun. 2019, 10, 2903. doi:10.1038/s41467-019-10827-4",
    ),
}
CITATION = (
    "Smith, J. S.; Isayev, O.; Roitberg, A. E. ANI-1: an extensible neural network potential with DFT accuracy at "
    "force field computational cost. Chem. Sci. 2017, 8, 3192. doi:10.1039/C6SC05720A"
)
ARCHITECTURES = {7: "ani2x", 4: "ani1x"}
"""TorchANI's name of the symmetry functions and networks, by the number of elements"""


def adapt(source: str, options: ExportOptions) -> Adapted:
    """A published or stored ANI model as an Adapted model.

    Args:
        source: a name of PUBLISHED, a state dictionary of TorchANI, or an info file of NeuroChem.
        options: `member`, `elements`; `fuse` False keeps to torch's operators.

    Raises:
        MLIPError: for an unknown source, a file that is no ANI model, a package that TorchANI lacks, elements or a
            member that the model lacks.
    """
    try:
        import torchani.arch  # noqa: F401
    except ImportError as error:
        raise MLIPError(f"torchani cannot be imported ({error}). Type: {FAMILIES['ani'].install}") from error
    with default_dtype(torch.float32):  # TorchANI makes its constants in torch's default type
        model, name, digest, published = _load(source, options)
    n_members = len(getattr(model.neural_networks, "members", [None]))
    inputs = []
    if options.member is not None:
        if not 0 <= options.member < n_members:
            raise MLIPError(f"--member {options.member}: {name} has {n_members} members, counted from 0")
        if n_members > 1:
            model = model[options.member]
        choices = [str(k) for k in range(n_members)]
        inputs, n_members = [Input(name="member", choices=choices, value=str(options.member))], 1
    known = list(model.symbols)
    elements = keep_elements(known, options.elements, name)
    species = [known.index(symbol) for symbol in elements]
    return Adapted(
        identity=ModelIdentity(
            family="ani",
            name=name,
            source_sha256=digest,
            license="unknown" if published is None else "MIT",
            citation=CITATION if published is None else published.citation,
        ),
        elements=elements,
        cutoff=float(model.cutoff),
        message_passing_layers=0,
        parallel="local",
        energy_frame=EnergyFrame.unknown()
        if published is None
        else EnergyFrame(functional=published.functional, hubbard_u="none", corrections="none", dispersion="none"),
        inputs=inputs,
        inversion_symmetric=True,  # its features are functions of distances and angles
        energy_model=lambda dtype: ANIEnergy(model, species, dtype, options.fuse),
        original=Original(
            package=f"torchani {FAMILIES['ani'].version()}",
            float64=_original(model, torch.float64),
            float32=_original(model, torch.float32),
            calculator=lambda dtype, device, accelerator: _calculator(model, dtype, device),
        ),
        extras=(Output(name="energy_std", unit="eV", scope="atom"),) if n_members > 1 else (),
    )


def _load(source: str, options: ExportOptions) -> tuple[Any, str, str, Published | None]:
    """(TorchANI's model, name, SHA-256, what is known of it) of a source; downloads a named model."""
    path = Path(source)
    if path.suffix == ".info" and path.is_file():
        files = find_files(path)
        digest = hashlib.sha256()
        for file in files.all():
            digest.update(f"{file.relative_to(path.parent)} {file_sha256(file)}\n".encode())
        return _without_gradients(build_model(files)), path.stem, digest.hexdigest(), None
    if path.is_file():
        return _stored(path, options.trust_checkpoint), path.stem, file_sha256(path), None
    name = source.removeprefix("ani-")
    if name not in PUBLISHED:
        raise unknown_source(source, "an ANI model", PUBLISHED)
    path = _download(name)
    return _stored(path, False), f"ani-{name}", file_sha256(path), PUBLISHED[name]


def _download(name: str) -> Path:
    """TorchANI's file of a published model."""
    from torchani import models
    from torchani.paths import state_dicts_dir

    published = PUBLISHED[name]
    path = Path(state_dicts_dir()) / published.file
    if not path.is_file():
        try:
            with quiet():
                getattr(models, published.factory)()
        except Exception as error:
            raise MLIPError(
                f"'{name}' could not be downloaded ({type(error).__name__}: {error}). On a machine with a connection "
                f'type: python -c "import torchani; torchani.models.{published.factory}()", and copy '
                f"{published.file} from ~/.local/share/Torchani/StateDicts to {path.parent}"
            ) from error
    return path


def _stored(path: Path, trust: bool) -> Any:
    """The model of a state dictionary, of an ensemble or of one member, with the names of any TorchANI."""
    state = load_checkpoint(path, trust)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise MLIPError(f"'{path}' is no state dictionary of TorchANI. Write one: torch.save(model.state_dict(), FILE)")
    energies = state.get("energy_shifter.self_energies")
    if energies is None or energies.numel() not in ARCHITECTURES:
        raise MLIPError(f"'{path}' is no state dictionary of ANI-2x, ANI-1x or ANI-1ccx")
    members = {m.group(1) for key in state if (m := re.search(r"neural_networks\.(?:members\.)?(\d+)\.", key))}
    model = _empty_model(ARCHITECTURES[energies.numel()], max(1, len(members)))
    constants = {name: value.clone() for name, value in model.aev_computer.named_buffers()}
    try:
        model.load_state_dict(dict(state))
    except (RuntimeError, ValueError, IndexError) as error:
        raise MLIPError(f"'{path}' is no state dictionary of ANI-2x, ANI-1x or ANI-1ccx ({error})") from error
    # The cutoffs are not in the file.
    for name, value in model.aev_computer.named_buffers():
        if not torch.allclose(value, constants[name], rtol=1e-6, atol=0.0):
            raise MLIPError(f"'{path}' has other symmetry functions ({name}) than ANI-2x, ANI-1x and ANI-1ccx")
    return _without_gradients(model)


def _empty_model(architecture: str, n_members: int) -> Any:
    """As torchani.models assembles it, without its weights."""
    from torchani.arch import Assembler
    from torchani.utils import SYMBOLS_1X, SYMBOLS_2X

    assembler = Assembler(periodic_table_index=True)
    assembler.set_symbols(SYMBOLS_2X if architecture == "ani2x" else SYMBOLS_1X)
    assembler.set_global_cutoff_fn("cosine")
    assembler.set_aev_computer(radial=architecture, angular=architecture, strategy="pyaev")
    assembler.set_atomic_networks(ctor=architecture)
    assembler.set_neighborlist("all_pairs")
    assembler.set_gsaes_as_self_energies("wb97x-631gd")  # which the file overwrites
    return assembler.assemble(n_members)


def _without_gradients(model: Any) -> Any:
    return model.eval().requires_grad_(False)


def _calculator(model: Any, dtype: str, device: str) -> Any:
    """TorchANI's own."""
    return copy.deepcopy(model).to(device=device, dtype=getattr(torch, dtype)).ase()


def _original(model: Any, dtype: torch.dtype) -> Callable[[Atoms], Result]:
    """TorchANI's own neighbours, layers and derivatives in `dtype`.

    The self energies, which are constants, are added in float64: the noise of the original in float32 is then that
    of its networks.
    """
    own: Any = None
    self_energies = model.energy_shifter.self_energies.double()

    def evaluate(atoms: Atoms) -> Result:
        nonlocal own
        if own is None:
            own = copy.deepcopy(model).to(dtype)
            own.set_enabled("energy_shifter", False)
        periodic = bool(atoms.pbc.any())
        species = torch.tensor(atoms.numbers).unsqueeze(0)
        strain = torch.eye(3, dtype=dtype).requires_grad_(True)
        positions = torch.tensor(atoms.positions, dtype=dtype).requires_grad_(True)
        # TorchANI wraps open directions by x, y and z, not by the cell's vectors: they are closed.
        cell = torch.tensor(closed_cell(atoms, own.cutoff), dtype=dtype) @ strain if periodic else None
        pbc = torch.tensor([True, True, True]) if periodic else None
        energies = own.atomic_energies((species, (positions @ strain).unsqueeze(0)), cell, pbc).energies[0]
        slope, virial = torch.autograd.grad(energies.sum(), [positions, strain])
        types = own.species_converter(species)[0]
        atomic_energies = (energies.detach().double() + self_energies[types]).numpy() * Hartree
        stress = None
        if atoms.pbc.all():
            tensor = 0.5 * (virial + virial.T).double().numpy() * Hartree / atoms.get_volume()
            stress = np.array([tensor[a, b] for a, b in VOIGT])
        return Result(
            energy=float(atomic_energies.sum()),
            atomic_energies=atomic_energies,
            forces=-slope.double().numpy() * Hartree,
            stress=stress,
        )

    return evaluate
