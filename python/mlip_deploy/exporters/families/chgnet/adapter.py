"""Adapter for CHGNet (B. Deng et al., Nat. Mach. Intell. 2023): package `chgnet`, its weights and fine-tuned files.

The layers of the model are in plain.py. CHGNet's bonds carry features that both of their ends update, so an
engine cannot exchange features atom by atom: the mode is `halo`.
"""

import contextlib
import copy
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from mlip_deploy.artifact.contract import EnergyFrame, ModelIdentity, Output
from mlip_deploy.artifact.fixtures import Original
from mlip_deploy.artifact.reader import file_sha256
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.cells import closed_cell
from mlip_deploy.exporters.checkpoints import load_checkpoint
from mlip_deploy.exporters.families.chgnet.plain import CHGNetEnergy
from mlip_deploy.exporters.families.registry import ExportOptions, keep_elements
from mlip_deploy.exporters.interface import Adapted
from mlip_deploy.exporters.settings import quiet
from mlip_deploy.result import Result, tensor_to_voigt

CITATION = (
    "Deng, B.; Zhong, P.; Jun, K.; Riebesell, J.; Han, K.; Bartel, C. J.; Ceder, G. CHGNet as a pretrained universal "
    "neural network potential for charge-informed atomistic modelling. Nat. Mach. Intell. 2023, 5, 1031. "
    "doi:10.1038/s42256-023-00716-3"
)
FRAMES = {
    "0.3.0": EnergyFrame(functional="PBE (MPtrj)", hubbard_u="MP2020 values", corrections="MP2020", dispersion="none"),
    "0.2.0": EnergyFrame(functional="PBE (MPtrj)", hubbard_u="MP2020 values", corrections="MP2020", dispersion="none"),
    "r2scan": EnergyFrame(functional="r2SCAN (MP-r2SCAN)", hubbard_u="none", corrections="unknown", dispersion="none"),
}
# The embedding has rows for these, too, but the training data have no atom of them.
UNTRAINED = ("Po", "At", "Rn", "Fr", "Ra")
GPA = 160.21766208  # CHGNet's own conversion from eV/Å³ to GPa


def adapt(source: str, options: ExportOptions) -> Adapted:
    """A packaged or stored CHGNet as an Adapted model.

    Args:
        source: "0.3.0", "r2scan" or "0.2.0", with "chgnet-" before it or not, or a file that CHGNet's trainer wrote.
        options: `elements`, `trust_checkpoint`; there are no fused operators.

    Raises:
        MLIPError: for an unknown source, elements that the model lacks, an architecture other than that of
            the published models.
    """
    path, version = _find(source)
    packaged = version is not None
    model = _load(path, options.trust_checkpoint or packaged)
    name = f"chgnet-{version}" if packaged else path.name.split(".")[0]
    known = [chemical_symbols[z] for z in range(1, model.atom_embedding.embedding.num_embeddings + 1)]
    known = [symbol for symbol in known if not (packaged and symbol in UNTRAINED)]
    elements = keep_elements(known, options.elements, name)
    numbers = [atomic_numbers[symbol] for symbol in elements]
    import chgnet

    return Adapted(
        identity=ModelIdentity(
            family="chgnet",
            name=name,
            source_sha256=file_sha256(path),
            license="BSD-3-Clause" if packaged else "unknown",
            citation=CITATION,
        ),
        elements=elements,
        cutoff=float(model.graph_converter.atom_graph_cutoff),
        message_passing_layers=int(model.n_conv),
        parallel="halo",
        energy_frame=EnergyFrame.unknown() if version is None else FRAMES[version],
        inputs=[],
        inversion_symmetric=True,  # its features are functions of distances and angles
        energy_model=lambda dtype: CHGNetEnergy(copy.deepcopy(model).to(dtype), numbers),
        original=Original(
            package=f"chgnet {chgnet.__version__}",
            float64=_original(model, torch.float64),
            float32=_original(model, torch.float32),
            calculator=lambda dtype, device, accelerator: _calculator(model, dtype, device),
        ),
        extras=(Output(name="magmoms", unit="mu_B", scope="atom"),),
    )


def _find(source: str) -> tuple[Path, str | None]:
    """The checkpoint's path, and its version if it is part of the package."""
    if Path(source).is_file():
        return Path(source), None
    import chgnet

    folder = Path(chgnet.__file__).parent / "pretrained"
    version = source.removeprefix("chgnet-")
    if version in FRAMES and (folder / version).is_dir():
        (path,) = (folder / version).glob("*.pth.tar")
        return path, version
    if "/" in source or source.endswith((".tar", ".pth", ".pt")):
        raise MLIPError(f"'{source}': no such checkpoint file")
    raise MLIPError(f"'{source}' is neither a file nor a CHGNet model. Known models: {', '.join(FRAMES)}")


def _load(path: Path, trust: bool) -> Any:
    """CHGNet's own model in float32."""
    state = load_checkpoint(path, trust)
    from chgnet.model.model import CHGNet

    try:
        content = state["model"]  # type: ignore[index]
        # Layers of version 0.2.0 have a bias that later ones lack; its stored arguments do not say so.
        bias = any(key.endswith("mlp_out.layers.1.bias") for key in content["state_dict"])
        with _silent():
            model = CHGNet.from_dict(content, mlp_out_bias=bias)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise MLIPError(f"'{path}' could not be read as a CHGNet checkpoint ({reason})") from error
    model.graph_converter.set_isolated_atom_response("ignore")
    return model.eval()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """CHGNet prints the number of its parameters."""
    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        yield


def _calculator(model: Any, dtype: str, device: str) -> Any:
    """CHGNet's own, which computes in float32."""
    from chgnet.model.dynamics import CHGNetCalculator

    if dtype != "float32":
        raise MLIPError(f"CHGNet's calculator computes in float32, the artifact in {dtype}. Export it in float32")
    with _silent():
        return CHGNetCalculator(copy.deepcopy(model), use_device=device)


def _original(model: Any, dtype: torch.dtype) -> Callable[[Atoms], Result]:
    """CHGNet's own graph, layers and derivatives, in `dtype`.

    CHGNet writes the floating-point type of its graphs into two of its modules; it is changed there while the graph
    is made. Its composition model makes float32 whatever it is given, and stays in float32: it is a table.
    """
    own: Any = None

    def evaluate(atoms: Atoms) -> Result:
        nonlocal own
        if own is None:
            own = copy.deepcopy(model).to(dtype)
            own.composition_model.float()
        with _silent(), _graphs_in(dtype):
            graph = own.graph_converter(_periodic_structure(atoms, own.graph_converter.atom_graph_cutoff))
            no_edges = len(graph.atom_graph) == 0
            task = "e" if no_edges else "efs" if atoms.pbc.all() else "ef"
            found = own([graph], task=task, return_site_energies=True)
        energies = found["site_energies"][0].detach().numpy().astype(float)
        stress = None
        if "s" in found:
            tensor = found["s"][0].detach().numpy().astype(float) / GPA
            stress = tensor_to_voigt(tensor)
        return Result(
            energy=float(energies.sum()),
            atomic_energies=energies,
            forces=np.zeros((len(atoms), 3)) if no_edges else found["f"][0].detach().numpy().astype(float),
            stress=stress,
        )

    return evaluate


@contextlib.contextmanager
def _graphs_in(dtype: torch.dtype) -> Iterator[None]:
    import chgnet.graph.converter
    import chgnet.model.model

    modules: list[Any] = [chgnet.graph.converter, chgnet.model.model]
    before = [module.TORCH_DTYPE for module in modules]
    try:
        for module in modules:
            module.TORCH_DTYPE = dtype
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.TORCH_DTYPE = value


def _periodic_structure(atoms: Atoms, cutoff: float) -> Any:
    """A pymatgen structure, which is always periodic: open directions get more than a cutoff of vacuum."""
    from pymatgen.core.lattice import Lattice
    from pymatgen.core.structure import Structure

    return Structure(
        Lattice(closed_cell(atoms, cutoff)), atoms.get_chemical_symbols(), atoms.positions, coords_are_cartesian=True
    )
