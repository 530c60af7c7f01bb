"""What every adapter shares: the model interface, and writing the artifact."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

import torch
from torch import Tensor, nn

import mlip_deploy
from mlip_deploy.artifact.contract import (
    BackendKind,
    Contract,
    Dtype,
    EnergyFrame,
    Input,
    ModelIdentity,
    Parallel,
    Producer,
)
from mlip_deploy.artifact.fixtures import Fixtures, Original, build_fixtures
from mlip_deploy.artifact.reader import CONTRACT_RECORD, FIXTURES_RECORD
from mlip_deploy.files import replacing
from mlip_deploy.operators import load_operators

Progress = Callable[[str], None]
TORCH_DTYPE = {"float32": torch.float32, "float64": torch.float64}


class EdgeGradientModel(nn.Module):
    """The model interface around an energy model.

    Args:
        energy_model: module with `forward(node_types, n_owned, edge_index, edge_vectors) -> atomic energies`.
    """

    def __init__(self, energy_model: nn.Module):
        super().__init__()
        self.energy_model = energy_model

    def forward(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            node_types: int64 [n_nodes], type index of every node, owned atoms first, then ghosts.
            n_owned: how many nodes are owned.
            edge_index: int64 [2, n_edges], owned centre i and neighbour j.
            edge_vectors: [n_edges, 3] r_j - r_i with the periodic shift, Å.

        Returns:
            atomic energies [n_owned] in eV, and dE/d(edge_vectors) [n_edges, 3] in eV/Å.
        """
        edge_vectors = edge_vectors.detach().requires_grad_(True)
        energies = self.energy_model(node_types, n_owned, edge_index, edge_vectors)
        # With no edges, or no owned atoms, the graph is still connected: every rank runs the same backward pass.
        gradient = torch.autograd.grad([energies.sum()], [edge_vectors], allow_unused=True)[0]
        if gradient is None:
            gradient = torch.zeros_like(edge_vectors)
        return energies.detach(), gradient

    @torch.jit.export
    def energies(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        """Atomic energies alone, with the arguments of `forward` and without its backward pass."""
        energies: Tensor = self.energy_model(node_types, n_owned, edge_index, edge_vectors.detach())
        return energies.detach()


class EdgeGradientModelWithExtras(EdgeGradientModel):
    """For an energy model with a method `extras(...) -> [n_owned, n_extras]`, with the arguments of `forward`."""

    @torch.jit.export
    def extras(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        """Further values of owned atoms [n_owned, n_extras], in the order of the contract's outputs."""
        values: Tensor = self.energy_model.extras(  # type: ignore[operator]
            node_types, n_owned, edge_index, edge_vectors.detach()
        )
        return values.detach()


@dataclass(frozen=True)
class Adapted:
    """A family's model behind the model interface, with what its contract must say."""

    identity: ModelIdentity
    elements: list[str]
    cutoff: float
    message_passing_layers: int
    parallel: Parallel
    operators: list[str]
    energy_frame: EnergyFrame
    inputs: list[Input]
    energy_model: Callable[[torch.dtype], nn.Module]
    """Builds the energy model in a floating-point type."""
    original: Original
    script: Callable[[nn.Module], torch.jit.ScriptModule] = torch.jit.script
    small_memory_model: Callable[[torch.dtype], nn.Module] | None = None
    """Builds the model interface from torch's operators alone, in little memory: what a TorchForce file holds."""
    extras: tuple[str, ...] = ()
    """Names of the columns of the energy model's method `extras`, which it then must have."""

    def scripted(self, module: nn.Module) -> torch.jit.ScriptModule:
        with torchs_own_functions():
            return self.script(module)

    def contract(self, dtype: Dtype) -> Contract:
        return Contract(
            producer=Producer(package="mlip-deploy", version=mlip_deploy.__version__, torch=str(torch.__version__)),
            model=self.identity,
            elements=self.elements,
            cutoff=self.cutoff,
            message_passing_layers=self.message_passing_layers,
            interaction_range=self.cutoff * max(1, self.message_passing_layers),
            dtype=dtype,
            parallel=self.parallel,
            inputs=self.inputs,
            outputs=["atomic_energies", "edge_gradients", *self.extras],
            energy_frame=self.energy_frame,
            operators=self.operators,
        )


def write_artifact(
    adapted: Adapted,
    output: Path,
    dtype: Dtype,
    progress: Progress,
    backend: BackendKind = "torchscript",
) -> Contract:
    """Script or compile `adapted`, and save it with its contract and fixtures.

    The file appears under its name only when it is complete.

    Raises:
        MLIPError: what the back end cannot do with this model.
    """
    if adapted.operators:
        load_operators()
    contract = adapted.contract(dtype)
    if backend == "aotinductor":
        from mlip_deploy.exporters.targets import aotinductor

        contract = aotinductor.contract_of(contract)
    with quiet():
        fixtures = build_fixtures(adapted.original, adapted.elements, progress)
    with default_dtype(TORCH_DTYPE[dtype]), quiet():
        wrapper = EdgeGradientModelWithExtras if adapted.extras else EdgeGradientModel
        model = wrapper(adapted.energy_model(TORCH_DTYPE[dtype])).eval()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        if backend == "aotinductor":
            files = aotinductor.compile_model(model, contract, progress)
            aotinductor.save(files, output, contract, fixtures, model)
            return contract
        progress(f"scripting the model in {dtype}")
        methods = ["energies", "extras"] if adapted.extras else ["energies"]
        frozen = torch.jit.freeze(adapted.scripted(model), preserved_attrs=methods)
    progress(f"writing {output}")
    save(frozen, output, contract, fixtures)
    return contract


def records(contract: Contract, fixtures: Fixtures) -> dict[str, str]:
    """What makes an archive an artifact."""
    return {CONTRACT_RECORD: contract.to_json(), FIXTURES_RECORD: fixtures.model_dump_json()}


def save(module: torch.jit.ScriptModule, output: Path, contract: Contract, fixtures: Fixtures) -> None:
    with replacing(output) as temporary, quiet():
        torch.jit.save(module, temporary, _extra_files=records(contract, fixtures))


@contextlib.contextmanager
def torchs_own_functions() -> Iterator[None]:
    """While TorchScript compiles: torch_geometric, which SevenNet imports, puts functions of its own in the places of
    `torch.index_select` and `torch.select`, and TorchScript knows torch's own alone."""
    replaced = {name: function for name, function in vars(torch).items() if _is_of_another_package(name, function)}
    for name in replaced:
        setattr(torch, name, getattr(torch._C._VariableFunctions, name))
    try:
        yield
    finally:
        for name, function in replaced.items():
            setattr(torch, name, function)


def _is_of_another_package(name: str, function: object) -> bool:
    return (
        isinstance(function, FunctionType)
        and hasattr(torch._C._VariableFunctions, name)
        and function.__module__.split(".")[0] != "torch"
    )


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Constants that a framework creates while it builds a model follow torch's default type."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(previous)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the frameworks' deprecation and accelerator warnings, which a user of the artifact cannot act on.

    torch 2.13 hides the deprecation of torch.jit from users by its category, torch 2.15 shows it at every call.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.captureWarnings(False)
        yield
