"""One self-contained HTML page: verdict, plots, tables. No links to other files; all is readable without its script.

It is made for wide screens, phones and paper: a table scrolls by itself, and a long one is folded, with a search box.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, get_args

from mlip_deploy.report.content import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mlip_deploy.report.content import Curve

STYLE = """
:root { --text: #1c2330; --quiet: #5b6472; --line: #d5dae2; --back: #f3f5f8;
  --pass: #14713a; --open: #8a5a00; --fail: #b3261e; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 0 auto; padding: 1rem 1rem 3rem;
  color: var(--text); background: #fff; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; font-size: .9rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0; }
.verdict { border-left: .4rem solid; background: var(--back); padding: .7rem 1rem; margin: 1rem 0; }
.verdict strong { font-size: 1.15rem; }
.verdict ul { color: var(--text); font-weight: 400; margin: .3rem 0 0; padding-left: 1.2rem; }
/* a shadow where a table goes on beyond the edge */
.scroll { overflow-x: auto; margin: .5rem 0 1rem; background:
  linear-gradient(to right, #fff 40%, #fff0) left / 3rem 100% no-repeat local,
  linear-gradient(to left, #fff 40%, #fff0) right / 3rem 100% no-repeat local,
  linear-gradient(to right, #0003, #0000) left / .7rem 100% no-repeat scroll,
  linear-gradient(to left, #0003, #0000) right / .7rem 100% no-repeat scroll; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
.caption { color: var(--quiet); font-size: .92rem; margin: 1rem 0 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); }
th { white-space: nowrap; }
th button { font: inherit; color: inherit; background: none; border: none; padding: 0; cursor: pointer;
  text-align: inherit; white-space: normal; min-width: 6rem; }
th[aria-sort=ascending] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
td { min-width: 4rem; overflow-wrap: normal; }
td.long { min-width: min(13rem, 50vw); overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.pass, .refused { color: var(--pass); } .fail { color: var(--fail); font-weight: 600; }
.expected-fail, .open { color: var(--open); }
.not-applicable, .not-tested, .not-supported, .missing { color: var(--quiet); }
details { border: 1px solid var(--line); border-radius: .3rem; margin: .6rem 0; padding: 0 .8rem; }
summary { cursor: pointer; padding: .5rem 0; }
summary .count, .hits { color: var(--quiet); font-size: .9rem; margin-left: .5rem; }
input[type=search] { font: inherit; width: 16rem; max-width: 100%; padding: .2rem .5rem; border: 1px solid #9aa3b0;
  border-radius: .3rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: 1rem;
  align-items: end; }
figure { margin: 0; } figcaption { font-size: .92rem; font-weight: 600; }
img { width: 100%; max-width: 32rem; height: auto; }
pre { background: var(--back); padding: .8rem; margin: .5rem 0; overflow-x: auto; } p:has(+ pre) { margin-bottom: 0; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  details { border: none; padding: 0; } nav, input[type=search], .hits { display: none; }
  .scroll { overflow: visible; } td, td.long { min-width: 0; overflow-wrap: anywhere; } th { white-space: normal; }
  figure, tr, .verdict { break-inside: avoid; } h2, h3, summary { break-after: avoid; }
}
"""

SCRIPT = """
for (const part of document.querySelectorAll("details, .sortable")) {
  const boxes = [...part.querySelectorAll(":scope > input")], rows = part.querySelectorAll("tbody tr");
  const has = (row, box) => box.value.split(/\\s+/).filter(Boolean).every(word => box.name === "elements"
    ? row.dataset.elements.split(" ").includes(word) : row.textContent.toLowerCase().includes(word.toLowerCase()));
  for (const box of boxes) box.addEventListener("input", () => {
    for (const row of rows) row.hidden = !boxes.every(box => has(row, box));
    const shown = [...rows].filter(row => !row.hidden).length;
    part.querySelector(".hits").textContent = boxes.some(box => box.value) ? `${shown} of ${rows.length} rows` : "";
  });
}
for (const table of document.querySelectorAll(".sortable table")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const up = head.ariaSort !== "ascending";
    for (const other of heads) other.ariaSort = other === head ? (up ? "ascending" : "descending") : null;
    const text = row => row.cells[column].textContent, value = row => parseFloat(text(row));
    const numeric = [...body.rows].some(row => !isNaN(value(row)));
    body.append(...[...body.rows].sort((a, b) => numeric
      ? isNaN(value(a)) - isNaN(value(b)) || (value(a) - value(b)) * (up ? 1 : -1)  // what is missing stays last
      : text(a).localeCompare(text(b)) * (up ? 1 : -1)));
  }));
}
// on paper everything is open
const closed = new Set();
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not([open])")) { closed.add(part); part.open = true; }
});
addEventListener("afterprint", () => { for (const part of closed) part.open = false; closed.clear(); });
"""
"""Searches folded tables, row by row, sorts and filters, and opens what is folded where the page is printed."""

SEARCH = '<input type="search" placeholder="search" aria-label="search the rows"><span class="hits"></span>'
ELEMENTS = '<input type="search" name="elements" placeholder="elements: Fe O" aria-label="elements to be known"> '
LONG_TABLE = 12
"""Tables of more rows are folded."""
LONG_TEXT = 60
"""letters in a cell, which then gets a wider column"""


# Around what differs from run to run, such as timings. In a cell's text they are characters of no meaning of their own.
_OPEN, _CLOSE = "<!--measured-->", "<!--/measured-->"
_MARKS = {"\ue000": _OPEN, "\ue001": _CLOSE}


def measured(text: str) -> str:
    """Part of a cell or paragraph that differs from run to run."""
    return f"\ue000{text}\ue001"


def reproducible(page: str) -> str:
    """A page without what was marked as measured: the same bytes for the same inputs."""
    return re.sub(f"{_OPEN}.*?{_CLOSE}", "", page, flags=re.DOTALL)


def _escape(text: str) -> str:
    escaped = html.escape(text)
    for mark, comment in _MARKS.items():
        escaped = escaped.replace(mark, comment)
    return escaped


class Page:
    """Sections in the order in which they are added."""

    def __init__(self, title: str, introduction: str):
        self._title = title
        self._is_folded = False
        self._sections: dict[str, str] = {}
        self._parts = [f"<h1>{html.escape(title)}</h1><p>{html.escape(introduction)}</p>"]

    def verdict(self, text: str, kind: str, reasons: Sequence[str] = ()) -> None:
        """What the page comes to, in its colour: "pass", "open", "fail", or "neutral"."""
        items = f"<ul>{''.join(f'<li>{_escape(reason)}</li>' for reason in reasons)}</ul>" if reasons else ""
        self._parts.append(f'<div class="verdict {kind}"><strong>{_escape(text)}</strong>{items}</div>')

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Sections that differ from run to run."""
        self._parts.append(_OPEN)
        yield
        self._parts.append(_CLOSE)

    def heading(self, text: str) -> None:
        """Begin a section, to which `#its-words-like-this` leads."""
        place = re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")
        self._sections[place] = text
        self._parts.append(f'<h2 id="{place}">{html.escape(text)}</h2>')

    def subheading(self, text: str) -> None:
        self._parts.append(f"<h3>{html.escape(text)}</h3>")

    def paragraph(self, text: str) -> None:
        self._parts.append(f"<p>{_escape(text)}</p>")

    def items(self, texts: Sequence[str]) -> None:
        self._parts.append(f"<ul>{''.join(f'<li>{_escape(text)}</li>' for text in texts)}</ul>")

    @contextmanager
    def folded(self, summary: str, is_open: bool = False) -> Iterator[None]:
        """A part that a click opens, with a box that searches its tables if they are long.

        Parameters
        ----------
        summary
            What is shown of it while it is closed.
        is_open
            Whether it is open at first.
        """
        outer, self._parts = self._parts, []
        self._is_folded = True
        yield
        self._is_folded = False
        inner = "".join(self._parts)
        n_rows = inner.count("<tr>") - inner.count("<thead>")
        count = f'<span class="count">{n_rows} rows</span>' if n_rows > LONG_TABLE else ""
        summary = f"<summary>{_coloured(summary)}{count}</summary>"
        self._parts = [*outer, f"<details{' open' * is_open}>{summary}{SEARCH if count else ''}{inner}</details>"]

    def preformatted(self, text: str) -> None:
        self._parts.append(f"<pre>{html.escape(text)}</pre>")

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
        """Columns of numbers are set to the right with their headings; verdicts get their colour."""
        numbers = [_is_numeric([row[k] for row in rows if k < len(row)]) for k in range(len(headings))]
        head = "".join(_cell(text, number, "th") for text, number in zip(headings, numbers, strict=True))
        body = "".join(
            f"<tr>{''.join(_cell(text, number) for text, number in zip(row, numbers, strict=True))}</tr>"
            for row in rows
        )
        heads = f"<thead><tr>{head}</tr></thead>" if any(headings) else ""
        if len(rows) > LONG_TABLE and not self._is_folded:
            with self.folded(caption or ", ".join(headings)):
                self._parts.append(f'<div class="scroll"><table>{heads}<tbody>{body}</tbody></table></div>')
            return
        if caption:
            self._parts.append(f'<p class="caption">{_escape(caption)}</p>')
        self._parts.append(f'<div class="scroll"><table>{heads}<tbody>{body}</tbody></table></div>')

    def sortable(
        self, headings: Sequence[str], rows: Sequence[Sequence[str]], elements: Sequence[Sequence[str]]
    ) -> None:
        """A table that a click on a heading sorts, with one box that searches and one that keeps what has elements.

        Parameters
        ----------
        headings
            Of the columns.
        rows
            Texts; a number may be followed by others. What is no number in a column of numbers stays last.
        elements
            Chemical symbols of each row.
        """
        head = "".join(f'<th><button type="button">{_escape(text)}</button></th>' for text in headings)
        body = "".join(
            f'<tr data-elements="{" ".join(symbols)}">'
            f"{''.join(_cell(text, _is_number(text.partition(' ')[0])) for text in row)}</tr>"
            for row, symbols in zip(rows, elements, strict=True)
        )
        self._parts.append(
            f'<div class="sortable">{ELEMENTS}{SEARCH}<div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div></div>"
        )

    def figure(self, figure: Figure, caption: str) -> None:
        """The same bytes for the same figure: no date, and names inside the SVG that do not change."""
        from matplotlib import rc_context

        buffer = io.BytesIO()
        with rc_context({"svg.hashsalt": "mlip-deploy"}):
            figure.savefig(buffer, format="svg", dpi=130, bbox_inches="tight", metadata={"Date": None})
        data = base64.b64encode(buffer.getvalue()).decode()
        image = f'<img alt="{html.escape(caption)}" src="data:image/svg+xml;base64,{data}">'
        self._parts.append(f"<figure><figcaption>{html.escape(caption)}</figcaption>{image}</figure>")

    def curves(self, curves: Sequence[Curve]) -> None:
        """As many plots to a row as the screen is wide."""
        from matplotlib.figure import Figure

        if not curves:
            return
        self._parts.append('<div class="plots">')
        for curve in curves:
            figure = Figure(figsize=(4.2, 2.9), layout="constrained")
            _draw(figure.subplots(), curve)
            self.figure(figure, curve.title)
        self._parts.append("</div>")

    def html(self) -> str:
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self._title)}</title><style>{STYLE}</style></head>"
            f"<body>{self._parts[0]}{self._contents()}{''.join(self._parts[1:])}<script>{SCRIPT}</script></body></html>\n"
        )

    def _contents(self) -> str:
        """Links to the sections of a long page."""
        if len(self._sections) < MANY_SECTIONS:
            return ""
        links = (f'<a href="#{place}">{html.escape(text)}</a>' for place, text in self._sections.items())
        return f"<nav>{' '.join(links)}</nav>"


VERDICTS: tuple[Verdict, ...] = ("pass", "fail", "expected-fail", "not-applicable", "not-tested")
MANY_SECTIONS = 5
FEW_POINTS = 10
"""Up to so many are drawn large."""
MANY_POINTS = 2000
"""More than this are drawn as pixels, which keeps a page small."""


def _draw(axes: Axes, curve: Curve) -> None:
    for series in curve.series:
        if series.style == "points":
            axes.plot(
                series.x,
                series.y,
                ".",
                ms=3 if len(series.x) > FEW_POINTS else 9,
                label=series.label,
                rasterized=len(series.x) > MANY_POINTS,
            )
        elif series.style == "reference":
            axes.plot(series.x, series.y, "--", lw=1.0, color="#6b7483", label=series.label)
        else:
            axes.plot(series.x, series.y, lw=1.2, marker="." if curve.logarithmic else "", label=series.label)
    if curve.diagonal:
        values = [value for series in curve.series for value in (*series.x, *series.y)]
        if values:
            axes.plot([min(values), max(values)], [min(values), max(values)], color="#6b7483", lw=0.8, zorder=0)
    if curve.logarithmic:
        axes.loglog()
    axes.set_xlabel(curve.x_label, fontsize=9)
    axes.set_ylabel(curve.y_label, fontsize=9)
    axes.tick_params(labelsize=8, which="both")
    axes.grid(alpha=0.3)
    if any(series.label for series in curve.series):
        axes.legend(fontsize=7, ncols=1 if len(curve.series) < 6 else 2)


NOTHING = ("", "–", "-")
"""in place of a number"""


def _is_numeric(column: Sequence[str]) -> bool:
    """Whether a column holds numbers, and nothing else."""
    return any(_is_number(text) for text in column) and all(_is_number(text) or text in NOTHING for text in column)


def _is_number(text: str) -> bool:
    """Also one with its error: "293 ± 7"."""
    try:
        for part in text.split(" ± "):
            float(part)
    except ValueError:
        return False
    return True


def _coloured(text: str) -> str:
    """With verdicts in their colours, where they are words of their own."""
    return re.sub(rf"(?<![\\w-])({'|'.join(VERDICTS)})(?![\\w-])", r'<span class="\1">\1</span>', _escape(text))


def _cell(text: str, number: bool, tag: str = "td") -> str:
    if number:
        kind = "number"
    elif text in (*get_args(Verdict), "missing") and tag == "td":
        kind = text
    else:
        kind = "long" if len(text) > LONG_TEXT else ""
    return f'<{tag} class="{kind}">{_escape(text)}</{tag}>' if kind else f"<{tag}>{_escape(text)}</{tag}>"
