"""Energy frames: which energies may be compared, and the conversion to ask for where they may not.

Total energies of two methods, of the same functional with and without U, or with and without empirical corrections
differ by up to tenths of an eV per atom, which says nothing about a model. So data and model each declare a frame, and
a comparison across frames is refused unless the user asks for it in words (`--frame`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlip_deploy.artifact.contract import EXAMPLE_FRAME, EnergyFrame
from mlip_deploy.errors import MLIPError

TERMS = tuple(EnergyFrame.model_fields)
AS_IS, SHIFT, NO_FORCES = "as-is", "shift", "energies-only"

# The Materials Project gives these metals a U in oxides and fluorides, and only there (docs.materialsproject.org,
# "GGA/GGA+U calculations").
U_METALS = frozenset({"Co", "Cr", "Fe", "Mn", "Mo", "Ni", "V", "W"})
U_ANIONS = frozenset({"O", "F"})
U_SCHEMES = frozenset({"none", "mp2020 values", "omat24 values"})
# Data of one choice of PAW potentials, the Materials Project's of 2020 (PBE 52)
MATERIALS_PROJECT = frozenset({"mp", "mptrj", "salex", "wbm"})


@dataclass(frozen=True)
class Request:
    """What `--frame` says: parts joined by "+"."""

    kind: str | None = None
    """name of one of the set's energies"""
    declared: EnergyFrame | None = None
    """frame of data that carry none"""
    as_is: bool = False
    """compare across frames, without a verdict"""
    shift: bool = False
    """fit one energy per element to the differences before comparing"""
    energies_only: bool = False
    """accept data without forces"""


@dataclass(frozen=True)
class Agreement:
    """How energies will be compared."""

    kind: str
    """which of the data's energies"""
    shift: bool
    judged: bool
    """False where the frames differ or are unknown, and the user asked to compare all the same"""
    note: str
    """for the report"""


def parse_request(text: str | None) -> Request:
    """`--frame`, such as "mp2020", "shift", "raw+shift", "as-is" or "functional=PBE,hubbard_u=none,…".

    Raises:
        MLIPError: for a declaration with wrong or missing terms.
    """
    request: dict[str, object] = {}
    for part in filter(None, (text or "").split("+")):
        if part == AS_IS:
            request["as_is"] = True
        elif part == SHIFT:
            request["shift"] = True
        elif part == NO_FORCES:
            request["energies_only"] = True
        elif "=" in part:
            request["declared"] = EnergyFrame.parse(part)
        elif "kind" in request:
            raise MLIPError(f"--frame names two kinds of energies, '{request['kind']}' and '{part}'. Name one")
        else:
            request["kind"] = part
    return Request(**request)  # type: ignore[arg-type]


def agree(
    model: EnergyFrame,
    model_name: str,
    data: Mapping[str, EnergyFrame],
    data_name: str,
    compositions: Iterable[frozenset[str]],
    request: Request,
    same_potentials: bool = True,
) -> Agreement:
    """Decide how energies are compared, or refuse.

    Args:
        data: frame of each kind of energy that the data carry; the first is taken unless the request names another.
        compositions: the elements of each structure; a U that applies to none of them makes no difference.
        same_potentials: False where the data's zero of energy differs for each element.

    Raises:
        MLIPError: frames differ or are unknown and the request does not say what to do; the message ends with the
            `--frame` that would help.
    """
    if request.kind is not None and request.kind not in data:
        raise MLIPError(f"--frame {request.kind}: '{data_name}' carries the energies: {', '.join(data)}")
    kind = request.kind or next(iter(data))
    frame = data[kind]
    if request.declared is not None:
        if frame not in (EnergyFrame.unknown(), request.declared):
            raise MLIPError(
                f"--frame declares {request.declared.describe()}, but '{data_name}' declares {frame.describe()}. "
                f"Leave the declaration out"
            )
        frame = request.declared
    compositions = list(compositions)
    mismatch = differing_terms(model, frame, compositions)
    unknown = [term for term in TERMS if "unknown" in (getattr(model, term), getattr(frame, term))]
    frames = f"the data ('{data_name}') are {frame.describe()}; the model ({model_name}) is {model.describe()}"
    if request.as_is:
        found = [
            f"{what}: {', '.join(terms)}" for what, terms in (("differs", mismatch), ("unknown", unknown)) if terms
        ]
        said = "; ".join(found) or "differs: nothing"
        return Agreement(kind, request.shift, not found, f"compared as it is: {frames}; {said}")
    if unknown:
        raise MLIPError(_unknown(model, frame, frames))
    if mismatch:
        helps = [name for name, other in data.items() if not differing_terms(model, other, compositions)]
        cure = (
            f"The data carry energies in the model's frame too: --frame {helps[0]}"
            if helps
            else f"No conversion is known; compare without a verdict: --frame {AS_IS}"
        )
        raise MLIPError(f"energy frames differ in {', '.join(mismatch)}: {frames}. {cure}")
    if not request.shift and not (same_potentials and same_zero(model.functional, frame.functional)):
        raise MLIPError(
            f"'{data_name}' was computed with other pseudopotentials than the model's data, so that each element has "
            f"another zero of energy ({frames}). Fit one shift per element: --frame {SHIFT}"
        )
    return Agreement(kind, request.shift, True, f"energy frame: {frame.describe()}")


def _unknown(model: EnergyFrame, data: EnergyFrame, frames: str) -> str:
    """What to type where a term of either frame is unknown: everything at once."""
    whose, cures = [], []
    of_data = [term for term in TERMS if getattr(data, term) == "unknown"]
    of_model = [term for term in TERMS if getattr(model, term) == "unknown"]
    if of_data:
        whose.append(f"the data's {', '.join(of_data)}")
        cures.append(f"Declare what you know of the data: --frame {EXAMPLE_FRAME.declaration()}")
    if of_model:
        whose.append(f"the model's {', '.join(of_model)}")
        known = EXAMPLE_FRAME if of_data else data
        cures.append(
            "A model's frame is set at export. Export the checkpoint again with that of its training data, such as "
            f'--energy-frame "{known.declaration()}", or with what it was fine-tuned from, such as --base 7net-0'
        )
    cures.append(f"Or compare without a verdict: --frame {AS_IS}")
    verb = "is" if len(whose) == 1 else "are"
    return f"energies cannot be compared: {' and '.join(whose)} {verb} unknown ({frames}). {'. '.join(cures)}"


def same_zero(a: str, b: str) -> bool:
    """Whether two functionals, such as "PBE (MPtrj)" and "PBE (MatPES)", name data with one zero of energy.

    The remark in brackets says which data, and so which pseudopotentials. Where one side has none, its user vouches.
    """
    remarks = [set(re.findall(r"[\w-]+", remark.casefold())) for remark in (_remark(a), _remark(b))]
    return not all(remarks) or remarks[0] == remarks[1] or remarks[0] | remarks[1] <= MATERIALS_PROJECT


def differing_terms(a: EnergyFrame, b: EnergyFrame, compositions: Iterable[frozenset[str]]) -> list[str]:
    """Terms in which two known frames differ for structures of these elements."""
    compositions = list(compositions)
    has_u = any(elements & U_METALS and elements & U_ANIONS for elements in compositions)
    compounds = any(len(elements) > 1 for elements in compositions)
    differ = []
    for term in TERMS:
        values = {_plain(getattr(frame, term)) for frame in (a, b)}
        if len(values) == 1 or "unknown" in values:
            continue
        # A U or a correction for compounds that touches none of the structures leaves their energies alone.
        if term == "hubbard_u" and not has_u and values <= U_SCHEMES:
            continue
        if term == "corrections" and not compounds and values <= {"none", "mp2020"}:
            continue
        differ.append(term)
    return differ


def _plain(term: str) -> str:
    """Without the remark in brackets: "PBE (MPtrj)" is PBE."""
    return term.partition("(")[0].strip().casefold()


def _remark(term: str) -> str:
    return term.partition("(")[2].rstrip(") ")
