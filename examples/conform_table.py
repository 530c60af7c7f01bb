"""Print what docs/conform.md has in tables: the probes, and the truth table of potentials.

python examples/conform_table.py --probes     the probes, from their docstrings, into docs/conform.md
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from mlip_deploy.conformance.probes import PROBES

PAGE = Path(__file__).parents[1] / "docs" / "conform.md"


def probes() -> str:
    """One paragraph for each probe."""
    return "\n\n".join(
        f"**{probe.name}** ({', '.join(probe.engines)}{', --thorough' if probe.thorough else ''}). {probe.description}"
        for probe in PROBES
    )


def write(page: Path, name: str, text: str) -> None:
    """Replace what stands between the page's two marks of a name."""
    whole = page.read_text()
    marks = rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)"
    page.write_text(re.sub(marks, lambda found: f"{found[1]}\n{text}\n\n{found[2]}", whole, flags=re.DOTALL))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probes", action="store_true")
    if parser.parse_args().probes:
        write(PAGE, "probes", probes())
