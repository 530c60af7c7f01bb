"""Print what docs/atlas.md has of an atlas: python examples/atlas_table.py ATLAS.json

ATLAS.json is what `mlip atlas ... -o OUT` writes as OUT/atlas.json. The tables go to where the page has its mark.
"""

from __future__ import annotations

import sys
from pathlib import Path

from marks import write_between_marks

from mlip_deploy.datasheets.atlas_page import cell
from mlip_deploy.datasheets.evidence import Atlas

PAGE = Path(__file__).resolve().parents[1] / "docs" / "atlas.md"
# heading: the piece and the quantity
TABLES = [
    {
        "wbm, own frame, meV/atom": ("crystals", "energy of crystals in the model's frame, mean absolute error"),
        "wbm, shifted, meV/atom": (
            "crystals",
            "energy of crystals after a shift of each element, mean absolute error",
        ),
        "forces, eV/Å": ("forces", "force component, mean absolute error"),
        "slope of forces": ("forces", "slope of forces"),
        "S22, kcal/mol": ("interactions", "interaction of molecules at their equilibrium, mean absolute error"),
        "share of dimers with PBE's bond": ("bonds", "dimers with PBE's bond length within 0.1 Å"),
    },
    {
        "volume, %": ("eos", "equilibrium volume, deviation, mean size"),
        "bulk modulus, %": ("elastic", "bulk modulus, deviation, mean size"),
        "phonons, %": ("phonons", "highest frequency, deviation, mean size"),
        "vacancy, eV": ("vacancy", "vacancy formation energy, difference, mean size"),
        "compression to 80 %, %": ("compression", "energy of compression to 80 % volume, deviation"),
        "hydrogen in iron: solution, eV": ("hydrogen-in-iron", "solution of hydrogen in iron, difference from PBE"),
        "its barrier, eV": ("hydrogen-in-iron", "its barrier between tetrahedral sites, difference from PBE"),
        "share of pairs that repel close up": ("pairs", "close distances of different elements at which they repel"),
    },
    {
        "felt up to, Å": ("reach", "a displacement is felt up to"),
        "share of the Coulomb force at 8 Å": ("ions", "force of ammonium on chloride over the Coulomb force, 8 Å"),
        "between layers": ("layers", "force between layers of ions over the Coulomb force, 8 Å"),
        "AUROC of the grade": ("grades", "AUROC of the grade for large errors of forces"),
        "64 atoms, µs": ("cost", "time per atom and step, silicon, 64 atoms"),
        "512 atoms, µs": ("cost", "time per atom and step, silicon, 512 atoms"),
        "memory per atom, kB": ("cost", "memory per atom, silicon"),
    },
]


def table(atlas: Atlas, columns: dict[str, tuple[str, str]]) -> str:
    """One row a model."""
    lines = [f"| model | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for sheet in atlas.sheets:
        cells = [cell(sheet, key, interval=True) for key in columns.values()]
        lines.append(f"| {sheet.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    atlas = Atlas.model_validate_json(Path(sys.argv[1]).read_text())
    write_between_marks(PAGE, "tables", "\n\n".join(table(atlas, columns) for columns in TABLES))
