"""The page of a datasheet, written from its record alone."""

from __future__ import annotations

from mlip_deploy.datasheets.evidence import Evidence, Number, Sheet
from mlip_deploy.datasheets.questions import QUESTIONS
from mlip_deploy.report.page import Page

MOST_PLOTS = 4
"""of a piece that are shown at once; the others are folded"""


def page(sheet: Sheet) -> str:
    """The datasheet as one HTML page."""
    identity = sheet.identity
    out = Page(
        f"Datasheet: {identity.name}",
        f"{identity.file}: {identity.energy_frame}. Six open questions on foundation models (arXiv:2606.07327), "
        "answered with what was measured. There is no composite score: weigh the evidence for your use.",
    )
    measured = [evidence for evidence in sheet.evidence if evidence.status == "measured"]
    missing = [evidence for evidence in sheet.evidence if evidence.status == "missing"]
    out.verdict(
        f"{len(measured)} of {len(sheet.evidence)} pieces of evidence",
        "neutral",
        [f"{number}. {question} {verdict(sheet, number)}" for number, question in QUESTIONS.items()],
    )
    for number, question in QUESTIONS.items():
        out.heading(f"{number}. {question}")
        _question(out, sheet, number)
    out.heading("Identity")
    out.table(["", ""], _identity(sheet))
    out.heading("How it was measured")
    out.table(
        ["piece", "measures", "state", "s", "CPU s"],
        [
            [one.piece, one.measures, one.status, f"{one.seconds:.1f}", f"{one.cpu_seconds:.1f}"]
            for one in sheet.evidence
        ],
        caption="pieces",
    )
    machine, (minutes, cpu_minutes) = sheet.machine, sheet.minutes
    processor = f"{machine['processor']} ({machine['instruction_set']}, {machine['cores']} cores)"
    versions = ", ".join(f"{name} {version}" for name, version in sheet.versions.items())
    out.paragraph(
        f"{minutes:.0f} minutes, {cpu_minutes:.0f} of CPU time, on {processor}, {sheet.threads} thread(s); {versions}."
        + (f" Missing: {', '.join(one.piece for one in missing)}." if missing else "")
    )
    return out.html()


def verdict(sheet: Sheet, question: int) -> str:
    """One plain sentence, of what was measured."""
    clauses = [one.found.said for one in sheet.of(question) if one.found is not None]
    if not clauses:
        return "Nothing was measured."
    sentence = "; ".join(clauses)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _question(out: Page, sheet: Sheet, question: int) -> None:
    evidence = sheet.of(question)
    out.paragraph(verdict(sheet, question))
    rows = [_row(one.piece, number) for one in evidence if one.found for number in one.found.numbers]
    if rows:
        out.table(["piece", "quantity", "value", "95 %", "unit", "n"], rows)
    out.curves([curve for one in evidence if one.found for curve in one.found.curves[:MOST_PLOTS]])
    for one in evidence:
        if one.found:
            _details(out, one)
    if absent := [one for one in evidence if one.found is None]:
        out.table(["piece", "state", "reason"], [[one.piece, one.status, one.reason] for one in absent])
    out.paragraph(f"Not tested: {'; '.join(one.not_tested for one in evidence)}.")


def _details(out: Page, evidence: Evidence) -> None:
    found = evidence.found
    assert found is not None
    if not (found.details or found.notes or found.curves[MOST_PLOTS:]):
        return
    with out.folded(f"{evidence.piece}: {evidence.measures}"):
        if found.notes:
            out.items(found.notes)
        out.curves(found.curves[MOST_PLOTS:])
        if found.details:
            out.table(["quantity", "value", "unit"], [[d.quantity, shown(d.value), d.unit] for d in found.details])


def _row(piece: str, number: Number) -> list[str]:
    interval = "–" if number.interval is None else " to ".join(shown(value) for value in number.interval)
    return [piece, number.quantity, shown(number.value), interval, number.unit, str(number.n or "")]


def shown(value: float) -> str:
    """A number with three digits, or with all before its point."""
    return f"{value:.3g}" if not 1e3 <= abs(value) < 1e6 else f"{value:.0f}"


def _identity(sheet: Sheet) -> list[list[str]]:
    one = sheet.identity
    return [
        ["model", f"{one.name} ({one.family})"],
        ["licence", one.licence],
        ["citation", one.citation],
        ["energies compare with", one.energy_frame],
        ["elements", f"{len(one.elements)}: {' '.join(one.elements)}"],
        ["range", f"cutoff {one.cutoff:g} Å, interaction range {one.interaction_range:g} Å, {one.parallel} over ranks"],
        ["fixed at export", ", ".join(f"{name} = {value}" for name, value in one.fixed.items()) or "none"],
        ["settings", "; ".join(one.settings) or "none"],
        ["outputs", ", ".join(one.outputs)],
        ["domain", one.domain],
        ["validated", one.validation],
        ["file", f"{one.file}, {one.megabytes:.1f} MB, {one.dtype}, content {one.content_sha256[:12]}…"],
        ["checkpoint", f"sha256 {one.source_sha256[:12]}…"],
    ]
