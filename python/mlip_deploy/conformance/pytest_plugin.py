"""`pytest --mlip-conform ENGINE`: each probe is a test, for the continuous integration of a potential's own project.

pytest --mlip-conform ase --mlip-potential mymodel.ase:calculator --mlip-structure si.cif
pytest --mlip-conform lammps --mlip-potential "pair_style mine; pair_coeff * * m.pt Si" --mlip-structure si.cif

pytest finds it by the entry point "pytest11"; without the option it does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mlip_deploy.validation.case import Outcome


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("mlip-conform", "probes of an interatomic potential (mlip conform)")
    group.addoption("--mlip-conform", metavar="ENGINE", help="lammps, openmm or ase: run each probe as a test")
    group.addoption("--mlip-potential", metavar="TEXT", help="commands of LAMMPS, or MODULE:FACTORY")
    group.addoption("--mlip-structure", metavar="FILE", help="a structure that the potential can run")
    group.addoption("--mlip-reference", metavar="ase:MODULE:FACTORY", help="the original, to compare with")
    group.addoption("--mlip-ranks", metavar="1,2", default="1,2", help="MPI ranks to compare (LAMMPS)")
    group.addoption("--mlip-thorough", action="store_true", help="also the long probes")


@pytest.hookimpl(trylast=True)
def pytest_collection(session: pytest.Session) -> None:
    """Say what is missing before anything runs."""
    if session.config.getoption("--mlip-conform"):
        for name in ("--mlip-potential", "--mlip-structure"):
            if not session.config.getoption(name):
                raise pytest.UsageError(f"--mlip-conform: add {name}, as in pytest --help")


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add a test for each probe of the engine."""
    engine = config.getoption("--mlip-conform")
    if not engine:
        return
    from mlip_deploy.conformance.probes import PROBES

    collector = _Probes.from_parent(session, name="mlip conform", nodeid=f"mlip-conform-{engine}")
    thorough = config.getoption("--mlip-thorough")
    names = [probe.name for probe in PROBES if engine in probe.engines and (thorough or not probe.thorough)]
    items.extend(_Probe.from_parent(collector, name=name) for name in names)


class _Probes(pytest.Collector):
    """Runs all probes at the first test, since the noise is measured once."""

    outcomes: dict[str, Outcome] | None = None

    def collect(self) -> Iterator[pytest.Item]:
        return iter(())

    def outcome(self, name: str) -> Outcome:
        if self.outcomes is None:
            import mlip_deploy

            option = self.config.getoption
            found = mlip_deploy.conform(
                option("--mlip-conform"),
                option("--mlip-potential"),
                option("--mlip-structure"),
                reference=option("--mlip-reference"),
                ranks=[int(word) for word in option("--mlip-ranks").split(",")],
                thorough=option("--mlip-thorough"),
            )
            self.outcomes = {outcome.case: outcome for outcome in found.outcomes}
        return self.outcomes[name]


class _Probe(pytest.Item):
    """One probe."""

    def runtest(self) -> None:
        from mlip_deploy.conformance.probe import verdict

        assert isinstance(self.parent, _Probes)
        outcome = self.parent.outcome(self.name)
        kind = verdict(outcome)
        checks = [check for check in outcome.checks if check.verdict == kind]
        reasons = [f"{c.quantity}: {c.value} > {c.threshold} {c.unit} {c.reason}" for c in checks]
        if kind == "fail":
            pytest.fail("\n".join([outcome.purpose, *reasons]), pytrace=False)
        if kind == "expected-fail":
            pytest.xfail(reasons[0])
        if kind not in ("pass", "refused"):
            pytest.skip(f"{kind}: {checks[0].reason if checks else ''}")

    def reportinfo(self) -> tuple[str, int | None, str]:
        return "mlip conform", None, f"mlip conform: {self.name}"
