"""What a comparison of models found."""

from __future__ import annotations

from pydantic import BaseModel

from mlip_deploy.comparison.audit import Flag
from mlip_deploy.comparison.cross import CrossPrediction
from mlip_deploy.report.content import Curve


class Row(BaseModel):
    """One number of every model."""

    case: str
    quantity: str
    unit: str
    values: list[float | None]
    verdicts: list[str]


class ModelComparison(BaseModel):
    """Several artifacts side by side."""

    models: list[str]
    files: list[str]
    sha256: list[str]
    frames: list[str]
    """energy frame of each"""
    engine: str
    rows: list[Row]
    curves: list[Curve]
    notes: list[str]
    cross_prediction: CrossPrediction
    flags: list[Flag]
