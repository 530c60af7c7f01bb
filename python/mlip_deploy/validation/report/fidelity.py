"""The fidelity part of a report: every comparison of `mlip check` as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlip_deploy.report.page import Page
from mlip_deploy.validation.fidelity import FidelityReport

if TYPE_CHECKING:
    from mlip_deploy.validation.fidelity import FidelityReport


def add_fidelity(page: Page, report: FidelityReport) -> None:
    """The parity table of one artifact, one row for each structure in each engine."""

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.1e}"

    page.table(
        ["engine", "ranks", "structure", "atoms", "ΔE / eV/atom", "ΔE_i / eV", "ΔF / eV/Å", "Δσ / eV/Å³", "verdict"],
        [
            [
                c.engine,
                str(c.ranks),
                c.structure,
                str(c.n_atoms),
                number(c.energy_per_atom),
                number(c.atomic_energies),
                number(c.forces),
                number(c.stress),
                c.verdict,
            ]
            for c in report.comparisons
        ],
        caption=(
            f"{report.artifact} ({report.dtype}, sha256 {report.sha256[:12]}…) against {report.reference} in float64. "
            f"Tolerances: {report.tolerance_energy_per_atom:.1e} eV/atom "
            f"({report.tolerance_isolated_atom:.1e} eV for an isolated atom), {report.tolerance_forces:.1e} eV/Å, "
            f"{report.tolerance_stress:.1e} eV/Å³."
        ),
    )
