"""The families of models that can be exported: one adapter module each, imported when it is asked for.

An adapter has one function, `adapt(source, options) -> Adapted`. It knows its framework and no engine; frameworks
that exclude each other's versions never meet, because an artifact runs without its family's package.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlip_deploy.errors import MLIPError

if TYPE_CHECKING:
    from mlip_deploy.exporters.interface import Adapted


@dataclass(frozen=True)
class ExportOptions:
    """What a user may choose at export. An adapter refuses, by name, what its models do not have."""

    modal: str | None = None
    """training modality, for checkpoints that have several"""
    head: str | None = None
    """read-out head, for models that have several"""
    fuse: bool = True
    """put mlip's fused operators in place of the framework's own layers"""
    elements: tuple[str, ...] = ()
    """chemical symbols to keep; all of the model's when empty"""
    trust_checkpoint: bool = False
    """run the code that a pickled checkpoint file may contain (see checkpoints.py)"""


@dataclass(frozen=True)
class Family:
    name: str
    package: str
    """import name of the framework"""
    install: str
    """the line to type when it is missing"""
    sources: str
    """what SOURCE may be"""

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    def adapt(self, source: str, options: ExportOptions) -> Adapted:
        """
        Raises:
            MLIPError: when the framework is missing, the source is unknown, or an option does not fit the model.
        """
        if not self.installed:
            raise MLIPError(f"the package '{self.package}' is not installed. Type: {self.install}")
        from mlip_deploy.exporters.settings import quiet

        with quiet():  # frameworks call torch.jit when they are imported
            adapted: Adapted = importlib.import_module(f"mlip_deploy.exporters.families.{self.name}.adapter").adapt(
                source, options
            )
        return adapted


FAMILIES = {
    family.name: family
    for family in [
        Family("sevennet", "sevenn", "pip install sevenn", "a name such as 7net-0, or a checkpoint file (*.pth)"),
        Family("chgnet", "chgnet", "pip install chgnet", "0.3.0, r2scan or 0.2.0, or a checkpoint file (*.pth.tar)"),
        Family("mace", "mace", "pip install mace-torch", "a foundation name such as medium-mpa-0, or a file (*.model)"),
        Family(
            "nequip",
            "nequip",
            "pip install nequip nequip-allegro",
            "a NequIP or Allegro checkpoint (*.ckpt) or package (*.nequip.zip)",
        ),
    ]
}


def keep_elements(elements: list[str], kept: tuple[str, ...], model: str) -> list[str]:
    """The elements that an exported model has: `kept`, in the model's order; all of them when `kept` is empty.

    Raises:
        MLIPError: names the elements that the model lacks.
    """
    absent = [symbol for symbol in kept if symbol not in elements]
    if absent:
        raise MLIPError(
            f"--elements {' '.join(kept)}: {model} does not know {', '.join(absent)}. Its {len(elements)} elements: "
            f"{' '.join(elements)}"
        )
    return [symbol for symbol in elements if symbol in kept] if kept else elements
