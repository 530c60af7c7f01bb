"""`mlip validate`: an interrupted run goes on, the report is the same for the same inputs, wrong input is named."""

import json
from dataclasses import replace

import pytest
from conftest import mlip

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.artifact.tolerances import FLOAT64
from mlip_deploy.errors import MLIPError
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.report.page import reproducible
from mlip_deploy.validation import fidelity
from mlip_deploy.validation import run as run_module
from mlip_deploy.validation.case import Case, Check, Context, Outcome
from mlip_deploy.validation.report.summary import page
from mlip_deploy.validation.run import validate


def check(verdict="pass", value=0.25, **further):
    return Check(quantity="q", value=value, unit="eV", threshold=0.5, source="s", verdict=verdict, **further)


def outcome(name, *checks):
    curve = Curve(title="a curve", x_label="x", y_label="y", series=[Series(label="one", x=[0, 1], y=[1, 2])])
    return Outcome(
        suite="physics", case=name, engine="ase", purpose="p", checks=list(checks) or [check()], curves=[curve]
    )


@pytest.fixture
def context(tiny, tmp_path):
    return Context(artifact=Artifact(tiny), engine="ase", directory=tmp_path / "out")


@pytest.fixture
def suite(monkeypatch):
    """Replaces the cases of the suite physics; counts how often each one runs."""
    ran = []

    def use(**bodies):
        def case(name, body):
            def run(context, progress):
                ran.append(name)
                return body()

            return lambda suite: Case(suite, name, "p", run)

        cases = [case(name, body) for name, body in bodies.items()]
        monkeypatch.setattr(run_module, "_cases", lambda suite, context: ([c(suite) for c in cases], "no case applies"))
        return ran

    return use


def interrupt():
    raise KeyboardInterrupt


def test_an_interrupted_run_goes_on(suite, context):
    ran = suite(first=lambda: outcome("first"), second=interrupt)
    with pytest.raises(KeyboardInterrupt):
        validate(context, ["physics"])
    lines = []
    suite(first=lambda: outcome("first"), second=lambda: outcome("second"))
    found = validate(context, ["physics"], lines.append)
    assert ran == ["first", "second", "second"], "the first one had been stored"
    assert [o.case for o in found.outcomes] == ["first", "second"]
    assert lines == ["[1/2] physics: first (stored)", "[2/2] physics: second"]


@pytest.mark.parametrize(
    ("suite_name", "change", "again"),
    [
        ("fidelity", {"engine": "lammps", "elements": ["Na"], "frame": "raw"}, False),
        ("physics", {"engine": "lammps"}, True),
        ("physics", {"elements": ["Na"]}, True),
        ("physics", {"reference": ["data.extxyz"], "use": "brine"}, False),
        ("reference", {"frame": "raw"}, True),
        ("reference", {"reference": ["data.extxyz"]}, True),
    ],
)
def test_arguments_that_matter_run_again(suite_name, change, again, suite, context):
    ran = suite(only=lambda: outcome("only"))
    validate(context, [suite_name])
    validate(context, [suite_name])
    assert ran == ["only"]
    validate(replace(context, **change), [suite_name])
    assert ran == ["only", "only"][: 1 + again]


def test_a_changed_reference_file_runs_again(suite, context):
    data = context.directory.parent / "data.extxyz"
    context = replace(context, reference=[str(data)])
    ran = suite(only=lambda: outcome("only"))
    for text in ("1", "1", "2"):
        data.write_text(text)
        validate(context, ["reference"])
    assert ran == ["only", "only"]


def test_two_cases_of_one_name_are_named(suite, context):
    suite(**{"a b": lambda: outcome("a b"), "a  b": lambda: outcome("a  b")})
    with pytest.raises(MLIPError, match=r"two cases would be called 'a b'. Rename one of the files"):
        validate(context, ["physics"])


def test_half_a_stored_outcome_runs_again(suite, context):
    ran = suite(only=lambda: outcome("only"))
    validate(context, ["physics"])
    stored = context.directory / "cases" / "physics" / "only.json"
    stored.write_text(stored.read_text()[:40])
    validate(context, ["physics"])
    assert ran == ["only", "only"]


def test_verdicts(suite, context):
    suite(
        good=lambda: outcome("good", check(), check("expected-fail", reason="known")),
        other=lambda: outcome("other", check("not-applicable", None), check("not-tested", None)),
    )
    assert validate(context, ["physics"]).verdict == "pass"
    suite(bad=lambda: outcome("bad", check(), check("fail", 1.0)))
    assert validate(context, ["physics"]).verdict == "fail"
    suite(nothing=lambda: outcome("nothing", check("not-applicable", None)))
    assert validate(context, ["physics"]).verdict == "fail", "nothing was shown"


def test_no_cases_is_not_tested(suite, context):
    suite()
    found = validate(context, ["physics"])
    assert found.verdict == "fail"
    assert found.outcomes[0].checks[0].verdict == "not-tested"


def test_the_report_is_the_same_for_the_same_inputs(suite, context):
    suite(bad=lambda: outcome("bad", check(), check("fail", 1.0, reason="the <reason>")))
    pages, numbers = [], []
    for name in ("a", "b"):
        one = replace(context, directory=context.directory / name)
        pages.append(page(validate(one, ["physics"])))
        numbers.append((one.directory / "validation.json").read_bytes())
    assert pages[0] == pages[1]
    assert numbers[0] == numbers[1]
    assert "the &lt;reason&gt;" in pages[0]
    assert "data:image/svg+xml;base64," in pages[0]
    assert pages[0].count("<script") == 1, "the page's own alone"
    assert "http" not in pages[0].split("base64,")[0]
    for question in ("minimal definition", "better models", "Long range", "New physics", "Scale", "How do we know"):
        assert question in pages[0]
    stored = json.loads(numbers[0])["outcomes"][0]["checks"][1]
    assert stored == {
        "quantity": "q",
        "value": 1.0,
        "unit": "eV",
        "threshold": 0.5,
        "source": "s",
        "verdict": "fail",
        "reason": "the <reason>",
    }


def test_what_a_clock_says_stays_out_of_what_is_the_same(context, monkeypatch):
    """The cost of a step is in the page, marked, and in timing.json; the rest is the same in every run."""
    pages, numbers = [], []
    for milliseconds in (3.25, 4.75):
        measured = outcome("time", check("not-applicable", milliseconds)).model_copy(update={"suite": "cost"})
        found = {"physics": outcome("sound"), "cost": measured}

        def one_case(suite, context, found=found):
            return [Case(suite, found[suite].case, "p", lambda *_: found[suite])], ""

        monkeypatch.setattr(run_module, "_cases", one_case)
        one = replace(context, directory=context.directory / str(milliseconds))
        pages.append(page(validate(one, ["physics", "cost"])))
        numbers.append((one.directory / "validation.json").read_bytes())
        assert str(milliseconds) in (one.directory / "timing.json").read_text()
        assert pages[-1].count(f"{milliseconds:.3g}") >= 1
    assert numbers[0] == numbers[1]
    assert pages[0] != pages[1]
    assert reproducible(pages[0]) == reproducible(pages[1])
    assert "Physics: does the served potential" in reproducible(pages[0])
    assert "Cost: what differs" not in reproducible(pages[0])


def test_fidelity_shows_the_forces_that_it_compared(context):
    (curve,) = fidelity.cases(context)[0].run(context, lambda _: None).curves
    original, engine = curve.series[0].x, curve.series[0].y
    assert len(original) == 3 * sum(len(structure.symbols) for structure in context.artifact.fixtures().structures)
    assert engine == pytest.approx(original, abs=FLOAT64.forces)
    assert curve.diagonal


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL", "--suite", "cost"], "--suites cost measures and judges nothing. Add a suite, such as fidelity"),
        (["nothing.mlip.pt"], "no such file"),
        (
            ["MODEL", "--suite", "fidelity,alchemy"],
            "'alchemy' is not one of fidelity, physics, reference, properties, cost",
        ),
        (["MODEL", "--recipes", "nowhere"], "--recipes nowhere: no such folder"),
        (["MODEL", "--suite", ","], "--suites is empty. Name some of fidelity, physics"),
        (
            ["MODEL", "--elements", "Na,Xx"],
            "--elements Na,Xx: 'Xx' is not an element of tiny (6 elements, see: mlip info",
        ),
    ],
)
def test_wrong_input(arguments, message, tiny, tmp_path):
    done = mlip("validate", *[tiny if word == "MODEL" else word for word in arguments], "-o", tmp_path / "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_as_output_is_named(tiny, tmp_path):
    (tmp_path / "out").write_text("mine")
    done = mlip("validate", tiny, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "is a file. Name a folder" in done.stderr


def test_recording_needs_both_suites(suite, context):
    suite(only=lambda: outcome("only"))
    found = validate(context, ["physics"])
    with pytest.raises(MLIPError, match=r"--record: the suite.s. fidelity did not run. Type: .*--suite fidelity"):
        found.record()
