"""Every path of this repository that a document, a comment or a recipe names is there; a glob finds something."""

from __future__ import annotations

import re
from fnmatch import filter as matching
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("csrc", "python", "tests", "docs", "examples", "cmake")
TEXTS = {".md", ".py", ".pyi", ".toml", ".txt", ".yaml", ".json", ".h", ".cpp", ".cu", ".svg", ".sh", ""}
# The history names what was.
EXEMPT = {"CHANGELOG.md"}

# Not behind another folder: torch has a csrc too, and addresses have docs.
PATH = re.compile(rf"(?<![\w/.}}$-])(?:{'|'.join(FOLDERS)})/[\w./*{{}},-]*")


def texts() -> list[Path]:
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in (*FOLDERS, ".ci"):
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sorted(path for path in found if path.suffix in TEXTS and path.name not in EXEMPT)


def alternatives(name: str) -> list[str]:
    """`a/{b,c}.py` is two names. What stands for something is a star: `{file}`, or a word in capitals."""
    start, brace, rest = name.partition("{")
    if brace:
        inside, closed, end = rest.partition("}")
        if not closed:
            return [f"{start}*"]
        parts = inside.split(",") if "," in inside else ["*"]
        return [whole for part in parts for whole in alternatives(f"{start}{part}{end}")]
    return [re.sub(r"(?<=/)[A-Z][A-Z_]+(?=/|$)", "*", name)]


def test_paths_that_are_named_exist() -> None:
    entries = {
        str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder, *(ROOT / folder).rglob("*"))
    }
    missing, n_found = [], 0
    for text in texts():
        for number, line in enumerate(text.read_text().splitlines(), 1):
            for match in PATH.finditer(line):
                for name in alternatives(match.group().rstrip(".,")):
                    n_found += 1
                    # As git reads a pattern: a star stands for folders too.
                    if not matching(entries, name.rstrip("/")):
                        missing.append(f"{text.relative_to(ROOT)}:{number}: {name}")
    assert n_found > 200  # they are seen at all
    assert not missing, "\n".join(missing)
