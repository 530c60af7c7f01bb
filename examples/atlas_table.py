"""Print what docs/atlas.md has of an atlas: python examples/atlas_table.py ATLAS.json

ATLAS.json is what `mlip atlas ... -o OUT` writes as OUT/atlas.json. The tables go to where the page has its mark.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mlip_deploy.datasheets.evidence import Atlas, Number, Sheet

PAGE = Path(__file__).resolve().parents[1] / "docs" / "atlas.md"
# heading: the piece, the quantity, and by how much it is multiplied
TABLES = [
    {
        "wbm, own frame, meV/atom": ("crystals", "energy of crystals in the model's frame, mean absolute error", 1.0),
        "wbm, shifted, meV/atom": (
            "crystals",
            "energy of crystals after a shift of each element, mean absolute error",
            1.0,
        ),
        "forces, eV/Å": ("forces", "force component, mean absolute error", 1.0),
        "slope of forces": ("forces", "slope of forces", 1.0),
        "S22, kcal/mol": ("interactions", "interaction of molecules at their equilibrium, mean absolute error", 1.0),
        "dimers with PBE's bond, %": ("bonds", "dimers with PBE's bond length within 0.1 Å", 100.0),
    },
    {
        "volume, %": ("eos", "equilibrium volume, deviation, mean size", 1.0),
        "bulk modulus, %": ("elastic", "bulk modulus, deviation, mean size", 1.0),
        "phonons, %": ("phonons", "highest frequency, deviation, mean size", 1.0),
        "vacancy, eV": ("vacancy", "vacancy formation energy, difference, mean size", 1.0),
        "compression to 80 %, %": ("compression", "energy of compression to 80 % volume, deviation", 1.0),
        "pairs that repel close up, %": (
            "pairs",
            "close distances of different elements at which they repel",
            100.0,
        ),
    },
    {
        "felt up to, Å": ("reach", "a displacement is felt up to", 1.0),
        "Coulomb force at 8 Å, %": ("ions", "force of ammonium on chloride over the Coulomb force, 8 Å", 100.0),
        "AUROC of the grade": ("grades", "AUROC of the grade for large errors of forces", 1.0),
        "64 atoms, µs": ("cost", "time per atom and step, silicon, 64 atoms", 1.0),
        "512 atoms, µs": ("cost", "time per atom and step, silicon, 512 atoms", 1.0),
        "memory per atom, kB": ("cost", "memory per atom, silicon", 1.0),
    },
]


def digits(value: float) -> str:
    """Three of them, or all before the point."""
    return f"{value:.3g}" if abs(value) < 1000.0 else f"{value:.0f}"


def cell(sheet: Sheet, piece: str, quantity: str, factor: float) -> str:
    """The number and the interval that holds it with 95 %; a dash where it does not apply, "?" where it is missing."""
    for evidence in sheet.evidence:
        if evidence.piece == piece:
            numbers: list[Number] = evidence.found.numbers if evidence.found else []
            for number in numbers:
                if number.quantity == quantity:
                    interval = ""
                    if number.interval:
                        interval = " ({} to {})".format(*(digits(factor * limit) for limit in number.interval))
                    return f"{digits(factor * number.value)}{interval}"
            return "–" if evidence.status != "missing" else "?"
    return "?"


def table(atlas: Atlas, columns: dict[str, tuple[str, str, float]]) -> str:
    """One row a model."""
    lines = [f"| model | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for sheet in atlas.sheets:
        cells = [cell(sheet, *column) for column in columns.values()]
        lines.append(f"| {sheet.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    atlas = Atlas.model_validate_json(Path(sys.argv[1]).read_text())
    text = "\n\n".join(table(atlas, columns) for columns in TABLES)
    marks = r"(<!-- tables: [^\n]*-->\n).*?(<!-- end of tables -->)"
    page = PAGE.read_text()
    PAGE.write_text(re.sub(marks, lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page, flags=re.DOTALL))
