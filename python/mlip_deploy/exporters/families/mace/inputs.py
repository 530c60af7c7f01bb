"""MACE's further inputs, such as the total charge and the spin of MACE-OMOL: settings of the whole system, which are
embedded and added to the first features of every atom."""

from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.artifact.contract import Setting
from mlip_deploy.errors import MLIPError

SETTINGS = {"total_charge": ("charge", "e", None), "total_spin": ("spin", None, 1)}
"""For each input the name of the setting, as MACE's calculator reads it in `atoms.info`; its unit; its least value: a
multiplicity begins at 1, wherever a model's table does."""


def settings_of(model: Any, path: object) -> tuple[Setting, ...]:
    """The settings of a model with further inputs, in the order of its embeddings; none for any other.

    Raises:
        MLIPError: for an input of another kind.
    """
    settings = []
    for name, spec in getattr(model, "embedding_specs", {}).items():
        categorical = spec["type"] == "categorical"
        if name not in SETTINGS or spec["per"] != "graph" or not (categorical or spec["in_dim"] == 1):
            raise MLIPError(
                f"{path} is a model with an input '{name}' per {spec['per']}. Inputs that can be exported: "
                f"{', '.join(SETTINGS)}, each one number per graph"
            )
        setting, unit, least = SETTINGS[name]
        if categorical:
            low = -spec.get("offset", 0)
            limits = (low if least is None else max(low, least), low + spec["num_classes"] - 1)
            settings.append(Setting(name=setting, kind="integer", unit=unit, range=limits))
        else:
            settings.append(Setting(name=setting, kind="number", unit=unit))
    return tuple(settings)


class Category(nn.Module):
    """A row of a table."""

    table: Tensor

    def __init__(self, original: Any, offset: int):
        super().__init__()
        self.offset = offset
        self.register_buffer("table", original.weight.detach().clone())

    def forward(self, value: Tensor) -> Tensor:
        """[1] -> [1, width]"""
        return self.table.index_select(0, (value + self.offset).round().long())


class Network(nn.Module):
    """A small network of the number."""

    def __init__(self, original: Any):
        super().__init__()
        self.network = original

    def forward(self, value: Tensor) -> Tensor:
        """[1] -> [1, width]"""
        result: Tensor = self.network(value.unsqueeze(1))
        return result


class FirstFeatures(nn.Module):
    """What MACE's node_embedding, joint_embedding and embedding_readout make of elements and settings.

    Args:
        model: MACE with further inputs.
        head: index of the head.
    """

    __constants__ = ("has_readout",)
    of_elements: Tensor

    def __init__(self, model: Any, head: int):
        super().__init__()
        n_elements = int(model.atomic_numbers.numel())
        with torch.no_grad():
            dtype = next(model.node_embedding.parameters()).dtype
            self.register_buffer("of_elements", model.node_embedding(torch.eye(n_elements, dtype=dtype)))
        joint = model.joint_embedding
        self.embedders = nn.ModuleList(
            Category(joint.embedders[name], spec.get("offset", 0))
            if spec["type"] == "categorical"
            else Network(joint.embedders[name])
            for name, spec in joint.specs.items()
        )
        self.project = joint.project
        self.has_readout = hasattr(model, "embedding_readout")
        self.readout: nn.Module = model.embedding_readout if self.has_readout else nn.Identity()
        self.head = head

    def forward(self, types: Tensor, settings: Tensor) -> Tensor:
        """
        Args:
            types: int64 [n] type index.
            settings: in the order of `settings_of`.

        Returns:
            [n, channels]
        """
        parts: list[Tensor] = []
        for k, embedder in enumerate(self.embedders):
            parts.append(embedder(settings[k : k + 1]))
        features: Tensor = self.of_elements[types] + self.project(torch.cat(parts, dim=1))
        return features

    def energies(self, features: Tensor) -> Tensor:
        """What the features alone add to each atom's energy, eV [n] in float64."""
        if self.has_readout:
            heads = torch.full([features.shape[0]], self.head, dtype=torch.int64, device=features.device)
            found = self.readout(features, heads)[:, self.head]
        else:
            found = torch.zeros([features.shape[0]], dtype=features.dtype, device=features.device)
        result: Tensor = found.double()
        return result
