"""The public names of mlip_deploy: typed, light until they are used, without side effects, with one error class."""

import argparse
import inspect
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import mlip_deploy
from mlip_deploy import _core
from mlip_deploy.cli.main import parser
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions
from mlip_deploy.exporters.settings import no_log, quiet

HEAVY = ("torch", "matplotlib", "scipy")


def loaded_by(code: str) -> set[str]:
    """Which of HEAVY, NumPy and ASE a fresh Python has imported after some code."""
    names = (*HEAVY, "numpy", "ase")
    end = f"\nimport json, sys\nprint('\\n' + json.dumps([name for name in {names} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code + end], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def command(*words: object) -> str:
    return (
        "from mlip_deploy.cli.main import main\n"
        f"try:\n    status = main({[str(word) for word in words]})\nexcept SystemExit as end:\n    status = end.code\n"
        "assert status == 0, status"
    )


def test_importing_is_light() -> None:
    assert loaded_by("import mlip_deploy") == set()
    assert loaded_by("import mlip_deploy as mlip; mlip.__version__; mlip.MLIPError; mlip.Contract") == set()
    assert "torch" in loaded_by("import mlip_deploy as mlip; mlip.MLIPCalculator"), "this test would see torch"


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["check", "--help"], ["export", "--list"]])
def test_commands_that_load_nothing(words: list[str]) -> None:
    assert loaded_by(command(*words)) == set()


def test_info_loads_no_framework(tiny: Path) -> None:
    assert not loaded_by(command("info", tiny)) & set(HEAVY)


def test_every_public_name_is_there_and_documented() -> None:
    for name in set(mlip_deploy.__all__) - {"__version__"}:
        public = getattr(mlip_deploy, name)
        assert public.__name__ == name
        assert public.__doc__, name
    assert set(mlip_deploy.__all__) <= set(dir(mlip_deploy))
    with pytest.raises(AttributeError, match="has no attribute 'exporting'"):
        mlip_deploy.exporting  # noqa: B018


def options_of(name: str) -> set[str]:
    """Where argparse stores the options of a command."""
    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {action.dest for action in commands.choices[name]._actions} - {"help"}


@pytest.mark.parametrize(
    ("name", "own", "keywords"),
    [
        ("export", {"list", "no_fuse"}, {"fuse"}),
        ("check", {"file", "json"}, {"path", "shuffled_ids"}),
        ("validate", {"file", "sign", "json"}, {"path"}),
        ("compare", {"json"}, set()),
        ("datasheet", {"json"}, set()),
        ("atlas", {"json"}, set()),
        ("prepare", set(), set()),
        ("run", {*options_of("prepare"), "json"}, {"prepared"}),
    ],
)
def test_keywords_are_the_options(name: str, own: set[str], keywords: set[str]) -> None:
    parameters = set(inspect.signature(getattr(mlip_deploy, name)).parameters) - {"progress", "note"}
    assert parameters - keywords == options_of(name) - own


def test_cxx_raises_the_error_of_python() -> None:
    with pytest.raises(mlip_deploy.MLIPError, match="no such file"):
        _core.Potential("nothing.mlip.pt")
    assert not hasattr(_core, "Error")


def test_the_calculator_refuses_what_it_does_not_know(tiny: Path) -> None:
    message = "has no option 'default_dtype', and tiny no such setting. It has: none"
    with pytest.raises(mlip_deploy.MLIPError, match=f"MLIPCalculator {message}"):
        mlip_deploy.MLIPCalculator(tiny, default_dtype="float64")
    with pytest.raises(mlip_deploy.MLIPError, match=rf"MLIPCalculator\.set\(\) {message}"):
        mlip_deploy.MLIPCalculator(tiny).set(default_dtype="float64")


@pytest.mark.parametrize(
    ("family", "option", "message"),
    [
        ("sevennet", "head", "--head PBE: sevennet models have modalities, not heads. Type: --modal PBE"),
        ("chgnet", "head", "--head PBE: chgnet models have no heads. Leave --head out"),
        ("nequip", "head", "--head PBE: nequip models have no heads. Leave --head out"),
        ("nequip", "modal", "--modal PBE: nequip models have no modalities. Leave --modal out"),
        ("sevennet", "member", "--member PBE: sevennet models have no members. Leave --member out"),
        ("ani", "head", "--head PBE: ani models have no heads. Leave --head out"),
        ("mace", "modal", "--modal PBE: mace models have heads, not modalities. Type: --head PBE"),
    ],
)
def test_a_variant_that_a_family_does_not_have(family: str, option: str, message: str) -> None:
    with pytest.raises(mlip_deploy.MLIPError, match=message):
        FAMILIES[family].adapt("x", ExportOptions(**{option: "PBE"}))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"engines": ["gromacs"]}, "'gromacs' is not one of ase, lammps, openmm"),
        ({"engines": []}, "--engines is empty"),
        ({"ranks": [0]}, "--ranks 0: expected numbers"),
        ({"device": "gpu"}, "device: 'gpu' is not one of cpu, cuda, cuda:N, auto"),
        ({"device": "cuda:99"}, "device: 'cuda:99' asked for, torch .* finds .* CUDA device"),
    ],
)
def test_check_finds_wrong_input_before_the_work(keywords: dict, message: str, tiny: Path) -> None:
    said: list[str] = []
    with pytest.raises(mlip_deploy.MLIPError, match=message):
        mlip_deploy.check(tiny, progress=said.append, **keywords)
    assert not said


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"suites": ["physics"], "record": True}, "--record: the suite.s. fidelity would not run"),
        ({"threads": -1}, "threads: expected a positive number"),
        ({"device": "gpu"}, "device: 'gpu' is not one of"),
        ({"out": "/proc/nowhere"}, "no file can be written in '/proc'"),
        ({"out": "FILE"}, "is a file. Name a folder"),
        ({"engine": "gromacs"}, "'gromacs' is not one of ase, lammps, openmm"),
    ],
)
def test_validate_finds_wrong_input_before_the_work(keywords: dict, message: str, tiny: Path, tmp_path: Path) -> None:
    out = keywords.pop("out", tmp_path / "out")
    out = tiny if out == "FILE" else out
    said: list[str] = []
    with pytest.raises(mlip_deploy.MLIPError, match=message):
        mlip_deploy.validate(tiny, out=out, progress=said.append, **keywords)
    assert not said
    assert not (tmp_path / "out").exists()


def test_a_recipe_without_its_package_is_found_before_the_work(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "phonopy", None)
    said: list[str] = []
    with pytest.raises(mlip_deploy.MLIPError, match=r"the recipe phonons needs phonopy. Type: pip install phonopy"):
        mlip_deploy.validate(tiny, ["properties"], out=tmp_path, engine="ase", elements=["Si"], progress=said.append)
    assert not said


def test_an_artifact_is_no_checkpoint(tiny: Path, tmp_path: Path) -> None:
    message = (
        r"tiny-float64.mlip.pt' is an artifact already: tiny \(sevennet\) in float64. Use it as it is, see: mlip info"
    )
    with pytest.raises(mlip_deploy.MLIPError, match=message):
        mlip_deploy.export("sevennet", tiny, tmp_path / "x.mlip.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("captured", [True, False])
def test_what_an_application_set_up_is_left_as_it_was(captured: bool) -> None:
    logging.captureWarnings(captured)
    shown, filters = warnings.showwarning, list(warnings.filters)
    half = vars(logging)["_warnings_showwarning"]
    try:
        with quiet():
            logging.captureWarnings(not captured)  # as a framework might
            warnings.simplefilter("error")
        assert warnings.showwarning is shown
        assert warnings.filters == filters
        assert vars(logging)["_warnings_showwarning"] is half
    finally:
        logging.captureWarnings(False)


@pytest.mark.parametrize("level", [logging.NOTSET, logging.INFO, logging.CRITICAL])
def test_disabled_logging_stays_disabled(level: int) -> None:
    logging.disable(level)
    try:
        with no_log():
            assert logging.root.manager.disable == max(level, logging.WARNING)
        assert logging.root.manager.disable == level
    finally:
        logging.disable(logging.NOTSET)


MISSING = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "openmm":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path.insert(0, Absent())
from mlip_deploy.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("engines", "status"), [("ase,openmm", 0), ("openmm", 1)])
def test_an_engine_that_is_missing_is_not_tested(engines: str, status: int, tiny: Path) -> None:
    words = ["check", str(tiny), "--engines", engines]
    done = subprocess.run([sys.executable, "-c", MISSING, *words], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert "not tested: openmm: openmm is not installed. Type: pip install openmm" in done.stdout
    assert "Traceback" not in done.stderr
    assert ("nothing was tested" in done.stderr) == (status == 1)
