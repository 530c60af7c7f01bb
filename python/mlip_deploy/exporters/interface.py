"""What every adapter gives: a model behind the model interface, and what its contract must say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import mlip_deploy
from mlip_deploy.artifact.contract import (
    ANGSTROM_EV,
    ENERGY_AND_FORCES,
    Contract,
    Dtype,
    EnergyFrame,
    Input,
    ModelIdentity,
    Output,
    Parallel,
    Producer,
    Setting,
)
from mlip_deploy.artifact.fixtures import Original
from mlip_deploy.artifact.format import SCHEMA
from mlip_deploy.exporters.settings import torchs_own_functions

TORCH_DTYPE = {"float32": torch.float32, "float64": torch.float64}


def edge_gradients(energies: Tensor, edge_vectors: Tensor) -> Tensor:
    """dE/d(edge_vectors) [n_edges, 3] of the sum of energies [n_owned]; zeros where they do not depend on edges."""
    # With no edges, or no owned atoms, the graph is still connected: every rank runs the same backward pass.
    gradient = torch.autograd.grad([energies.sum()], [edge_vectors], allow_unused=True)[0]
    return torch.zeros_like(edge_vectors) if gradient is None else gradient


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
            atomic energies [n_owned] in eV, float64 where the energy model gives it, and dE/d(edge_vectors)
            [n_edges, 3] in eV/Å.
        """
        edge_vectors = edge_vectors.detach().requires_grad_(True)
        energies = self.energy_model(node_types, n_owned, edge_index, edge_vectors)
        return energies.detach(), edge_gradients(energies, edge_vectors)

    @torch.jit.export
    def energies(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        """Atomic energies alone, with the arguments of `forward` and without its backward pass.

        A caller whose `edge_vectors` require gradients can differentiate them one by one.
        """
        energies: Tensor = self.energy_model(node_types, n_owned, edge_index, edge_vectors)
        return energies


class EdgeGradientModelWithFeatures(EdgeGradientModel):
    """For an energy model with a method `energies_and_features`, which takes the arguments of `forward`.

    It returns the atomic energies and, from the same pass, features of each owned atom [n_owned, n_features]: what
    enters the read-out, unchanged by rotations.
    """

    def forward(  # type: ignore[override]
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As EdgeGradientModel.forward, and the features."""
        edge_vectors = edge_vectors.detach().requires_grad_(True)
        energies, features = self.energy_model.energies_and_features(  # type: ignore[operator]
            node_types, n_owned, edge_index, edge_vectors
        )
        return energies.detach(), edge_gradients(energies, edge_vectors), features.detach()


class EdgeGradientModelWithExtras(EdgeGradientModel):
    """For an energy model with a method `extras(...) -> [n_owned, n_extras]`, with the arguments of `forward`."""

    @torch.jit.export
    def extras(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        """Further values of owned atoms [n_owned, n_extras], in the order of the contract's outputs."""
        values: Tensor = self.energy_model.extras(  # type: ignore[operator]
            node_types, n_owned, edge_index, edge_vectors.detach()
        )
        return values.detach()


class EdgeGradientModelWithSettings(nn.Module):
    """EdgeGradientModel for an energy model that takes the contract's settings as one more argument.

    Args:
        energy_model: module with `forward(node_types, n_owned, edge_index, edge_vectors, settings)`; settings
            [n_settings] in the order of the contract and the type of `edge_vectors`, a choice by its index.
    """

    def __init__(self, energy_model: nn.Module):
        super().__init__()
        self.energy_model = energy_model

    def forward(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor, settings: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As EdgeGradientModel.forward."""
        edge_vectors = edge_vectors.detach().requires_grad_(True)
        energies = self.energy_model(node_types, n_owned, edge_index, edge_vectors, settings)
        return energies.detach(), edge_gradients(energies, edge_vectors)

    @torch.jit.export
    def energies(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor, settings: Tensor
    ) -> Tensor:
        """As EdgeGradientModel.energies."""
        energies: Tensor = self.energy_model(node_types, n_owned, edge_index, edge_vectors, settings)
        return energies


@dataclass(frozen=True)
class Adapted:
    """A family's model behind the model interface, with what its contract must say."""

    identity: ModelIdentity
    elements: list[str]
    cutoff: float
    message_passing_layers: int
    parallel: Parallel
    energy_frame: EnergyFrame
    inputs: list[Input]
    energy_model: Callable[[torch.dtype], nn.Module]
    """Builds the energy model in a floating-point type."""
    original: Original
    script: Callable[[nn.Module], torch.jit.ScriptModule] = torch.jit.script
    small_memory_model: Callable[[torch.dtype], nn.Module] | None = None
    """Builds the model interface from torch's operators alone, in little memory: what a TorchForce file holds."""
    extras: tuple[Output, ...] = ()
    """Columns of the energy model's method `extras`, which it then must have: values of every atom."""
    settings: tuple[Setting, ...] = ()
    """Values at run time, which the energy model takes as its last argument and the original reads in `atoms.info`."""
    atomic_energies_meaningful: bool = True
    """False for a model in which one atom's energy is an arbitrary share of the sum."""
    inversion_symmetric: bool | None = None
    """Mirror images have the same energy by the model's construction; None where nobody said."""

    def scripted(self, module: nn.Module) -> torch.jit.ScriptModule:
        with torchs_own_functions():
            return self.script(module)

    def contract(self, dtype: Dtype) -> Contract:
        """All but the operators, which the graph tells once it is there."""
        return Contract(
            schema=SCHEMA,
            requires=["settings"] if self.settings else [],
            producer=Producer(package="mlip-deploy", version=mlip_deploy.__version__, torch=str(torch.__version__)),
            model=self.identity,
            backend="torchscript",
            elements=self.elements,
            cutoff=self.cutoff,
            message_passing_layers=self.message_passing_layers,
            interaction_range=self.cutoff * max(1, self.message_passing_layers),
            dtype=dtype,
            units=ANGSTROM_EV,
            parallel=self.parallel,
            collectives=[],
            inputs=self.inputs,
            settings=list(self.settings),
            outputs=[*ENERGY_AND_FORCES, *self.extras],
            atomic_energies_meaningful=self.atomic_energies_meaningful,
            energy_frame=self.energy_frame,
            operators={},
            inversion_symmetric=self.inversion_symmetric,
            differentiable_energies=True,
        )
