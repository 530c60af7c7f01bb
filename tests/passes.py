"""One statement for tests that hold a file to its original."""

from collections.abc import Sequence
from pathlib import Path

from mlip_deploy.validation.fidelity import FidelityReport, check


def assert_passes(path: Path, engines: Sequence[str], ranks: Sequence[int]) -> FidelityReport:
    """`mlip check` passes; the failure names what does not, structure by structure."""
    report = check(path, engines, ranks)
    failed = [f"{c.engine} {c.ranks} {c.structure}: {c.reason}" for c in report.comparisons if c.verdict == "fail"]
    assert report.passed, [*failed, report.parts]
    return report
