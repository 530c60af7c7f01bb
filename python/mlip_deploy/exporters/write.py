"""Write an artifact: the model for its back end, the contract and the fixtures, in one step."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from mlip_deploy.artifact.contract import (
    BackendKind,
    Contract,
    Dtype,
)
from mlip_deploy.artifact.fixtures import Fixtures, Structure, build_fixtures
from mlip_deploy.artifact.format import versions_of
from mlip_deploy.artifact.tolerances import with_self_test
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.interface import TORCH_DTYPE, Adapted, EdgeGradientModelWithFeatures, ServedModel
from mlip_deploy.exporters.parts import graph
from mlip_deploy.exporters.settings import default_dtype, quiet
from mlip_deploy.exporters.targets import aotinductor, torchscript
from mlip_deploy.operators import load_operators
from mlip_deploy.progress import Progress

COLLECTIVES = ("sum_over_atoms",)
"""Operators over all ranks, beside the exchange of ghosts."""


def write_artifact(
    adapted: Adapted,
    output: Path,
    dtype: Dtype,
    progress: Progress,
    backend: BackendKind = "torchscript",
    device: str = "cpu",
) -> Contract:
    """As `write_model`, with fixtures that the original computes now."""
    load_operators()
    with quiet():
        fixtures = build_fixtures(
            adapted.original,
            adapted.elements,
            progress,
            adapted.settings,
            adapted.positions,
            adapted.rotation_symmetric,
            adapted.composition,
        )
    return write_model(adapted, fixtures, output, dtype, progress, backend, device)


def write_model(
    served: ServedModel,
    fixtures: Fixtures,
    output: Path,
    dtype: Dtype,
    progress: Progress,
    backend: BackendKind = "torchscript",
    device: str = "cpu",
) -> Contract:
    """Script or compile `served`, and save it with its contract and fixtures.

    The file appears under its name only when it is complete.

    Raises:
        MLIPError: what the back end cannot do with this model.
    """
    load_operators()
    contract = served.contract(dtype)
    if backend == "aotinductor":
        contract = aotinductor.contract_of(contract, device)
    fixtures = with_self_test(fixtures, dtype)
    with default_dtype(TORCH_DTYPE[dtype]), quiet():
        model = served.interface(TORCH_DTYPE[dtype], with_features=backend == "torchscript").eval()
        if isinstance(model, EdgeGradientModelWithFeatures):
            width = _width_of_features(model.energy_model, contract, fixtures.structures[0])
            contract = contract.model_copy(update={"features": width})
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        if backend == "aotinductor":
            model = model.to(device)
            files, operators = aotinductor.compile_model(model, contract, progress)
            contract = _with_operators(contract, operators)
            aotinductor.save(files, output, contract, fixtures, model)
            return contract
        progress(f"scripting the model in {dtype}")
        methods = ["energies", "extras"] if served.extras else ["energies"]
        frozen = torch.jit.freeze(served.scripted(model), preserved_attrs=methods)
    contract = _with_operators(contract, torchscript.operators_of(frozen))
    progress(f"writing {output}")
    torchscript.save(frozen, output, contract, fixtures)
    return contract


def _width_of_features(energy_model: nn.Module, contract: Contract, structure: Structure) -> int:
    """Of a structure that the model accepts."""
    dtype = TORCH_DTYPE[contract.dtype]
    types, edges, vectors = graph(structure.atoms(), contract.elements, contract.cutoff, dtype)
    settings = [setting.number(structure.settings[setting.name]) for setting in contract.settings]
    others = [torch.tensor(settings, dtype=dtype)] if settings else []
    features: Tensor = energy_model.energies_and_features(  # type: ignore[operator]
        types, len(types), edges, vectors, *others
    )[1]
    return features.shape[1]


def _with_operators(contract: Contract, operators: set[str]) -> Contract:
    if contract.parallel == "exchange" and "mlip::ghost_gather" not in operators:
        raise MLIPError(
            f"{contract.model.name}: parallel='exchange', but the model does not call torch.ops.mlip.ghost_gather. "
            "Call it before every message-passing layer, or use parallel='halo'"
        )
    collectives = [name for name in COLLECTIVES if f"mlip::{name}" in operators]
    return contract.model_copy(
        update={
            "operators": versions_of(operators),
            "collectives": collectives,
            "requires": [*contract.requires, *collectives],
        }
    )
