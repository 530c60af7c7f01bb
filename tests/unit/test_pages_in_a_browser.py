"""Each kind of page, opened in headless Chromium: no errors, readable on a wide screen, a phone and paper."""

import importlib.util
import shutil

import atlas_records
import pytest
from ase.io import write
from conftest import EXAMPLES
from pair_potential import crystal

from mlip_deploy import prepare, run
from mlip_deploy.comparison.audit import Flag
from mlip_deploy.comparison.content import ModelComparison, Row
from mlip_deploy.comparison.cross import CrossPrediction, Disagreement
from mlip_deploy.comparison.page import page as comparison_page
from mlip_deploy.datasheets.atlas_page import page as atlas_page
from mlip_deploy.datasheets.sheet_page import page as sheet_page
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.validation.case import Outcome, judged, unmeasured
from mlip_deploy.validation.fidelity import Comparison, FidelityReport
from mlip_deploy.validation.report.summary import page as validation_page
from mlip_deploy.validation.run import Validation

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
WIDTHS = {"wide": 1280, "phone": 360}
"""pixels"""
LONG = "a long name that wants to be wrapped, " * 4
CURVE = Curve(title=LONG, x_label="time / ps", y_label="energy / eV", series=[Series(label="a", x=[0, 1], y=[1, 2])])


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium here. Type: apt-get install chromium-headless-shell")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def a_run(pair_potential, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write(folder / "cu.extxyz", crystal(2))
    return run(prepare("lammps", pair_potential, folder / "cu.extxyz", folder / "run", ensemble="nve", time="40fs"))


def of_a_run(a_run, tmp_path):
    from mlip_deploy.simulation.page import page

    return page(a_run)


def of_a_validation(a_run, tmp_path):
    checks = [judged(f"{LONG}{k}", 0.5 * k, 7.0, "eV/Å", LONG, f"atom {k}") for k in range(20)]
    outcomes = [
        Outcome(suite="physics", case=f"case {k}", engine="lammps", purpose=LONG, checks=checks[: 20 - 12 * k],
                curves=[CURVE], notes=[LONG])
        for k in range(2)
    ]  # fmt: skip
    outcomes.append(
        Outcome(suite="physics", case="other", engine="ase", purpose="", checks=[unmeasured("q", "not-tested", LONG)])
    )
    return validation_page(
        Validation(artifact="a.mlip.pt", content_sha256="0" * 64, model="a", dtype="float64", energy_frame=LONG,
                   model_elements=["Cu"], engine="lammps", suites=["physics"], elements=[], use=None, reference=[],
                   frame=None, versions={"torch": "2"}, verdict="fail", outcomes=outcomes)
    )  # fmt: skip


def of_a_comparison(a_run, tmp_path):
    models = ["one", "two"]
    rows = [Row(case="case", quantity=f"{LONG}{k}", unit="eV", values=[1.0, None], verdicts=[]) for k in range(30)]
    matrix = [[0.0, 1.0], [1.0, 0.0]]
    disagreement = [Disagreement(element="Cu", atoms=3, mean=0.1, largest=0.25, where="atom 3 of fcc Cu")]
    cross = CrossPrediction(forces=matrix, energies=matrix, structures=["fcc Cu"], disagreement=disagreement)
    flag = Flag(reference="set", frame=LONG, quantity="forces", unit="eV/Å", label_against_models=3.0,
                models_among_themselves=0.5)  # fmt: skip
    return comparison_page(
        ModelComparison(models=models, files=models, sha256=["0" * 64] * 2, frames=["none", LONG], engine="ase",
                        rows=rows, curves=[CURVE], notes=["warning: energy frames differ"], cross_prediction=cross,
                        flags=[flag])
    )  # fmt: skip


def of_the_demo(a_run, tmp_path):
    spec = importlib.util.spec_from_file_location("demo", EXAMPLES / "demo.py")
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    comparisons = [
        Comparison(engine="ase", ranks=1, structure=f"{LONG}{k}", n_atoms=2, verdict="pass", forces=1e-9)
        for k in range(20)
    ]
    report = FidelityReport(artifact="a", sha256="0" * 64, model="a", dtype="float64", reference="sevenn",
                            tolerance_energy_per_atom=1e-9, tolerance_isolated_atom=1e-9, tolerance_forces=1e-9,
                            tolerance_stress=1e-9, comparisons=comparisons)  # fmt: skip
    (tmp_path / "lammps").mkdir()
    (tmp_path / "lammps" / "output.txt").write_text(
        f"pair_style mlip\n  model    {LONG}\npair_style mlip: 3 evaluations"
    )
    demo.Demo(tmp_path, steps=2, threads=1).write_report([report], [a_run])
    return (tmp_path / "report.html").read_text()


def of_a_datasheet(a_run, tmp_path):
    return sheet_page(atlas_records.sheet("fast", LONG))


def of_an_atlas(a_run, tmp_path):
    return atlas_page(atlas_records.atlas(LONG))


PAGES = {
    "datasheet": of_a_datasheet,
    "atlas": of_an_atlas,
    "run": of_a_run,
    "validation": of_a_validation,
    "comparison": of_a_comparison,
    "demo": of_the_demo,
}


@pytest.mark.parametrize("kind", PAGES)
def test_pages(kind, browser, a_run, tmp_path):
    (tmp_path / "page.html").write_text(PAGES[kind](a_run, tmp_path))
    for name, width in WIDTHS.items():
        page = browser.new_page(viewport={"width": width, "height": 800}, is_mobile=name == "phone")
        said, asked = [], []
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("pageerror", lambda error, said=said: said.append(str(error)))
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.goto((tmp_path / "page.html").as_uri())
        assert page.locator(".verdict").bounding_box()["y"] < 800, "the verdict is on the first screen"
        plot, table = page.locator("img").first.bounding_box(), page.locator("table").last.bounding_box()
        assert 250 < plot["width"] <= width
        assert plot["y"] < table["y"], "plots come before the long tables"
        page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{kind} overflows on a {name}"
        assert said == []
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        page.close()


def test_a_search_leaves_the_rows_that_match(browser, tmp_path):
    (tmp_path / "page.html").write_text(of_a_comparison(None, tmp_path))
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    box, rows = page.locator("input[type=search]"), page.locator("details tbody tr")
    assert not box.is_visible(), "long tables are folded"
    page.locator("summary").click()
    box.fill("WRAPPED, 17")
    assert rows.locator("visible=true").count() == 1
    assert page.locator(".hits").inner_text() == "1 of 30 rows"
    box.fill("")
    assert rows.locator("visible=true").count() == 30
    page.close()


def test_a_table_is_sorted_by_its_headings_and_keeps_what_has_the_elements(browser, tmp_path):
    (tmp_path / "page.html").write_text(of_an_atlas(None, tmp_path))
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())

    def models():
        rows = page.locator(".sortable tbody tr").locator("visible=true")
        return [row.split("\t")[0] for row in rows.all_inner_texts()]

    cost = page.locator(".sortable th button", has_text="µs")
    cost.click()
    assert models() == ["fast", "exact", "neither"]
    cost.click()
    assert models() == ["neither", "exact", "fast"]
    page.locator(".sortable th button", has_text="model").first.click()
    assert models() == ["exact", "fast", "neither"]
    elements, words = page.locator(".sortable input").all()
    elements.fill("Si Fe")
    assert models() == ["exact"]
    assert page.locator(".sortable .hits").inner_text() == "1 of 3 rows"
    elements.fill("Si")
    words.fill("NEITHER")
    assert models() == ["neither"]
    page.close()


def test_paper_shows_what_is_folded(browser, tmp_path):
    (tmp_path / "page.html").write_text(of_a_comparison(None, tmp_path))
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details tbody tr").last.is_visible()
    assert not page.locator("input[type=search]").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    page.close()
