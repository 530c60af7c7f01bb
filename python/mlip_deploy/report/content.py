"""What a page shows beside text: verdicts and curves."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["pass", "fail", "expected-fail", "not-applicable", "not-tested", "refused", "not-supported"]
"""The last two are of conformance: stopped with a message, and no such feature."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Series(_Strict):
    label: str
    x: list[float]
    y: list[float]
    style: Literal["line", "points", "reference"] = "line"
    """reference: what the others are to be compared with"""


class Curve(_Strict):
    """A plot of the report."""

    title: str
    x_label: str
    y_label: str
    series: list[Series]
    diagonal: bool = False
    """draw y = x, for parity plots"""
    logarithmic: bool = False
    """both axes"""
