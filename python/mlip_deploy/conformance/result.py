"""What `mlip conform` found, as it is stored."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from mlip_deploy.conformance.probe import verdict
from mlip_deploy.report.content import Verdict
from mlip_deploy.validation.case import Outcome

SHOWN: tuple[Verdict, ...] = (
    "pass",
    "refused",
    "expected-fail",
    "fail",
    "not-supported",
    "not-applicable",
    "not-tested",
)


class Conformance(BaseModel):
    """Every probe of one potential in one engine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str
    potential: str
    description: dict[str, Any]
    """commands, files by digest, versions"""
    structure: str
    noise: dict[str, float]
    """largest difference over translated and hardly displaced copies, eV and Å"""
    outcomes: list[Outcome]
    seconds: dict[str, float]
    """of each probe"""

    def verdicts(self) -> dict[str, Verdict]:
        """Of each probe."""
        return {outcome.case: verdict(outcome) for outcome in self.outcomes}

    @property
    def verdict(self) -> Literal["pass", "fail"]:
        """Is "fail" if a probe failed, or if none showed anything."""
        kinds = set(self.verdicts().values())
        return "pass" if kinds & {"pass", "refused", "expected-fail"} and "fail" not in kinds else "fail"

    @property
    def passed(self) -> bool:
        """Whether no probe failed, and some showed something."""
        return self.verdict == "pass"

    def summary(self) -> str:
        """One line, such as "22 pass, 2 refused, 0 fail"."""
        count = Counter(self.verdicts().values())
        always = ("pass", "refused", "fail")
        return ", ".join(f"{count[kind]} {kind}" for kind in SHOWN if kind in always or count[kind])

    def badge(self) -> str:
        """One line of JSON for a badge (shields.io/badges/endpoint-badge)."""
        color = "brightgreen" if self.passed else "red"
        count = Counter(self.verdicts().values())
        message = f"{count['pass']} pass, {count['refused']} refused, {count['fail']} fail"
        return json.dumps(
            {"schemaVersion": 1, "label": f"mlip conform {self.engine}", "message": message, "color": color}
        )
