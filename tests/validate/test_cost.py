"""The cost of a step is measured in every engine, each in a process of its own."""

import pytest

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.engines import ENGINES
from mlip_deploy.validation.case import Context
from mlip_deploy.validation.cost import REPEATS, cases


@pytest.fixture(scope="module")
def outcome(toy_local, tmp_path_factory):
    context = Context(artifact=Artifact(toy_local), engine="ase", directory=tmp_path_factory.mktemp("cost"))
    (case,) = cases(context)
    lines = []
    return case.run(context, lines.append), lines


def test_every_engine_takes_time_and_memory(outcome):
    found, lines = outcome
    (curve,) = found.curves
    assert [series.label for series in curve.series] == list(ENGINES)
    assert [line.split(":")[0] for line in lines] == list(ENGINES)
    for series in curve.series:
        assert len(series.x) == len(REPEATS)
        assert series.x == sorted(set(series.x))
        assert min(series.y) > 0.0
    values = {check.quantity: check.value for check in found.checks}
    largest = int(curve.series[0].x[-1])
    for engine in ENGINES:
        assert values[f"{engine}: one step, per atom"] == pytest.approx(
            values[f"{engine}: one step of {largest} atoms"] / largest
        )
        assert f"{engine}: growth of the peak of memory, per atom" in values


def test_nothing_of_it_is_judged(outcome):
    found, _ = outcome
    assert {(check.verdict, check.threshold) for check in found.checks} == {("not-applicable", None)}
    assert "Measured on" in found.notes[0]
