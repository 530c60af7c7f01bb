"""The contract: what an engine must know about a model. C++ reads the same JSON (csrc/core/contract.h).

A contract is strict where it is made: a wrong value or an unknown key is an error. `parse_contract` reads one of a
file, which may be of another version; docs/compatibility.md says what it then accepts. Both sides are tested with the
rules in tests/contracts.json.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mlip_deploy.artifact.format import FEATURES, OPERATORS, SCHEMA, SCHEMA_MAJOR, SCHEMA_MINOR
from mlip_deploy.errors import MLIPError

Dtype = Literal["float32", "float64"]
Parallel = Literal["local", "exchange", "halo"]
BackendKind = Literal["torchscript", "aotinductor"]
Positions = Literal["periodic", "any"]


Scope = Literal["atom", "system", "edge"]

MOST_LAYERS = 1000
ROUNDING = 1e-9
"""Relative, of the interaction range, which is a product of two numbers of the file."""


class _Strict(BaseModel):
    """Unknown keys are errors where a contract is made; keys without a default have to be in every file."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Producer(_Strict):
    """Which package wrote the file, with which torch."""

    package: str
    version: str
    torch: str


class ModelIdentity(_Strict):
    """Which model it is, of which checkpoint, under which licence."""

    family: str
    name: str
    source_sha256: str
    """of the checkpoint, 64 lower-case hexadecimal digits"""
    license: str
    citation: str


class Units(_Strict):
    """Of all numbers of the file."""

    length: Literal["angstrom"]
    energy: Literal["eV"]


ANGSTROM_EV = Units(length="angstrom", energy="eV")


class Input(_Strict):
    """An input that the original model takes and the artifact has fixed, such as a training modality."""

    name: str
    choices: list[str]
    value: str


class Setting(_Strict):
    """A value of the whole system that an engine gives at run time, such as its charge."""

    name: str
    kind: Literal["number", "integer", "choice"]
    unit: str | None = None
    """of a number; None where it has none"""
    range: tuple[float, float] | None = None
    """least and largest number"""
    choices: list[str] | None = None
    default: float | int | str | None = None
    """None for a setting that has to be given"""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Setting:
        if (self.kind == "choice") != bool(self.choices):
            raise ValueError(
                f"setting '{self.name}' of kind {self.kind} {'with' if self.choices else 'without'} choices"
            )
        if self.kind == "choice" and (self.range or self.unit):
            raise ValueError(f"setting '{self.name}' is a choice, which has no range and no unit")
        if self.range and not self.range[0] < self.range[1]:
            raise ValueError(f"setting '{self.name}' has an empty range")
        if self.default is not None and not self.accepts(self.default):
            raise ValueError(f"setting '{self.name}' has the default {_dump(self.default)}, which it does not accept")
        return self

    def describe(self) -> str:
        """In words: "an integer from -2 to 2, e", with its default."""
        if self.kind == "choice":
            text = f"one of {', '.join(self.choices or [])}"
        else:
            text = "an integer" if self.kind == "integer" else "a number"
            text += f" from {self.range[0]:g} to {self.range[1]:g}" if self.range else ""
            text += f", {self.unit}" if self.unit else ""
        return f"{text}; {'to be given' if self.default is None else f'default {self.default}'}"

    def number(self, value: float | int | str) -> float:
        """What the model is given for a value: a choice by its index.

        Raises
        ------
        MLIPError
            For a value that the setting does not accept.
        """
        if not self.accepts(value):
            raise MLIPError(f"setting '{self.name}' is {value!r}, expected {self.describe()}")
        return float((self.choices or []).index(str(value)) if self.kind == "choice" else value)

    def examples(self) -> list[float | int | str]:
        """A few values that it accepts, the default first."""
        if self.kind == "choice":
            found: list[float | int | str] = list(self.choices or [])
        elif self.kind == "integer":
            found = [0, 1, -1, 2]
        else:
            found = [0.0, 0.5, -0.25]
        if self.range and self.kind != "choice":
            low, high = self.range
            found += [low, high] if self.kind == "number" else [math.ceil(low), math.floor(high)]
        if self.default is not None:
            found = [self.default, *(value for value in found if value != self.default)]
        return [value for value in found if self.accepts(value)][:4]

    def accepts(self, value: float | int | str) -> bool:
        """Whether a value is one of the choices, or a number of the kind and in the range."""
        if self.kind == "choice":
            return value in (self.choices or [])
        if isinstance(value, str) or not math.isfinite(value) or (self.kind == "integer" and value != int(value)):
            return False
        return self.range is None or self.range[0] <= value <= self.range[1]


class Output(_Strict):
    """A value that the model computes."""

    name: str
    unit: str
    scope: Scope
    """what one value belongs to"""

    def describe(self) -> str:
        """In words."""
        return f"{self.name} ({self.unit}, {self.scope})"


ENERGY_AND_FORCES = [
    Output(name="atomic_energies", unit="eV", scope="atom"),
    Output(name="edge_gradients", unit="eV/angstrom", scope="edge"),
]
"""The outputs of every model."""


class CompiledFor(_Strict):
    """Where compiled code runs."""

    torch: str
    """minor release, "2.13" """
    device: str
    """"cpu" or "cuda\""""
    processor: str
    """least level of the CPU's instruction set ("x86-64", "x86-64-v3" or "x86-64-v4"), or architecture of the GPU
    ("sm_90")"""

    def describe(self) -> str:
        """In words."""
        return f"torch {self.torch}, {self.device}, {self.processor}"


class EnergyFrame(_Strict):
    """What the model's energies are comparable with; "none" where a term is absent, "unknown" where it is not known."""

    functional: str
    hubbard_u: str
    corrections: str
    dispersion: str

    @classmethod
    def unknown(cls, functional: str = "unknown") -> EnergyFrame:
        """A frame of which at most the functional is known."""
        return cls(functional=functional, hubbard_u="unknown", corrections="unknown", dispersion="unknown")

    @classmethod
    def parse(cls, text: str) -> EnergyFrame:
        """Parse a `declaration`, such as "functional=PBE,hubbard_u=none,corrections=none,dispersion=none".

        Raises
        ------
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
        """The text that `parse` reads."""
        return ",".join(f"{name}={value}" for name, value in self)

    def describe(self) -> str:
        """In words, for tables and messages."""
        terms = [("Hubbard U", self.hubbard_u), ("corrections", self.corrections), ("dispersion", self.dispersion)]
        return ", ".join([self.functional, *(f"{name}: {value}" for name, value in terms)])


EXAMPLE_FRAME = EnergyFrame(functional="PBE", hubbard_u="none", corrections="none", dispersion="none")
"""in messages"""


class Contract(_Strict):
    """What the file says of its model."""

    schema_version: str = Field(alias="schema")
    requires: list[str]
    """Features of the format without which a reader would compute something else: one that does not know them refuses
    the file."""
    producer: Producer
    model: ModelIdentity
    backend: BackendKind
    compiled_for: CompiledFor | None = None
    """of the back end aotinductor, and of no other"""
    elements: list[str]
    """Chemical symbols; the position is the type index."""
    cutoff: float
    """Å"""
    message_passing_layers: int
    interaction_range: float
    """Å: how far a displacement is felt, cutoff times layers, and at least the cutoff."""
    dtype: Dtype
    units: Units
    parallel: Parallel
    collectives: list[str]
    """Operations over all ranks that the graph calls, beside the exchange of ghosts that `parallel` says; each of them
    is required."""
    inputs: list[Input]
    settings: list[Setting]
    """Values that are given at run time. A file that has any requires "settings"."""
    positions: Positions | None = None
    """Positions and cell are inputs beside the edges, with gradients of their own: "periodic" in a cell that is
    periodic in three directions, "any" in every cell. A file with such inputs requires "positions"."""
    outputs: list[Output]
    atomic_energies_meaningful: bool
    """False for a model in which one atom's energy is an arbitrary share of the sum."""
    energy_frame: EnergyFrame
    operators: dict[str, int]
    """Custom operators that the graph calls, with the version of each."""
    inversion_symmetric: bool | None = None
    """Mirror images have the same energy by the model's construction; None where it is not known."""
    features: int | None = None
    """Width of the features of each atom that enter the read-out, on which grades live (docs/trust.md); None where the
    model gives none."""
    differentiable_energies: bool | None = None
    """Atomic energies can be differentiated one by one, which exact virials of atoms need (docs/heat-flux.md); None in
    files of schema 1.0, where they cannot."""

    @model_validator(mode="after")
    def _rules(self) -> Contract:
        """What must hold between the values. The same rules in the same order: csrc/core/contract.cpp."""
        if twice := _repeated([setting.name for setting in self.settings]):
            raise ValueError(f"'settings' names '{twice}' twice")
        if self.settings and "settings" not in self.requires:
            raise ValueError("'settings' is not empty, so 'requires' must name 'settings'")
        for name in self.collectives:
            if name not in self.requires:
                raise ValueError(f"'collectives' names '{name}', so 'requires' must name '{name}'")
        if self.positions and "positions" not in self.requires:
            raise ValueError("the model takes positions, so 'requires' must name 'positions'")
        for name, version in self.operators.items():
            if version < 1:
                raise ValueError(f"'operators.{name}' is {version}, expected a positive number")
        if not re.fullmatch("[0-9a-f]{64}", self.model.source_sha256):
            raise ValueError(
                f"'model.source_sha256' is {_dump(self.model.source_sha256)}, expected 64 lower-case hexadecimal digits"
            )
        if (self.backend == "aotinductor") != (self.compiled_for is not None):
            raise ValueError(f"back end {self.backend} {'with' if self.compiled_for else 'without'} 'compiled_for'")
        if not self.elements:
            raise ValueError("'elements' is empty")
        for element in self.elements:
            if not re.fullmatch("[A-Z][a-z]{0,2}", element):
                raise ValueError(f"'elements' names '{element}', expected chemical symbols")
        if twice := _repeated(self.elements):
            raise ValueError(f"'elements' names '{twice}' twice")
        if not self.cutoff > 0:
            raise ValueError(f"'cutoff' is {_dump(self.cutoff)}, expected a positive number")
        layers = self.message_passing_layers
        if not 0 <= layers <= MOST_LAYERS:
            raise ValueError(f"'message_passing_layers' is {layers}, expected 0 to {MOST_LAYERS}")
        expected = self.cutoff * max(1, layers)
        if abs(self.interaction_range - expected) > ROUNDING * expected:
            raise ValueError(
                f"'interaction_range' is {_dump(self.interaction_range)}, expected {_dump(expected)}: the cutoff times "
                "the layers, and at least the cutoff"
            )
        if self.parallel == "local" and layers > 1:
            raise ValueError(
                f"'parallel' is \"local\" with {layers} message-passing layers, expected 'exchange' or 'halo'"
            )
        for fixed in self.inputs:
            if fixed.value not in fixed.choices:
                raise ValueError(f"input '{fixed.name}' is '{fixed.value}', expected one of {_dump(fixed.choices)}")
        for output in ENERGY_AND_FORCES:
            if output not in self.outputs:
                raise ValueError(
                    f"'outputs' lacks '{output.name}' with unit '{output.unit}' and scope '{output.scope}'"
                )
        if twice := _repeated([output.name for output in self.outputs]):
            raise ValueError(f"'outputs' names '{twice}' twice")
        if self.features is not None and self.features < 1:
            raise ValueError(f"'features' is {self.features}, expected a positive number")
        return self

    @property
    def extras(self) -> list[str]:
        """Names of the values of every atom beside its energy."""
        return [output.name for output in self.outputs if output.scope == "atom" and output.name != "atomic_energies"]

    def given_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The settings among `given`, such as ASE's `atoms.info`.

        Raises
        ------
        MLIPError
            For a value that a setting does not accept.
        """
        found = {setting.name: given[setting.name] for setting in self.settings if setting.name in given}
        for setting in self.settings:
            if setting.name in found:
                setting.number(found[setting.name])
        return found

    def require_settings(self, names: Iterable[str], where: str) -> None:
        """Find out that names are those of settings.

        Raises
        ------
        MLIPError
            Names one that is not, after `where`.
        """
        known = [setting.name for setting in self.settings]
        for name in names:
            if name not in known:
                has = "; ".join(f"{setting.name} ({setting.describe()})" for setting in self.settings) or "none"
                raise MLIPError(f"{where} has no option '{name}', and {self.model.name} no such setting. It has: {has}")

    @property
    def inexact_heat_flux(self) -> str:
        """Why virials of atoms are not exact one by one, as a heat flux needs them; "" where they are."""
        if self.positions:
            return "energies depend on the positions of all atoms"
        if self.collectives:
            return "energies depend on sums over all atoms"
        if self.message_passing_layers <= 1 or self.differentiable_energies:
            return ""
        return "the file is compiled" if self.backend == "aotinductor" else "the file is of schema 1.0"

    @property
    def is_newer(self) -> bool:
        """Of a file with a later minor schema than this version's, which may have keys that this version ignores."""
        return int(self.schema_version.split(".")[1]) > SCHEMA_MINOR

    def to_json(self) -> str:
        """Deterministic: the same model gives the same bytes."""
        return self.model_dump_json(by_alias=True, indent=1, exclude_none=True)

    def types_of(self, symbols: list[str]) -> list[int]:
        """Type index of each chemical symbol.

        Raises
        ------
        MLIPError
            Names the first atom whose element the model does not know.
        """
        index = {symbol: k for k, symbol in enumerate(self.elements)}
        for k, symbol in enumerate(symbols):
            if symbol not in index:
                known = f": {' '.join(self.elements)}" if len(self.elements) <= 12 else ""
                raise MLIPError(
                    f"atom {k} (counted from 0) is '{symbol}', not an element of {self.model.name} "
                    f"({len(self.elements)} elements{known})"
                )
        return [index[symbol] for symbol in symbols]


# ---- reading ------------------------------------------------------------------------------------------------------

UPGRADE_LINE = "Type: pip install --upgrade mlip-deploy"
EXPORT_LINE = "Export the model again with: mlip export"
EXPECTED = {
    "string_type": "a string",
    "float_type": "a number",
    "finite_number": "a number",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
}
"""By the name that pydantic has for what is wrong."""

Record = TypeVar("Record", bound=BaseModel)


def parse_contract(text: str | bytes, source: str) -> Contract:
    """The contract of a file, of this version or another.

    Args:
        text: JSON.
        source: names the file in messages.

    Raises
    ------
        MLIPError: for malformed JSON, a missing or unknown key, a wrong value, another major schema, a feature that the
            file requires and this version does not know, an operator that it does not have in the file's version.
    """
    newer = ""

    def refused(what: str, advice: str = "") -> MLIPError:
        usual = (
            f"The file is of schema {newer}, this mlip-deploy reads {SCHEMA}. {UPGRADE_LINE}" if newer else EXPORT_LINE
        )
        return MLIPError(f"'{source}': contract: {what}. {advice or usual}")

    try:
        document = json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        raise refused(f"not valid JSON ({error})") from error
    if not isinstance(document, dict):
        raise refused(f"it is {_dump(document)}, expected an object")

    schema, required = document.get("schema"), document.get("requires")
    if isinstance(schema, str):
        if not re.fullmatch("[0-9]{1,9}[.][0-9]{1,9}", schema):
            raise refused(f"'schema' is {_dump(schema)}, expected MAJOR.MINOR, such as \"1.0\"")
        major, minor = map(int, schema.split("."))
        if major != SCHEMA_MAJOR:
            raise refused(
                f"schema is {schema}, this mlip-deploy reads {SCHEMA_MAJOR}.x",
                UPGRADE_LINE if major > SCHEMA_MAJOR else EXPORT_LINE,
            )
        newer = schema if minor > SCHEMA_MINOR else ""
    if isinstance(required, list) and all(isinstance(name, str) for name in required):
        unknown = ", ".join(f"'{name}'" for name in required if name not in FEATURES)
        if unknown:
            raise refused(f"the file requires {unknown}, which this mlip-deploy does not know", UPGRADE_LINE)
    try:
        contract = parse_record(Contract, document, ignore_unknown=bool(newer))
    except ValidationError as error:
        raise refused(_reason(error)) from error
    for name, version in sorted(contract.operators.items()):
        if name not in OPERATORS:
            raise refused(f"the file needs the operator {name}, which this mlip-deploy does not have", UPGRADE_LINE)
        oldest, newest = OPERATORS[name]
        if not oldest <= version <= newest:
            ours = f"version {newest}" if oldest == newest else f"versions {oldest} to {newest}"
            raise refused(
                f"the file needs version {version} of the operator {name}, this mlip-deploy has {ours}",
                UPGRADE_LINE if version > newest else EXPORT_LINE,
            )
    return contract


def parse_record(model: type[Record], document: Any, ignore_unknown: bool) -> Record:
    """A record of a file, no value of which is converted from another type.

    Args:
        document: what the record's JSON holds; loses the keys that are ignored.
        ignore_unknown: for a file of a later minor schema.
    """
    try:
        return model.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        unknown = [entry["loc"] for entry in error.errors() if entry["type"] == "extra_forbidden"]
        if not (unknown and ignore_unknown):
            raise
        for *parents, key in unknown:
            owner = document
            for parent in parents:
                owner = owner[parent]
            del owner[key]
        return model.model_validate_json(json.dumps(document), strict=True)


def _reason(error: ValidationError) -> str:
    """The first problem, in the words of csrc/core/contract.cpp."""
    first = error.errors()[0]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    kind = first["type"]
    if kind == "missing":
        return f"missing key '{key}'"
    if kind == "extra_forbidden":
        return f"unknown key '{key}'"
    if kind == "value_error":
        return str(first["ctx"]["error"])
    expected = first["ctx"]["expected"] if kind == "literal_error" else EXPECTED.get(kind, first["msg"])
    return f"'{key}' is {_dump(first['input'])}, expected {expected}"


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _repeated(words: list[str]) -> str | None:
    """The first word that is there twice."""
    return next((word for k, word in enumerate(words) if word in words[:k]), None)
