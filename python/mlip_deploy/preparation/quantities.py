"""Numbers with units, as a user types them: "10ps", "0.5 fs", "1GPa", "300K", "2x2x2"."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from mlip_deploy.errors import MLIPError

TIME = {"fs": 1e-3, "ps": 1.0, "ns": 1e3}
"""ps"""
PRESSURE = {"bar": 1.0, "kbar": 1e3, "Pa": 1e-5, "MPa": 10.0, "GPa": 1e4, "atm": 1.01325}
"""bar"""
TEMPERATURE = {"K": 1.0}
"""K"""


def time(option: str, text: str | float) -> float:
    """Picoseconds, more than none.

    Raises
    ------
    MLIPError
        Without a unit, and for what is no time.
    """
    value = _quantity(option, text, TIME, "10ps", "", "")
    if value <= 0:
        raise MLIPError(f"{option} {text}: expected a positive time, such as 10ps")
    return value


def temperature(option: str, text: str | float) -> float:
    """Kelvin, more than none; the unit may be left out.

    Raises
    ------
    MLIPError
        For another unit and what is no temperature.
    """
    value = _quantity(option, text, TEMPERATURE, "300", "K", "")
    if value <= 0:
        raise MLIPError(f"{option} {text}: expected a positive temperature in K, such as 300")
    return value


def pressure(option: str, text: str | float) -> float:
    """Bar; only zero needs no unit.

    Raises
    ------
    MLIPError
        Without a unit, and for what is no pressure.
    """
    return _quantity(option, text, PRESSURE, "1bar", "", "bar")


def repeats(option: str, text: str) -> tuple[int, int, int]:
    """How often each cell vector is repeated, from "2x2x1".

    Raises
    ------
    MLIPError
        For anything but three positive numbers.
    """
    words = re.split(r"\s*[x×*, ]\s*", text.strip().lower())
    if len(words) != 3 or not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise MLIPError(f"{option} '{text}': expected three positive numbers, such as 2x2x2")
    a, b, c = map(int, words)
    return a, b, c


def one_of(option: str, word: str, known: Iterable[str]) -> str:
    """The word, if it is known.

    Raises
    ------
    MLIPError
        Names the known ones, and the one that was probably meant.
    """
    known = list(known)
    if word not in known:
        raise MLIPError(f"{option} '{word}' is not one of {', '.join(known)}{_suggestion(word, known)}")
    return word


def _suggestion(word: str, known: Iterable[str]) -> str:
    same = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), same, n=1, cutoff=0.5)
    return f". Did you mean {same[close[0]]}?" if close else ""


def _quantity(
    option: str, text: str | float, units: Mapping[str, float], example: str, default: str, of_zero: str
) -> float:
    """The number in the base unit.

    Args:
        default: the unit of a number alone, "" if there is none.
        of_zero: the same for the number zero.
    """
    found = re.fullmatch(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\W\d]*)\s*", str(text))
    if not found or not math.isfinite(float(found[1])):
        raise MLIPError(f"{option} '{text}': expected a number with a unit, such as {example}")
    number, unit = float(found[1]), found[2]
    unit = unit or default or (of_zero if number == 0 else "")
    if not unit:
        raise MLIPError(f"{option} {text}: in which unit? One of {', '.join(units)}, such as {option} {example}")
    if unit not in units:
        raise MLIPError(
            f"{option} '{text}': the unit '{unit}' is not one of {', '.join(units)}{_suggestion(unit, units)}"
        )
    return number * units[unit]
