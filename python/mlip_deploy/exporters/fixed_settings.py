"""Settings that `mlip export --fix` bakes into a file: engines then neither see them nor have to be given them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from ase import Atoms
from torch import Tensor, nn

from mlip_deploy.artifact.contract import Input, Setting
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.interface import Adapted

Answer = TypeVar("Answer")


def fix_settings(adapted: Adapted, given: Mapping[str, float | int | str]) -> Adapted:
    """A model whose settings have values, by name; a number may be given as text.

    Raises:
        MLIPError: for a name that is no setting of the model, a value that it does not accept, and a model with
            positions or outputs of its own for each atom.
    """
    if adapted.positions or adapted.extras:
        also = "takes positions" if adapted.positions else "has outputs of single atoms"
        raise MLIPError(f"--fix: {adapted.identity.name} {also}, and such models take their settings at run time alone")
    known = {setting.name: setting for setting in adapted.settings}
    for name in given:
        if name not in known:
            has = "; ".join(f"{setting.name} ({setting.describe()})" for setting in adapted.settings) or "none"
            raise MLIPError(f"--fix {name}: {adapted.identity.name} has no such setting. It has: {has}")
    values = {name: value_of(known[name], value) for name, value in given.items()}
    numbers = [setting.number(values.get(setting.name, setting.examples()[0])) for setting in adapted.settings]
    free = [k for k, setting in enumerate(adapted.settings) if setting.name not in values]

    def with_values(of: Callable[[Atoms], Answer]) -> Callable[[Atoms], Answer]:
        def of_fixed(atoms: Atoms) -> Answer:
            atoms = atoms.copy()
            atoms.info.update(values)
            return of(atoms)

        return of_fixed

    original = adapted.original
    return replace(
        adapted,
        inputs=[*adapted.inputs, *(_input(known[name], value) for name, value in values.items())],
        settings=tuple(adapted.settings[k] for k in free),
        energy_model=lambda dtype: with_fixed(adapted.energy_model(dtype), numbers, free),
        original=replace(
            original,
            float64=with_values(original.float64),
            float32=with_values(original.float32),
            accepts=with_values(original.accepts),
        ),
    )


def value_of(setting: Setting, value: float | int | str) -> float | int | str:
    """A value for `--fix` in the kind of its setting; a number may be given as text.

    Raises:
        MLIPError: for a value that the setting does not accept.
    """
    if setting.kind != "choice" and isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise MLIPError(f"--fix {setting.name}={value}: expected {setting.describe()}") from None
    if not setting.accepts(value):
        raise MLIPError(f"--fix {setting.name}={value}: expected {setting.describe()}")
    return int(value) if setting.kind == "integer" else value


def _input(setting: Setting, value: float | int | str) -> Input:
    return Input(name=setting.name, choices=setting.choices or [str(value)], value=str(value))


def with_fixed(model: nn.Module, values: list[float], free: list[int]) -> nn.Module:
    """See FixedSettings."""
    has_features = hasattr(model, "energies_and_features")
    return (FixedSettingsWithFeatures if has_features else FixedSettings)(model, values, free)


class FixedSettings(nn.Module):
    """An energy model of which some settings, or all, have values.

    Args:
        model: takes all settings.
        values: of all settings; those of the free ones do not count.
        free: indices of the settings that are still given.
    """

    values: Tensor
    free: Tensor

    def __init__(self, model: nn.Module, values: list[float], free: list[int]):
        super().__init__()
        self.model = model
        self.register_buffer("values", torch.tensor(values, dtype=torch.float64))
        self.register_buffer("free", torch.tensor(free, dtype=torch.int64))

    def forward(
        self,
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        edge_vectors: Tensor,
        settings: Tensor | None = None,
    ) -> Tensor:
        """As the model's, with the free settings alone, in their order; None where there are none."""
        values = self.all_settings(edge_vectors, settings)
        energies: Tensor = self.model(node_types, n_owned, edge_index, edge_vectors, values)
        return energies

    def all_settings(self, edge_vectors: Tensor, settings: Tensor | None) -> Tensor:
        """Of the model, in the type of the vectors."""
        values = self.values.to(edge_vectors.dtype)
        if settings is not None:
            values = values.index_copy(0, self.free, settings)
        return values


class FixedSettingsWithFeatures(FixedSettings):
    """Of a model with features."""

    def energies_and_features(
        self,
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        edge_vectors: Tensor,
        settings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As the model's, with the free settings alone."""
        values = self.all_settings(edge_vectors, settings)
        found: tuple[Tensor, Tensor] = self.model.energies_and_features(  # type: ignore[operator]
            node_types, n_owned, edge_index, edge_vectors, values
        )
        return found
