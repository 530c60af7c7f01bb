"""The families of models that can be exported: one adapter module each, imported when it is asked for.

An adapter has one function, `adapt(source, options) -> Adapted`. It knows its framework and no engine; frameworks
that exclude each other's versions never meet, because an artifact runs without its family's package.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from importlib import metadata
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


VARIANTS = {"modal": "modalities", "head": "heads"}
"""Options that choose one of several models in a checkpoint, and what they choose from."""


@dataclass(frozen=True)
class Family:
    """A framework whose models can be exported."""

    name: str
    package: str
    """import name of the framework"""
    install: str
    """the line to type when it is missing"""
    sources: str
    """what SOURCE may be"""
    variant: str | None = None
    """the one of VARIANTS that its checkpoints have"""

    @property
    def installed(self) -> bool:
        """Whether the framework can be imported here."""
        return importlib.util.find_spec(self.package) is not None

    def version(self) -> str | None:
        """Release of the framework's distribution, the first that `install` names; None without it."""
        try:
            return metadata.version(self.install.removeprefix("pip install ").split()[0])
        except metadata.PackageNotFoundError:
            return None

    def adapt(self, source: str, options: ExportOptions) -> Adapted:
        """A model of the family behind the model interface.

        Raises:
            MLIPError: when the framework is missing, the source is unknown, or an option does not fit the model.
        """
        self._refuse_other_variants(options)
        if not self.installed:
            raise MLIPError(f"the package '{self.package}' is not installed. Type: {self.install}")
        from mlip_deploy.exporters.settings import quiet

        with quiet():  # frameworks call torch.jit when they are imported
            adapted: Adapted = importlib.import_module(f"mlip_deploy.exporters.families.{self.name}.adapter").adapt(
                source, options
            )
        return adapted

    def _refuse_other_variants(self, options: ExportOptions) -> None:
        for option, several in VARIANTS.items():
            value = getattr(options, option)
            if value is None or option == self.variant:
                continue
            if self.variant is None:
                raise MLIPError(f"--{option} {value}: {self.name} models have no {several}. Leave --{option} out")
            raise MLIPError(
                f"--{option} {value}: {self.name} models have {VARIANTS[self.variant]}, not {several}. Type: "
                f"--{self.variant} {value}"
            )


FAMILIES = {
    family.name: family
    for family in [
        Family(
            "sevennet", "sevenn", "pip install sevenn", "a name such as 7net-0, or a checkpoint file (*.pth)", "modal"
        ),
        Family("chgnet", "chgnet", "pip install chgnet", "0.3.0, r2scan or 0.2.0, or a checkpoint file (*.pth.tar)"),
        Family(
            "mace",
            "mace",
            "pip install mace-torch",
            "a foundation name such as medium-mpa-0, or a file (*.model)",
            "head",
        ),
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
