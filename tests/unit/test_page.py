"""Tables of a page: a heading stands over its column."""

from mlip_deploy.report.page import Page


def test_headings_stand_over_their_columns():
    page = Page("title", "introduction")
    rows = [["a", "1.5e-3", "eV", "2"], ["b", "–", "", "none"], ["c", "2", "", ""]]
    page.table(["name", "value", "unit", "mixed"], rows)
    text = page.html()
    assert '<th>name</th><th class="number">value</th><th>unit</th><th>mixed</th>' in text
    assert '<td>a</td><td class="number">1.5e-3</td><td>eV</td><td>2</td>' in text
    assert '<td>b</td><td class="number">–</td><td></td><td>none</td>' in text


def test_verdicts_have_their_colour():
    page = Page("title", "introduction")
    page.table(["pass"], [["pass"], ["fail"]])
    text = page.html()
    assert "<thead><tr><th>pass</th></tr></thead>" in text
    assert '<tbody><tr><td class="pass">pass</td></tr><tr><td class="fail">fail</td>' in text
