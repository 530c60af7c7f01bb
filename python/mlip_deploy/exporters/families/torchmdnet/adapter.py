"""Adapter for TorchMD-Net (R. P. Pelaez et al. 2024): package `torchmd-net`, checkpoints of its TensorNet.

The layers are those of exporters/layers/tensornet.py, TorchMD-Net's own in framework.py. A checkpoint does not say the
unit of its energies, and its charge is a number in every layer: an export fixes both.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from ase.units import Hartree, kcal, mol
from torch import Tensor, nn

from mlip_deploy.artifact.contract import EnergyFrame, Input, ModelIdentity
from mlip_deploy.artifact.fixtures import Original
from mlip_deploy.artifact.reader import file_sha256
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.checkpoints import load_checkpoint
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions, keep_elements
from mlip_deploy.exporters.families.torchmdnet.framework import load_model, original
from mlip_deploy.exporters.families.torchmdnet.model import TensorNetEnergy
from mlip_deploy.exporters.interface import Adapted

CITATION = (
    "Pelaez, R. P.; Simeon, G.; Galvelis, R.; Mirarchi, A.; Eastman, P.; Doerr, S.; Thölke, P.; Markland, T. E.; De "
    "Fabritiis, G. TorchMD-Net 2.0: fast neural network potentials for molecular simulations. J. Chem. Theory Comput. "
    "2024, 20, 4076. doi:10.1021/acs.jctc.4c00253; Simeon, G.; De Fabritiis, G. TensorNet. NeurIPS 2023. "
    "arXiv:2306.06482"
)
UNITS = {"eV": 1.0, "Hartree": Hartree, "kcal/mol": kcal / mol}
"""in eV"""
OTHER_ARCHITECTURES = {
    "tensornet2": "its charges and its Coulomb energy are not known here",
    "equivariant-transformer": "its attention is not known here",
    "transformer": "its attention is not known here",
    "graph-network": "its layers are not known here",
}
HEAVIEST = len(chemical_symbols) - 1


def adapt(source: str, options: ExportOptions) -> Adapted:
    """A stored TensorNet of TorchMD-Net as an Adapted model.

    Args:
        source: a checkpoint file.
        options: `fuse` False takes torch's operators alone; `radial`, `elements`, `trust_checkpoint`; `fix` with
            energy_unit, which a checkpoint does not say, and charge, 0 by default.

    Raises:
        MLIPError: for a file that is no checkpoint of TorchMD-Net's TensorNet, settings that are not known, or elements
            that the model lacks.
    """
    path = Path(source)
    if not path.is_file():
        raise MLIPError(f"'{source}': no such checkpoint file of TorchMD-Net (*.ckpt)")
    settings = _settings(path, options.trust_checkpoint)
    unit = _fixed("energy_unit", options.fix.get("energy_unit"), UNITS, source)
    charge = _charge(options.fix.get("charge", 0), settings["equivariance_invariance_group"])
    try:
        model = load_model(path)
    except ImportError as error:
        raise MLIPError(f"torchmdnet cannot be imported ({error}). Type: {FAMILIES['torchmdnet'].install}") from error
    references = UNITS[unit] * _references(model, source)
    known, numbered = _elements(model), {symbol: z for z, symbol in enumerate(chemical_symbols)}
    elements = keep_elements(known, options.elements, path.stem)
    numbers = [numbered[symbol] for symbol in elements]

    def energy_model(dtype: torch.dtype) -> nn.Module:
        tabulated = options.tabulate(dtype == torch.float32)
        in_float64 = copy.deepcopy(model.representation_model).double() if tabulated else None
        of_type = copy.deepcopy(model).to(dtype)
        return TensorNetEnergy(of_type, in_float64, numbers, charge, UNITS[unit], references[numbers], options.fuse)

    def build() -> Any:
        return copy.deepcopy(model)

    return Adapted(
        identity=ModelIdentity(
            family="torchmdnet",
            name=path.stem,
            source_sha256=file_sha256(path),
            license="unknown",
            citation=CITATION,
        ),
        elements=elements,
        cutoff=float(settings["cutoff_upper"]),
        message_passing_layers=int(settings["num_layers"]) + 1,  # the embedding looks at neighbours, too
        parallel="exchange",
        energy_frame=EnergyFrame.unknown(),
        inputs=[
            Input(name="charge", choices=[str(charge)], value=str(charge)),
            Input(name="energy_unit", choices=list(UNITS), value=unit),
        ],
        # A product of two tensors from one side alone mixes vectors and pseudovectors.
        inversion_symmetric=settings["equivariance_invariance_group"] == "O(3)",
        energy_model=energy_model,
        original=Original(
            package=f"torchmd-net {FAMILIES['torchmdnet'].version()}",
            float64=original(build, charge, UNITS[unit], references, torch.float64),
            float32=original(build, charge, UNITS[unit], references, torch.float32),
        ),
    )


def _settings(path: Path, trust: bool) -> Mapping[str, Any]:
    """The hyperparameters of a checkpoint, all of whose layers are known here.

    Raises:
        MLIPError: names the first thing that is not.
    """
    content = load_checkpoint(path, trust)
    settings = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not isinstance(settings, Mapping) or "state_dict" not in content:
        raise MLIPError(f"'{path}' is no checkpoint of TorchMD-Net: expected hyper_parameters and state_dict")
    kind = settings.get("model")
    if kind != "tensornet":
        reason = OTHER_ARCHITECTURES.get(str(kind), "its layers are not known here")
        raise MLIPError(f"'{path}' is a {kind}: {reason}. tensornet is TorchMD-Net's architecture that can be exported")
    for name, value in (("output_model", "Scalar"), ("reduce_op", "add"), ("cutoff_lower", 0), ("box_vecs", None)):
        found = settings.get(name, value)
        if found != value and not (name == "reduce_op" and found == "sum"):
            raise MLIPError(f"'{path}' has {name}={found!r}; only {value!r} can be exported")
    return settings


def _charge(given: float | int | str, group: str) -> int:
    try:
        charge = int(given)
    except ValueError:
        raise MLIPError(f"--fix charge={given}: expected an integer, in e") from None
    if charge and group != "O(3)":
        raise MLIPError(f"--fix charge={charge}: a TensorNet of the group {group} takes no charge. Leave it out")
    return charge


def _fixed(name: str, given: float | int | str | None, choices: Mapping[str, float], source: str) -> str:
    if given not in choices:
        found = "does not say it" if given is None else f"--fix {name}={given} is not one of them"
        raise MLIPError(f"'{source}': energies are in {', '.join(choices)}, and {found}. Add: --fix {name}=eV")
    return str(given)


def _references(model: Any, source: str) -> Tensor:
    """Energies of the elements by atomic number, float64 in the model's unit, which the model then no longer adds.

    Raises:
        MLIPError: for another prior, and for a mean, which is added once to a system of any size.
    """
    references = torch.zeros(HEAVIEST + 1, dtype=torch.float64)
    for prior in model.prior_model or ():
        if type(prior).__name__ not in ("Atomref", "LearnableAtomref"):
            raise MLIPError(f"'{source}' has the prior {type(prior).__name__}; only Atomref can be exported")
        if prior.enable:
            values = prior.atomref.weight.detach().double()[: HEAVIEST + 1, 0]
            references[: len(values)] += values
    model.prior_model = None
    if float(model.mean) != 0.0:
        raise MLIPError(
            f"'{source}' has a mean of {float(model.mean):g}, which TorchMD-Net adds once to a system of any size: no "
            "atom has a share of it"
        )
    return references


def _elements(model: Any) -> list[str]:
    """Those that the embedding has rows for; a checkpoint does not say which were trained."""
    return chemical_symbols[1 : min(int(model.representation_model.tensor_embedding.max_z), HEAVIEST + 1)]
