"""One self-contained HTML page: tables, plots, versions. No scripts, no links to other files."""

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
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2330; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; font-size: .92rem; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid #d5dae2; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.pass { color: #14713a; } .fail { color: #b3261e; font-weight: 600; } .expected-fail { color: #8a5a00; }
.refused { color: #14713a; }
.not-applicable, .not-tested, .not-supported { color: #6b7483; }
img { max-width: 100%; } pre { background: #f3f5f8; padding: .8rem; overflow-x: auto; }
caption { text-align: left; color: #4a5568; }
"""


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
        self._parts = [f"<h1>{html.escape(title)}</h1><p>{html.escape(introduction)}</p>"]

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Sections that differ from run to run."""
        self._parts.append(_OPEN)
        yield
        self._parts.append(_CLOSE)

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def subheading(self, text: str) -> None:
        self._parts.append(f"<h3>{html.escape(text)}</h3>")

    def paragraph(self, text: str) -> None:
        self._parts.append(f"<p>{_escape(text)}</p>")

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
        legend = f"<caption>{html.escape(caption)}</caption>" if caption else ""
        self._parts.append(f"<table>{legend}<tr>{head}</tr>{body}</table>")

    def figure(self, figure: Figure, description: str) -> None:
        """The same bytes for the same figure: no date, and names inside the SVG that do not change."""
        from matplotlib import rc_context

        buffer = io.BytesIO()
        with rc_context({"svg.hashsalt": "mlip-deploy"}):
            figure.savefig(buffer, format="svg", dpi=130, bbox_inches="tight", metadata={"Date": None})
        data = base64.b64encode(buffer.getvalue()).decode()
        self._parts.append(f'<img alt="{html.escape(description)}" src="data:image/svg+xml;base64,{data}">')

    def curves(self, curves: Sequence[Curve]) -> None:
        """Two plots to a row."""
        from matplotlib.figure import Figure

        if not curves:
            return
        rows = (len(curves) + 1) // 2
        columns = min(2, len(curves))
        figure = Figure(figsize=(4.6 * columns, 3.3 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes, curve in zip(grid, curves, strict=False):
            _draw(axes, curve)
        for axes in list(grid)[len(curves) :]:
            axes.set_visible(False)
        self.figure(figure, "; ".join(curve.title for curve in curves))

    def html(self) -> str:
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(self._title)}</title>'
            f"<style>{STYLE}</style></head><body>{''.join(self._parts)}</body></html>\n"
        )


VERDICTS: tuple[Verdict, ...] = ("pass", "fail", "expected-fail", "not-applicable", "not-tested")
MANY_POINTS = 2000
"""More than this are drawn as pixels, which keeps a page small."""


def _draw(axes: Axes, curve: Curve) -> None:
    for series in curve.series:
        if series.style == "points":
            axes.plot(series.x, series.y, ".", ms=3, label=series.label, rasterized=len(series.x) > MANY_POINTS)
        else:
            axes.plot(series.x, series.y, lw=1.2, marker="." if curve.logarithmic else "", label=series.label)
    if curve.diagonal:
        values = [value for series in curve.series for value in (*series.x, *series.y)]
        if values:
            axes.plot([min(values), max(values)], [min(values), max(values)], color="#6b7483", lw=0.8, zorder=0)
    if curve.logarithmic:
        axes.loglog()
    axes.set_title(curve.title, fontsize=9)
    axes.set_xlabel(curve.x_label, fontsize=8)
    axes.set_ylabel(curve.y_label, fontsize=8)
    axes.tick_params(labelsize=7, which="both")
    axes.grid(alpha=0.3)
    if any(series.label for series in curve.series):
        axes.legend(fontsize=6, ncols=1 if len(curve.series) < 6 else 2)


NOTHING = ("", "–", "-")
"""in place of a number"""


def _is_numeric(column: Sequence[str]) -> bool:
    """Whether a column holds numbers, and nothing else."""
    return any(_is_number(text) for text in column) and all(_is_number(text) or text in NOTHING for text in column)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cell(text: str, number: bool, tag: str = "td") -> str:
    kind = "number" if number else text if text in get_args(Verdict) and tag == "td" else ""
    return f'<{tag} class="{kind}">{_escape(text)}</{tag}>' if kind else f"<{tag}>{_escape(text)}</{tag}>"
