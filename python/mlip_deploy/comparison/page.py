"""The report of `mlip compare` as one HTML page."""

from __future__ import annotations

from mlip_deploy.comparison.content import ModelComparison
from mlip_deploy.comparison.cross import CrossPrediction
from mlip_deploy.report.page import Page


def page(found: ModelComparison) -> str:
    """The report as one HTML page."""
    report = Page("Comparison of models", f"{len(found.models)} artifacts in {found.engine}.")
    warnings = [note for note in found.notes if note.startswith("warning: ")]
    worst = max(found.cross_prediction.disagreement, key=lambda d: d.largest)
    report.verdict(
        f"The force on an atom spreads by up to {number(worst.largest)} eV/Å over the models ({worst.element}, "
        f"{worst.where}). Labels to look at: {len(found.flags)}",
        "open" if found.flags or warnings else "neutral",
        warnings,
    )
    if found.curves:
        report.heading("Plots")
        report.curves(found.curves)
    if found.flags:
        report.heading("Label audit")
        report.paragraph(
            "Labels against which the models agree with each other: at least three times each model's median distance, "
            "and models within a third of it. A reason to look, not a proof."
        )
        report.table(
            ["reference", "frame", "quantity", "label to nearest model", "between models", "unit"],
            [
                [
                    f.reference,
                    f.frame,
                    f.quantity,
                    number(f.label_against_models),
                    number(f.models_among_themselves),
                    f.unit,
                ]
                for f in found.flags
            ],
        )
    report.heading("Models")
    report.table(
        ["model", "file", "sha256", "energy frame"],
        [
            list(row)
            for row in zip(found.models, found.files, [s[:12] for s in found.sha256], found.frames, strict=True)
        ],
    )
    if found.rows:
        report.heading("Reference data and properties")
        report.table(
            ["case", "quantity", "unit", *found.models],
            [[r.case, r.quantity, r.unit, *(number(v) for v in r.values)] for r in found.rows],
        )
    report.heading("Cross-prediction")
    report.paragraph(
        "Row: model that predicts. Column: model that sampled the structures by molecular dynamics, whose own forces "
        "stand for the truth (after Niblett et al., arXiv:2409.05590). No label is involved."
    )
    for title, unit, matrix in matrices(found.cross_prediction):
        rows = [[name, *(number(v) for v in row)] for name, row in zip(found.models, matrix, strict=True)]
        report.table(["", *found.models], rows, caption=f"{title} / {unit}")
    report.heading("Disagreement per atom")
    report.table(
        ["element", "atoms", "mean / eV/Å", "largest / eV/Å", "where"],
        [
            [d.element, str(d.atoms), number(d.mean), number(d.largest), d.where]
            for d in found.cross_prediction.disagreement
        ],
        caption="standard deviation of an atom's force over the models",
    )
    if found.notes:
        report.heading("Notes")
        for note in found.notes:
            report.paragraph(note)
    return report.html()


def matrices(cross: CrossPrediction) -> list[tuple[str, str, list[list[float]]]]:
    return [
        ("force components, mean absolute difference", "eV/Å", cross.forces),
        ("energy, standard deviation", "meV/atom", cross.energies),
    ]


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
