"""Adapter for Orb v3 (B. Rhodes et al. 2025): package `orb-models`, its conservative models, OrbMol, and checkpoints.

The layers are in model.py, orb-models' own in framework.py. A checkpoint does not say how many neighbours an atom sends
to; a published name does.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.neighborlist import neighbor_list
from torch import Tensor

from mlip_deploy.artifact.contract import EnergyFrame, Input, ModelIdentity, Setting
from mlip_deploy.artifact.fixtures import Original
from mlip_deploy.artifact.reader import file_sha256
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.checkpoints import load_checkpoint
from mlip_deploy.exporters.families.orb.framework import CUTOFF, build_model, original, system_config
from mlip_deploy.exporters.families.orb.model import LARGEST_CHARGE, LARGEST_SPIN, TIE, OrbEnergy
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions, keep_elements
from mlip_deploy.exporters.families.sources import downloading, unknown_source
from mlip_deploy.exporters.interface import TORCH_DTYPE, Adapted
from mlip_deploy.exporters.settings import default_dtype, quiet

LICENSE = "Apache-2.0"
CITATION = (
    "Rhodes, B.; Vandenhaute, S.; Šimkus, V.; Gin, J.; Godwin, J.; Duignan, T.; Neumann, M. Orb-v3: atomistic "
    "simulation at scale. arXiv:2504.06231 (2025)"
)
RELEASE = "0.5.5"
"""of orb-models whose layers are known here"""
ADDRESS = "https://orbitalmaterials-public-models.s3.us-west-1.amazonaws.com/forcefields"
CACHE = Path(pooch.os_cache("mlip-deploy")) / "orb"
HEAVIEST = 94
"""Plutonium is the heaviest element of the data of all models."""
# The embedding has rows for these, too; the 89 others are those of the Materials Project and of OMat24.
UNTRAINED = ("Po", "At", "Rn", "Fr", "Ra")
REPULSION = ("mean", "sum")
CHARGE = Setting(name="charge", kind="integer", unit="e", range=(-LARGEST_CHARGE, LARGEST_CHARGE))
SPIN = Setting(name="spin", kind="integer", range=(0, LARGEST_SPIN))


@dataclass(frozen=True)
class Published:
    """A published model."""

    path: str
    """below ADDRESS"""
    most_neighbours: int
    energy_frame: EnergyFrame
    heaviest: int = HEAVIEST
    """atomic number"""


def _frame(functional: str, hubbard_u: str = "none", dispersion: str = "none") -> EnergyFrame:
    return EnergyFrame(functional=functional, hubbard_u=hubbard_u, corrections="none", dispersion=dispersion)


_OMAT = _frame("PBE (OMat24)", "OMat24 values")
_MPA = _frame("PBE (MPtrj, Alexandria)", "MP2020 values")
PUBLISHED = {
    **{
        f"orb-v3-conservative-{limit}-{data}": Published(
            f"orb-v3/orb-v3-conservative-{limit}-{data}-20250404.ckpt", most_neighbours, frame
        )
        for data, frame in (("omat", _OMAT), ("mpa", _MPA))
        for limit, most_neighbours in (("inf", 120), ("20", 20))
    },
    "orb-v3-conservative-omol": Published(
        "orb-v3-conservative-omol-20250820.ckpt", 120, _frame("ωB97M-V (OMol25)", dispersion="VV10"), 83
    ),
}
DIRECT = (
    "its forces are an output of their own and no derivative of its energy, so that no dynamics keeps its energy. "
    "Export a conservative model, such as orb-v3-conservative-inf-omat"
)


def adapt(source: str, options: ExportOptions) -> Adapted:
    """A published or stored conservative Orb v3 as an Adapted model.

    Args:
        source: a name of PUBLISHED, or a file that holds the weights of a model.
        options: `elements`; `fix` with max_num_neighbors, which a file needs, and pair_repulsion; there are no fused
            operators.

    Raises:
        MLIPError: for an unknown source, a direct model, a file that is no checkpoint of Orb v3, elements that the
            model lacks, or another release of orb-models.
    """
    version = _version()
    path, name, published = _locate(source)
    state = _read(path, options.trust_checkpoint)
    model = build_model(state, path)
    inputs = [_most_neighbours(source, published, options.fix), _repulsion(options.fix)]
    most_neighbours, mean_of_repulsion = int(inputs[0].value), inputs[1].value == "mean"
    model.pair_repulsion_fn.node_aggregation = inputs[1].value
    heaviest = HEAVIEST if published is None else published.heaviest
    known = [symbol for symbol in chemical_symbols[1 : heaviest + 1] if published is None or symbol not in UNTRAINED]
    elements = keep_elements(known, options.elements, name)
    numbers = [atomic_numbers[symbol] for symbol in elements]

    def build() -> Any:
        return copy.deepcopy(model)

    return Adapted(
        identity=ModelIdentity(
            family="orb",
            name=name,
            source_sha256=file_sha256(path),
            license="unknown" if published is None else LICENSE,
            citation=CITATION,
        ),
        elements=elements,
        cutoff=CUTOFF,
        # Which edges an atom has depends on its other neighbours, which is one more.
        message_passing_layers=len(model.model.gnn_stacks) + 1,
        parallel="exchange",
        energy_frame=EnergyFrame.unknown() if published is None else published.energy_frame,
        inputs=inputs,
        settings=(CHARGE, SPIN) if model.model.conditioner is not None else (),
        atomic_energies_meaningful=False,
        inversion_symmetric=False,
        rotation_symmetric=False,  # a network of components of vectors, which has learned to turn with them
        energy_model=lambda dtype: OrbEnergy(build().to(dtype), numbers, most_neighbours, mean_of_repulsion),
        original=Original(
            package=f"orb-models {version}",
            float64=original(build, most_neighbours, torch.float64),
            float32=original(build, most_neighbours, torch.float32),
            calculator=lambda dtype, device, accelerator: _calculator(build(), most_neighbours, dtype, device),
            accepts=lambda atoms: _is_definite(atoms, most_neighbours),
        ),
    )


def _version() -> str:
    found = metadata.version("orb-models")
    if found != RELEASE:
        raise MLIPError(
            f"orb-models {found} is installed, expected {RELEASE}, whose layers are known here. Type: "
            f"{FAMILIES['orb'].install}"
        )
    return found


def _locate(source: str) -> tuple[Path, str, Published | None]:
    """(file, name, what is known of it) of a source; downloads a named model."""
    path = Path(source)
    if path.is_file():
        return path, path.stem, None
    if "direct" in source or source.startswith(("orb-v2", "orb-d3", "orb-mptraj-only", "orb-v1")):
        raise MLIPError(f"'{source}' is a direct model: {DIRECT}")
    published = PUBLISHED.get(source)
    if published is None:
        raise unknown_source(source, "an Orb model", PUBLISHED)
    path = CACHE / Path(published.path).name
    if not path.is_file():
        address = f"{ADDRESS}/{published.path}"
        with downloading(source, address), quiet():
            pooch.retrieve(address, None, fname=path.name, path=path.parent)
    return path, source, published


def _read(path: Path, trust: bool) -> Mapping[str, Tensor]:
    """Weights by their names.

    Raises:
        MLIPError: for a file of something else than a conservative Orb v3, with the reason.
    """
    state = load_checkpoint(path, trust)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise MLIPError(f"'{path}' is no checkpoint of Orb: expected weights by their names (model.state_dict())")
    heads = {key.split(".")[1] for key in state if key.startswith("heads.")}
    if "forces" in heads or any(key.startswith("node_head.") for key in state):
        raise MLIPError(f"'{path}' is a direct model: {DIRECT}")
    if "latent_charges" in heads:
        raise MLIPError(
            f"'{path}' is an OrbMol-v2, whose charges interact at long range (an Ewald sum), which is not known here. "
            "Export orb-v3-conservative-omol"
        )
    needed = (
        "model.atom_emb.embeddings.weight",
        "model._encoder._edge_fn.mlp.NN-0.weight",
        "heads.energy.mlp.NN-0.weight",
    )
    absent = [key for key in needed if key not in state]
    if absent:
        raise MLIPError(f"'{path}' is no checkpoint of an Orb v3 with an energy: it has no {', '.join(absent)}")
    return state


def _most_neighbours(source: str, published: Published | None, fix: Mapping[str, float | int | str]) -> Input:
    """The input max_num_neighbors, by its name in orb-models."""
    given = fix.get("max_num_neighbors", None if published is None else published.most_neighbours)
    if given is None:
        raise MLIPError(
            f"'{source}' does not say to how many neighbours an atom sends. Add: --fix max_num_neighbors=120 for a "
            "model of the kind -inf, or --fix max_num_neighbors=20 for one of the kind -20"
        )
    if not str(given).isdigit() or int(given) < 1:
        raise MLIPError(f"--fix max_num_neighbors={given}: expected a whole number, 1 at the least")
    return Input(name="max_num_neighbors", choices=[str(given)], value=str(given))


def _repulsion(fix: Mapping[str, float | int | str]) -> Input:
    """The input pair_repulsion: whether the mean or the sum of the atoms' repulsion is part of the energy."""
    given = str(fix.get("pair_repulsion", REPULSION[0]))
    if given not in REPULSION:
        raise MLIPError(f"--fix pair_repulsion={given}: expected one of {', '.join(REPULSION)}")
    return Input(name="pair_repulsion", choices=list(REPULSION), value=given)


def _is_definite(atoms: Atoms, most_neighbours: int) -> bool:
    """Whether no atom's last neighbour that counts is as far as the next one, of which orb-models takes either."""
    centres, distances = neighbor_list("id", atoms, CUTOFF)
    for atom in np.flatnonzero(np.bincount(centres, minlength=len(atoms)) > most_neighbours):
        last, next_ = np.sort(distances[centres == atom])[most_neighbours - 1 : most_neighbours + 1]
        if next_ - last <= TIE[torch.float32]:
            return False
    return True


def _calculator(model: Any, most_neighbours: int, dtype: str, device: str) -> Any:
    """orb-models' own, compiled as `pretrained.load_model` leaves it; its graphs are in torch's default type."""
    from orb_models.forcefield.calculator import ORBCalculator

    model = model.to(TORCH_DTYPE[dtype])
    model.compile(mode="default", dynamic=True)
    calculator = ORBCalculator(model, system_config=system_config(most_neighbours), device=device)
    calculate = calculator.calculate

    def in_its_type(*arguments: Any, **keywords: Any) -> None:
        with default_dtype(TORCH_DTYPE[dtype]):
            calculate(*arguments, **keywords)

    calculator.calculate = in_its_type
    return calculator
