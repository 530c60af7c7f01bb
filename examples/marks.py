"""Text that a script prints into a page of the documentation, between two marks."""

import re
from pathlib import Path


def write_between_marks(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- NAME: ... -->` and `<!-- end of NAME -->`."""
    marks = rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)"
    page.write_text(re.sub(marks, lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page.read_text(), flags=re.DOTALL))
