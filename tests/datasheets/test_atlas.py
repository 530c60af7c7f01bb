"""Several models on one page: who is best, what no model beats, what is missing; and a whole atlas of two toys."""

from pathlib import Path

import atlas_records
import pages
import pytest
from toy_models import export

import mlip_deploy
from mlip_deploy.cli.main import main
from mlip_deploy.datasheets import atlas as atlases
from mlip_deploy.datasheets.atlas_page import leaders, page, pareto
from mlip_deploy.datasheets.evidence import Atlas, Found, Number
from mlip_deploy.datasheets.pieces import PIECES
from mlip_deploy.errors import MLIPError


def test_the_front_is_what_no_other_beats() -> None:
    points = [(1.0, 5.0), (2.0, 3.0), (3.0, 3.0), (4.0, 1.0), (2.0, 9.0), (5.0, 1.0)]
    assert pareto(points) == [(1.0, 5.0), (2.0, 3.0), (4.0, 1.0)]


def test_leaders_and_those_that_are_not_told_from_them() -> None:
    html = page(atlas_records.atlas())
    row = f"<td>dynamics</td><td>exact</td><td>0.1 eV/Å</td><td>neither</td><td>{atlas_records.ERROR}</td>"
    assert row in html  # the intervals of "exact" and "neither" overlap, that of "fast" is apart
    row = f"<td>long runs</td><td>fast</td><td>10 µs</td><td>–</td><td>{atlas_records.COST}</td>"
    assert row in html
    assert html.count("nobody looked") == 3 * (len(PIECES) - 2), "missing evidence is shown as missing"
    assert "the process ended" in html


def test_who_leads_by_ratios_and_by_costs() -> None:
    def best(piece: str, quantity: str, unit: str, better: str, values: list[float]) -> list[str]:
        sheets = []
        for name, value in zip(atlas_records.MODELS, values, strict=True):
            sheet = atlas_records.sheet(name)
            number = Number(quantity=quantity, value=value, unit=unit, better=better)
            found = Found(said="something", numbers=[number])
            evidence = [one.model_copy(update={"found": found}) for one in sheet.evidence if one.piece == piece]
            sheets.append(sheet.model_copy(update={"evidence": evidence}))
        (row,) = leaders(Atlas(sheets=sheets, failures={}, relatives=[], flags=[]))
        return row[1:4]

    assert best("forces", "slope of forces", "", "one", [1.3, 0.6, 0.9]) == ["neither", "0.9", "–"]
    assert best("cost", atlas_records.COST, "µs", "low", [100.0, 114.0, 116.0]) == ["fast", "100 µs", "exact"]
    assert best("cost", atlas_records.COST, "µs", "low", [109.0, 100.0, 101.0])[0] == "no difference shown"


def test_what_all_models_share_is_drawn_once() -> None:
    from mlip_deploy.datasheets.atlas_page import _overlaid

    (plot,) = _overlaid(atlas_records.atlas())
    assert [(series.label, series.style) for series in plot.series] == [
        *((name, "line") for name in atlas_records.MODELS),
        ("known", "reference"),
    ]


def test_labels_that_models_of_two_families_disbelieve() -> None:
    def of(name: str, family: str, errors: dict[str, float]):
        sheet = atlas_records.sheet(name)
        evidence = next(one for one in sheet.evidence if one.piece == "forces")
        found = evidence.found.model_copy(update={"errors": errors})
        return sheet.model_copy(
            update={
                "identity": sheet.identity.model_copy(update={"family": family}),
                "evidence": [evidence.model_copy(update={"piece": "crystals", "found": found})],
            }
        )

    errors = {f"crystal {k}": 0.01 for k in range(9)} | {"wrong": 0.5}
    others = {f"crystal {k}": -0.01 for k in range(9)} | {"wrong": 0.52, "unknown to the first": 9.0}
    (flag,) = atlases._flags([of("fast", "a", errors), of("exact", "b", others)])
    assert (flag.reference, flag.frame) == ("crystals", "wrong")
    assert flag.label_against_models == pytest.approx(0.5)
    assert atlases._flags([of("fast", "a", errors), of("exact", "a", others)]) == []


@pytest.fixture(scope="module")
def files(toy_local: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [toy_local, export(tmp_path_factory.mktemp("toys") / "other.mlip.pt", "local", cutoff=3.92)]


def test_an_atlas_of_two_models(files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["atlas", *files, "--pieces", "elements,carries", "-o", tmp_path]
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr()
    assert "[2/2] other (about" in said.err
    assert "toy-local: [1/2] elements" in said.err, "what a model's own process says comes through"
    assert "toy-local.mlip.pt: 2 pieces of evidence; missing: pairs, " in said.out
    found = Atlas.model_validate_json((tmp_path / "atlas.json").read_text())
    assert [sheet.identity.file for sheet in found.sheets] == [path.name for path in files]
    (family,) = found.relatives
    assert family.models == ["toy-local", "other"]
    assert family.forces[0][0] == family.forces[1][1] == 0.0
    assert family.forces[0][1] > 0.0
    assert page(found) == (tmp_path / "atlas.html").read_text()
    for name in family.models:
        assert (tmp_path / name / "datasheet.html").exists()


def test_a_model_whose_process_ends_keeps_its_other_evidence(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*arguments: object, **keywords: object) -> None:
        raise MLIPError("a process of the measurement ended with status -9")

    mlip_deploy.datasheet(files[0], out=tmp_path / "toy-local", pieces=["carries"])
    monkeypatch.setattr(atlases, "in_process", crash)
    found = mlip_deploy.atlas(files, out=tmp_path)
    assert set(found.failures) == {path.name for path in files}
    assert [one.piece for one in found.sheets[0].evidence if one.found] == ["carries"]
    assert [one.piece for one in found.sheets[1].evidence if one.found] == []
    assert "status -9" in found.relatives[0].reason


def test_wrong_input_is_named(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(MLIPError, match=r"two artifacts or more\. For one, type: mlip datasheet"):
        mlip_deploy.atlas(files[:1], out=tmp_path)
    with pytest.raises(MLIPError, match="two files are called 'toy-local'"):
        mlip_deploy.atlas([files[0], files[0]], out=tmp_path)
    with pytest.raises(MLIPError, match="no such file"):
        mlip_deploy.atlas([files[0], tmp_path / "nothing.mlip.pt"], out=tmp_path)


def test_the_page_lists_the_pieces() -> None:
    text = (pages.DOCS / "atlas.md").read_text()
    for piece in PIECES.values():
        assert f"| `{piece.name}` | {piece.question} | {piece.measures} | {piece.not_tested} |" in text
