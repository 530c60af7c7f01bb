"""The contract: what an engine must know about a model. C++ reads the same JSON (csrc/core/contract.h)."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlip_deploy.errors import MLIPError

SCHEMA = "1.0"
Dtype = Literal["float32", "float64"]
Parallel = Literal["local", "exchange", "halo"]
BackendKind = Literal["torchscript", "aotinductor"]


class _Strict(BaseModel):
    """Unknown keys are errors: a file that says more than this version understands is not ours to run."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Producer(_Strict):
    package: str
    version: str
    torch: str


class ModelIdentity(_Strict):
    family: str
    name: str
    source_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    license: str
    citation: str


class Units(_Strict):
    length: Literal["angstrom"] = "angstrom"
    energy: Literal["eV"] = "eV"


class Input(_Strict):
    """An input that the original model takes and the artifact has fixed, such as a training modality."""

    name: str
    choices: list[str]
    value: str


class CompiledFor(_Strict):
    """Where compiled code runs."""

    torch: str
    """minor release, "2.13" """
    device: Literal["cpu", "cuda"]
    processor: Literal["x86-64", "x86-64-v3", "x86-64-v4"]
    """least level of the CPU's instruction set"""

    def describe(self) -> str:
        return f"torch {self.torch}, {self.device}, {self.processor}"


class EnergyFrame(_Strict):
    """What the model's energies are comparable with; "none" where a term is absent, "unknown" where nobody said."""

    functional: str
    hubbard_u: str
    corrections: str
    dispersion: str

    @classmethod
    def unknown(cls, functional: str = "unknown") -> EnergyFrame:
        """Of a model that nobody described, beyond perhaps its functional."""
        return cls(functional=functional, hubbard_u="unknown", corrections="unknown", dispersion="unknown")

    @classmethod
    def parse(cls, text: str) -> EnergyFrame:
        """Out of `declaration`, such as "functional=PBE,hubbard_u=none,corrections=none,dispersion=none".

        Raises:
            MLIPError: for wrong or missing terms.
        """
        outside_brackets = r",(?![^()]*\))"
        terms = dict(part.strip().partition("=")[::2] for part in re.split(outside_brackets, text))
        if set(terms) != set(cls.model_fields) or not all(terms.values()):
            found = ", ".join(name for name, value in terms.items() if value) or "none"
            raise MLIPError(
                f"the energy frame '{text}' needs the terms {', '.join(cls.model_fields)}, found {found}. "
                f"Write for example: {EXAMPLE_FRAME.declaration()}"
            )
        return cls(**terms)

    def declaration(self) -> str:
        """As a user writes it."""
        return ",".join(f"{name}={value}" for name, value in self)

    def describe(self) -> str:
        terms = [("Hubbard U", self.hubbard_u), ("corrections", self.corrections), ("dispersion", self.dispersion)]
        return ", ".join([self.functional, *(f"{name}: {value}" for name, value in terms)])


EXAMPLE_FRAME = EnergyFrame(functional="PBE", hubbard_u="none", corrections="none", dispersion="none")
"""in messages"""


class Contract(_Strict):
    schema_version: str = Field(default=SCHEMA, alias="schema")
    producer: Producer
    model: ModelIdentity
    backend: BackendKind = "torchscript"
    compiled_for: CompiledFor | None = None
    """of the back end aotinductor, and of no other"""
    elements: list[str] = Field(min_length=1)
    """Chemical symbols; the position is the type index."""
    cutoff: float = Field(gt=0)
    """Å"""
    message_passing_layers: int = Field(ge=0)
    interaction_range: float = Field(gt=0)
    """Å: how far a displacement is felt, cutoff times layers."""
    dtype: Dtype
    units: Units = Units()
    parallel: Parallel
    inputs: list[Input] = []
    outputs: list[str] = ["atomic_energies", "edge_gradients"]
    energy_frame: EnergyFrame
    operators: list[str]

    @model_validator(mode="after")
    def _known_schema(self) -> Contract:
        if self.schema_version.split(".")[0] != SCHEMA.split(".")[0]:
            raise ValueError(f"schema is {self.schema_version}, this mlip-deploy reads {SCHEMA.split('.')[0]}.x")
        if len(set(self.elements)) != len(self.elements):
            raise ValueError("elements are listed twice")
        if (self.backend == "aotinductor") != (self.compiled_for is not None):
            raise ValueError(
                f"back end {self.backend} {'without' if self.compiled_for is None else 'with'} compiled_for"
            )
        return self

    @property
    def extras(self) -> list[str]:
        """Values of every atom beside energy and forces."""
        return [name for name in self.outputs if name not in ("atomic_energies", "edge_gradients")]

    def to_json(self) -> str:
        """Deterministic: the same model gives the same bytes."""
        return self.model_dump_json(by_alias=True, indent=1, exclude_none=True)

    def types_of(self, symbols: list[str]) -> list[int]:
        """Type index of each chemical symbol.

        Raises:
            ValueError: names the first atom whose element the model does not know.
        """
        index = {symbol: k for k, symbol in enumerate(self.elements)}
        for k, symbol in enumerate(symbols):
            if symbol not in index:
                known = f": {' '.join(self.elements)}" if len(self.elements) <= 12 else ""
                raise ValueError(
                    f"atom {k} (counted from 0) is '{symbol}', not an element of {self.model.name} "
                    f"({len(self.elements)} elements{known})"
                )
        return [index[symbol] for symbol in symbols]
