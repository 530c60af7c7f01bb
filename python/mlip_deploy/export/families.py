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
    from mlip_deploy.export.wrapper import Adapted


@dataclass(frozen=True)
class ExportOptions:
    """What a user may choose at export. An adapter refuses, by name, what its models do not have."""

    modal: str | None = None
    """training modality, for checkpoints that have several"""
    head: str | None = None
    """read-out head, for models that have several"""
    trust_checkpoint: bool = False
    """unpickle checkpoints that hold more than tensors, which runs code that they may contain"""
    fuse: bool = True
    """put mlip's fused operators in place of the framework's own layers"""


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
        adapted: Adapted = importlib.import_module(f"mlip_deploy.export.{self.name}").adapt(source, options)
        return adapted


FAMILIES = {
    family.name: family
    for family in [
        Family("sevennet", "sevenn", "pip install sevenn", "a name such as 7net-0, or a checkpoint file (*.pth)"),
        Family("mace", "mace", "pip install mace-torch", "a foundation name such as medium-mpa-0, or a file (*.model)"),
    ]
}
