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
    Positions,
    Producer,
    Setting,
)
from mlip_deploy.artifact.fixtures import Original
from mlip_deploy.artifact.format import SCHEMA
from mlip_deploy.exporters.settings import torchs_own_functions

TORCH_DTYPE = {"float32": torch.float32, "float64": torch.float64}


def gradients(energies: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Of the sum of energies [n_owned], in the shapes of the inputs; zeros where they do not depend on one."""
    # With no edges, or no owned atoms, the graph is still connected: every rank runs the same backward pass.
    found: list[Tensor] = []
    for value, gradient in zip(inputs, torch.autograd.grad([energies.sum()], inputs, allow_unused=True)):  # noqa: B905
        found.append(torch.zeros_like(value) if gradient is None else gradient)
    return found


def given(value: Tensor | None) -> Tensor:
    """An argument that the contract declares, and an engine therefore gives."""
    assert value is not None
    return value


class _ModelInterface(nn.Module):
    """The model interface but for `forward`, which the classes below add with the gradients that it returns.

    Args:
        energy_model: module with `forward(node_types, n_owned, edge_index, edge_vectors) -> atomic energies`; with a
            method `extras(...) -> [n_owned, n_extras]` of the same arguments where it has outputs of its own.
        takes_positions: the energy model has arguments `positions` and `cell` too.
        takes_settings: the energy model has an argument `settings` too.
    """

    __constants__ = ("has_extras", "takes_positions", "takes_settings")  # so that what is not there is not compiled

    def __init__(self, energy_model: nn.Module, takes_positions: bool = False, takes_settings: bool = False):
        super().__init__()
        self.energy_model = energy_model
        self.takes_positions = takes_positions
        self.takes_settings = takes_settings
        self.has_extras = hasattr(energy_model, "extras")

    @torch.jit.export
    def energies(
        self,
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        edge_vectors: Tensor,
        positions: Tensor | None = None,
        cell: Tensor | None = None,
        settings: Tensor | None = None,
    ) -> Tensor:
        """Atomic energies alone, with the arguments of `forward` and without its backward pass.

        A caller whose `edge_vectors` require gradients can differentiate them one by one.
        """
        x, h, s = positions, cell, settings
        if self.takes_positions and self.takes_settings:
            energies = self.energy_model(node_types, n_owned, edge_index, edge_vectors, given(x), given(h), given(s))
        elif self.takes_positions:
            energies = self.energy_model(node_types, n_owned, edge_index, edge_vectors, given(x), given(h))
        elif self.takes_settings:
            energies = self.energy_model(node_types, n_owned, edge_index, edge_vectors, given(s))
        else:
            energies = self.energy_model(node_types, n_owned, edge_index, edge_vectors)
        result: Tensor = energies
        return result

    @torch.jit.export
    def extras(
        self,
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        edge_vectors: Tensor,
        positions: Tensor | None = None,
        cell: Tensor | None = None,
        settings: Tensor | None = None,
    ) -> Tensor:
        """Further values of owned atoms [n_owned, n_extras], in the order of the contract's outputs."""
        x, h, s, r = positions, cell, settings, edge_vectors.detach()
        if not self.has_extras:
            raise ValueError("the model has no outputs beside its energies")
        elif self.takes_positions and self.takes_settings:
            values = self.energy_model.extras(node_types, n_owned, edge_index, r, given(x), given(h), given(s))  # type: ignore[operator]
        elif self.takes_positions:
            values = self.energy_model.extras(node_types, n_owned, edge_index, r, given(x), given(h))  # type: ignore[operator]
        elif self.takes_settings:
            values = self.energy_model.extras(node_types, n_owned, edge_index, r, given(s))  # type: ignore[operator]
        else:
            values = self.energy_model.extras(node_types, n_owned, edge_index, r)  # type: ignore[operator]
        result: Tensor = values.detach()
        return result


class EdgeGradientModel(_ModelInterface):
    """The model interface of an energy model that sees positions through its edges alone."""

    def forward(
        self,
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        edge_vectors: Tensor,
        settings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            node_types: int64 [n_nodes], type index of every node, owned atoms first, then ghosts.
            n_owned: how many nodes are owned.
            edge_index: int64 [2, n_edges], owned centre i and neighbour j.
            edge_vectors: [n_edges, 3] r_j - r_i with the periodic shift, Å.
            settings: [n_settings] in the order of the contract and the type of `edge_vectors`, a choice by its index;
                left out where the contract has none.

        Returns:
            atomic energies [n_owned] in eV, float64 where the energy model gives it, and dE/d(edge_vectors)
            [n_edges, 3] in eV/Å.
        """
        edge_vectors = edge_vectors.detach().requires_grad_(True)
        energies = self.energies(node_types, n_owned, edge_index, edge_vectors, None, None, settings)
        return energies.detach(), gradients(energies, [edge_vectors])[0]


class EdgeGradientModelWithFeatures(EdgeGradientModel):
    """For an energy model with a method `energies_and_features`, which takes the arguments of `forward`.

    It returns the atomic energies and, from the same pass, features of each owned atom [n_owned, n_features]: what
    enters the read-out, unchanged by rotations.
    """

    def forward(  # type: ignore[override]
        self,
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        edge_vectors: Tensor,
        settings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As EdgeGradientModel.forward, and the features."""
        edge_vectors = edge_vectors.detach().requires_grad_(True)
        if self.takes_settings:
            energies, features = self.energy_model.energies_and_features(  # type: ignore[operator]
                node_types, n_owned, edge_index, edge_vectors, given(settings)
            )
        else:
            energies, features = self.energy_model.energies_and_features(  # type: ignore[operator]
                node_types, n_owned, edge_index, edge_vectors
            )
        return energies.detach(), gradients(energies, [edge_vectors])[0], features.detach()


class PositionGradientModel(_ModelInterface):
    """The model interface of an energy model that takes positions and cell beside its edges."""

    def forward(
        self,
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        edge_vectors: Tensor,
        positions: Tensor,
        cell: Tensor,
        settings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """
        Args:
            node_types, n_owned, edge_index, edge_vectors, settings: as for EdgeGradientModel.forward.
            positions: float64 [n_owned, 3] of owned atoms, Å, in any periodic image.
            cell: float64 [3, 3] Å, rows are the cell vectors, zero where not periodic.

        Returns:
            atomic energies [n_owned] in eV, dE/d(edge_vectors) [n_edges, 3], dE/d(positions) [n_owned, 3] and
            dE/d(cell) [3, 3] in eV/Å, each with the others fixed. E is the energy of all ranks; the cell is a variable
            of each rank's own.
        """
        inputs = [edge_vectors.detach().requires_grad_(True), positions.detach().requires_grad_(True)]
        inputs.append(cell.detach().requires_grad_(True))
        energies = self.energies(node_types, n_owned, edge_index, inputs[0], inputs[1], inputs[2], settings)
        found = gradients(energies, inputs)
        return energies.detach(), found[0], found[1], found[2]


@dataclass(frozen=True)
class ServedModel:
    """A model behind the model interface, with what its contract must say."""

    identity: ModelIdentity
    elements: list[str]
    cutoff: float
    message_passing_layers: int
    parallel: Parallel
    energy_frame: EnergyFrame
    inputs: list[Input]
    energy_model: Callable[[torch.dtype], nn.Module]
    """Builds the energy model in a floating-point type."""
    script: Callable[[nn.Module], torch.jit.ScriptModule] = torch.jit.script
    small_memory_model: Callable[[torch.dtype], nn.Module] | None = None
    """Builds the model interface from torch's operators alone, in little memory: what a TorchForce file holds."""
    extras: tuple[Output, ...] = ()
    """Columns of the energy model's method `extras`, which it then must have: values of every atom."""
    settings: tuple[Setting, ...] = ()
    """Values at run time, which the energy model takes as its last argument."""
    positions: Positions | None = None
    """In which cells the energy model takes positions and cell, before settings; None where it does not."""
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
            requires=[*(["positions"] if self.positions else []), *(["settings"] if self.settings else [])],
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
            positions=self.positions,
            outputs=[*ENERGY_AND_FORCES, *self.extras],
            atomic_energies_meaningful=self.atomic_energies_meaningful,
            energy_frame=self.energy_frame,
            operators={},
            inversion_symmetric=self.inversion_symmetric,
            differentiable_energies=True,
        )

    def interface(
        self, dtype: torch.dtype, with_features: bool = False
    ) -> EdgeGradientModel | EdgeGradientModelWithFeatures | PositionGradientModel:
        """The model interface around the energy model in a floating-point type.

        Args:
            with_features: where the energy model gives them.
        """
        energy_model = self.energy_model(dtype)
        if self.positions:
            return PositionGradientModel(energy_model, True, bool(self.settings))
        of_edges = EdgeGradientModel
        if with_features and hasattr(energy_model, "energies_and_features"):
            of_edges = EdgeGradientModelWithFeatures
        return of_edges(energy_model, False, bool(self.settings))


@dataclass(frozen=True, kw_only=True)
class Adapted(ServedModel):
    """A model of a framework, which says what is right."""

    original: Original
    """It reads values of settings in `atoms.info`."""
    rotation_symmetric: bool = True
    """Rotated structures have the same energy by the model's construction; where not, fixtures state the difference."""
    composition: dict[str, int] | None = None
    """Numbers of atoms by element of the one reduced composition that the model takes; None where it takes any."""
