"""The page of an atlas, written from its record alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlip_deploy.datasheets.evidence import Atlas, Better, Number, Sheet
from mlip_deploy.datasheets.questions import QUESTIONS
from mlip_deploy.datasheets.sheet_page import shown, verdict
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.report.page import Page

COLUMNS = (
    # job, piece, beginning of the quantity: what has a column in the table of all models
    ("any element", "elements", "elements that pass"),
    ("unknown compositions, hot", "compositions", "compositions that survive"),
    ("energies of crystals, in its frame", "crystals", "energy of crystals in the model's frame"),
    ("energies of crystals", "crystals", "energy of crystals after a shift of each element, mean"),
    ("high pressure", "compression", "energy of compression to"),
    ("dynamics", "forces", "force component"),
    ("softening", "forces", "slope of forces"),
    ("densities", "eos", "equilibrium volume"),
    ("stiffness", "elastic", "shear modulus"),
    ("vibrations", "phonons", "highest frequency"),
    ("vacancies", "vacancy", "vacancy formation"),
    ("surfaces", "surface", "(111)"),
    ("liquids", "liquid", "first peak"),
    ("hydrogen in a metal", "hydrogen-in-iron", "solution of hydrogen in iron"),
    ("how hydrogen moves in it", "hydrogen-in-iron", "its barrier"),
    ("molecules beside each other", "interactions", "interaction of molecules at"),
    ("long range", "reach", "a displacement is felt"),
    ("ions", "ions", "force of ammonium on chloride over the Coulomb force, 8"),
    ("layers of ions", "layers", "force between layers of ions over the Coulomb force, 12"),
    ("small systems", "cost", "time per atom and step, silicon, 64"),
    ("long runs", "cost", "time per atom and step, silicon, 512"),
    ("long runs of water", "cost", "time per atom and step, water, 648"),
    ("large systems", "cost", "memory per atom, silicon"),
    ("conserved energy", "drift", "change of the total energy"),
    ("to know where it errs", "grades", "AUROC"),
)
SILICON = ("cost", "time per atom and step, silicon, 512 atoms")
WATER = ("cost", "time per atom and step, water, 648 atoms")
TRADES = (
    (SILICON, ("crystals", "energy of crystals after a shift of each element, mean absolute error")),
    (SILICON, ("forces", "force component, mean absolute error")),
    (WATER, ("interactions", "interaction of molecules at their equilibrium, mean absolute error")),
)
"""cost against error, each in one plot"""
AWAY: dict[Better, Callable[[float], float]] = {"low": lambda v: v, "high": lambda v: -v, "one": lambda v: abs(v - 1)}
"""how far a number is from what is better"""
COSTS_VARY = 1.15
"""a ratio that says nothing: a sheet has one measurement, and files of one architecture differed by up to 1.11"""
OVERLAID = ("interactions", "ions", "cost", "liquid", "phonons", "reach")
"""pieces whose curves are drawn for all models together"""
OF_DATA = 2
"""the question to which models together say something"""
MISSING, NOT_APPLICABLE = "missing", "–"


def page(atlas: Atlas) -> str:
    """The atlas as one HTML page."""
    names = [sheet.name for sheet in atlas.sheets]
    out = Page(
        f"Atlas of {len(names)} models",
        "Six open questions on foundation models (arXiv:2606.07327), answered for each with what was measured. There "
        "is no composite score: choose by the numbers that your use needs. Energies are compared with labels in each "
        "model's own frame, or after one shift for each element; never with those of another model.",
    )
    absent = [(s.name, e) for s in atlas.sheets for e in s.evidence if e.status == "missing"]
    pieces = sum(len(sheet.evidence) for sheet in atlas.sheets)
    reasons = [f"{file}: {reason}" for file, reason in atlas.failures.items()]
    out.verdict(
        f"{pieces - len(absent)} of {pieces} pieces of evidence are there or do not apply; {len(absent)} are missing",
        "open" if reasons else "neutral",
        reasons,
    )
    out.heading("Which model for which job")
    best = leaders(atlas)
    if best:
        with out.folded("the best of each number", is_open=True):
            out.table(["job", "best", "value", "not told from it", "by", "models"], best)
        out.paragraph(
            "Best: among the models that have the number. Not told from it: the 95 % intervals overlap, or costs "
            f"differ by less than {round(100 * (COSTS_VARY - 1))} %. The elements that it knows, its functional "
            "and its licence may matter more."
        )
    out.heading("All models")
    columns = _columns(atlas)
    headings = [f"{one.key[1]} / {one.unit}" if one.unit else one.key[1] for one in columns]
    out.sortable(
        ["model", "functional", "licence", "elements", "file / MB", *headings],
        [
            [
                sheet.name,
                sheet.identity.energy_frame.partition(",")[0],
                sheet.identity.licence,
                str(len(sheet.identity.elements)),
                f"{sheet.identity.megabytes:.1f}",
                *(cell(sheet, column.key) for column in columns),
            ]
            for sheet in atlas.sheets
        ],
        [sheet.identity.elements for sheet in atlas.sheets],
    )
    trades = [plot for cost, error in TRADES if (plot := _trade(atlas, cost, error))]
    if trades:
        out.heading("Accuracy against cost")
        out.paragraph("On the Pareto front no other model is both faster and more accurate. Lower left is better.")
        out.curves(trades)
    overlaid = _overlaid(atlas)
    if overlaid:
        out.heading("Curves")
        out.curves(overlaid)
    for question, text in QUESTIONS.items():
        _question(out, atlas, question, text)
        if question == OF_DATA:
            _relatives(out, atlas)
            _flags(out, atlas)
    if absent:
        out.heading("Missing evidence")
        out.table(["model", "piece", "reason"], [[model, one.piece, one.reason] for model, one in absent])
    out.heading("Models")
    out.table(
        ["model", "file", "energies compare with", "citation", "minutes", "of CPU time", "datasheet"],
        [
            [
                model,
                f"{sheet.identity.file}, {sheet.identity.content_sha256[:12]}…",
                sheet.identity.energy_frame,
                sheet.identity.citation,
                *(f"{minutes:.0f}" for minutes in sheet.minutes),
                f"{model}/datasheet.html",
            ]
            for model, sheet in zip(names, atlas.sheets, strict=True)
        ],
        caption="models",
    )
    processors = dict.fromkeys(
        f"{sheet.machine['processor']} ({sheet.machine['instruction_set']}, {sheet.machine['cores']} cores), "
        f"{sheet.threads} thread(s)"
        for sheet in atlas.sheets
    )
    several = " Times of different machines must not be compared." if len(processors) > 1 else ""
    out.paragraph(f"Measured on {'; '.join(processors)}.{several}")
    return out.html()


Key = tuple[str, str]
"""piece and quantity: two recipes measure bulk moduli"""


def _numbers(sheet: Sheet) -> dict[Key, Number]:
    return {
        (evidence.piece, number.quantity): number
        for evidence in sheet.evidence
        if evidence.found
        for number in evidence.found.numbers
    }


@dataclass(frozen=True)
class Column:
    """Of the table of all models."""

    job: str
    key: Key
    unit: str
    better: Better | None


def _columns(atlas: Atlas) -> list[Column]:
    """Those for which some model has a number."""
    found: dict[Key, Column] = {}
    for job, piece, beginning in COLUMNS:
        for sheet in atlas.sheets:
            for key, one in _numbers(sheet).items():
                if key[0] == piece and key[1].startswith(beginning):
                    found.setdefault(key, Column(job, key, one.unit, one.better))
    return list(found.values())


def cell(sheet: Sheet, key: Key, *, interval: bool = False) -> str:
    """A number, with its interval if it is asked for, or why there is none."""
    if number := _numbers(sheet).get(key):
        if number.interval is None or not interval:
            return shown(number.value)
        low, high = (shown(value) for value in number.interval)
        return f"{shown(number.value)} ({low} to {high})"
    is_missing = any(evidence.piece == key[0] and evidence.status == "missing" for evidence in sheet.evidence)
    return MISSING if is_missing else NOT_APPLICABLE


def leaders(atlas: Atlas) -> list[list[str]]:
    """For each column in which one end is better: job, best, value, who is not told from it, quantity, models."""
    rows = []
    for column in _columns(atlas):
        if column.better is None:
            continue
        having = [(s.name, found) for s in atlas.sheets if (found := _numbers(s).get(column.key))]
        away = AWAY[column.better]
        best_name, best = min(having, key=lambda pair: away(pair[1].value))
        told = _costs_differ if column.key[0] == "cost" else _intervals_differ
        alike = [other for other, number in having if other != best_name and not told(best, number)]
        value = f"{shown(best.value)} {column.unit}".rstrip()
        if len(alike) == len(having) - 1:
            best_name, alike = "no difference shown", ["all"]
        rows.append([column.job, best_name, value, ", ".join(alike) or "–", column.key[1], str(len(having))])
    return rows


def _intervals_differ(a: Number, b: Number) -> bool:
    """Whether they have no number in common; where there are none, whether the numbers differ."""
    first, second = (n.interval or (n.value, n.value) for n in (a, b))
    return first[0] > second[1] or second[0] > first[1]


def _costs_differ(a: Number, b: Number) -> bool:
    return max(a.value, b.value) > COSTS_VARY * min(a.value, b.value)


def _trade(atlas: Atlas, cost: Key, error: Key) -> Curve | None:
    """Each model as a point, and the front."""
    points: dict[str, tuple[float, float]] = {}
    units = "", ""
    for sheet in atlas.sheets:
        numbers = _numbers(sheet)
        if cost in numbers and error in numbers:
            points[sheet.name] = numbers[cost].value, numbers[error].value
            units = numbers[cost].unit, numbers[error].unit
    if len(points) < 2:
        return None
    front = pareto(list(points.values()))
    series = [Series(label=model, x=[x], y=[y], style="points") for model, (x, y) in points.items()]
    on_front = Series(label="Pareto front", x=[x for x, _ in front], y=[y for _, y in front], style="reference")
    return Curve(
        title=f"{error[1].partition(',')[0]} against {cost[1].partition(', ')[2]}",
        x_label=f"time per atom and step / {units[0]}",
        y_label=f"error / {units[1]}",
        series=[*series, on_front],
        logarithmic=True,
    )


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other is below in both, by the first number."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(set(points)):
        if not front or y < front[-1][1]:
            front.append((x, y))
    return front


def _overlaid(atlas: Atlas) -> list[Curve]:
    """Curves of one title in one plot, each by its model; what is the same for all, such as a reference, once."""
    groups: dict[tuple[str, str], list[tuple[str, Curve]]] = {}
    for piece in OVERLAID:
        for sheet in atlas.sheets:
            for evidence in sheet.evidence:
                if evidence.piece == piece and evidence.found:
                    for curve in evidence.found.curves:
                        groups.setdefault((piece, curve.title), []).append((sheet.name, curve))
    plots = []
    for members in groups.values():
        if len(members) < 2:
            continue
        shared = [one for one in members[0][1].series if all(one in curve.series for _, curve in members)]  # of a label
        series = [
            one.model_copy(update={"label": model if len(curve.series) - len(shared) == 1 else f"{model}: {one.label}"})
            for model, curve in members
            for one in curve.series
            if one not in shared
        ]
        known = [one.model_copy(update={"style": "reference"}) for one in shared]
        plots.append(members[0][1].model_copy(update={"series": [*series, *known]}))
    return plots


def _question(out: Page, atlas: Atlas, question: int, text: str) -> None:
    """What each model says to it, and every number side by side."""
    out.heading(f"{question}. {text}")
    out.items([f"{sheet.name}: {verdict(sheet, question)}" for sheet in atlas.sheets])
    pieces = {evidence.piece for sheet in atlas.sheets for evidence in sheet.of(question)}
    rows = {key: number for sheet in atlas.sheets for key, number in _numbers(sheet).items() if key[0] in pieces}
    if not rows:
        return
    with out.folded("every number, with 95 % intervals"):
        out.table(
            ["piece", "quantity", "unit", *(sheet.name for sheet in atlas.sheets)],
            [
                [*key, number.unit, *(cell(sheet, key, interval=True) for sheet in atlas.sheets)]
                for key, number in rows.items()
            ],
        )


def _relatives(out: Page, atlas: Atlas) -> None:
    """Models of one architecture on other data, each where the others go."""
    for family in atlas.relatives:
        out.subheading(f"Models of {family.family}, each on what the others sampled")
        if family.reason:
            out.paragraph(f"Missing: {family.reason}")
            continue
        out.table(
            ["predicts \\ sampled by", *family.models],
            [[model, *(shown(v) for v in row)] for model, row in zip(family.models, family.forces, strict=True)],
            caption=f"force components, mean absolute difference / eV/Å, {family.structures} structures at 600 K "
            "(after Niblett et al., arXiv:2409.05590); no label is involved",
        )


def _flags(out: Page, atlas: Atlas) -> None:
    if not atlas.flags:
        return
    out.subheading("Labels to look at")
    out.paragraph(
        "Labels from which all models with energies for them are far, at least three times their median distance, "
        "while they agree with each other within a third of it. A reason to look, not a proof."
    )
    out.table(
        ["set", "structure", "label to nearest model / eV/atom", "between models / eV/atom"],
        [
            [flag.reference, flag.frame, shown(flag.label_against_models), shown(flag.models_among_themselves)]
            for flag in atlas.flags
        ],
        caption="labels",
    )
