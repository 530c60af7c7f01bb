"""Pages of the documentation as their readers use them: a block with a title becomes a file, the others are run.

```sh                        runs, but for lines that install something
```python                    runs, all blocks of a page in one session
```lammps title="in.npt"     becomes the file in.npt
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', flags=re.MULTILINE | re.DOTALL)
INSTALLS = re.compile(r"^(pip|apt|make|git|\.) ")

SESSION = """
import json, subprocess, sys
names = {"__name__": "__main__"}
for kind, code in json.load(sys.stdin):
    if kind == "python":
        exec(compile(code, "page", "exec"), names)
    elif kind == "sh":
        subprocess.run(["bash", "-ec", code], check=True, stdin=subprocess.DEVNULL)
    else:
        open(kind, "w").write(code)
    sys.stdout.flush()
"""


def blocks(page: str) -> list[tuple[str, str, str]]:
    """(language, title, code) of each block; the title is empty where there is none."""
    return BLOCK.findall((DOCS / page).read_text())


def commands(code: str) -> list[str]:
    """The commands of a block of the shell, without those that install something; continued lines are one."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not INSTALLS.match(line)]


def run(page: str, folder: Path, replace: Mapping[str, str] | None = None) -> str:
    """Use a page in `folder`, with other words where `replace` says so, and return what its blocks printed."""
    steps: list[tuple[str, str]] = []
    unused = set(replace or {})
    for language, title, code in blocks(page):
        for old, new in (replace or {}).items():
            if old in code:
                unused.discard(old)
                code = code.replace(old, new)
        if title or language in ("sh", "python"):
            steps.append((title or language, "\n".join(commands(code)) if language == "sh" else code))
    assert not unused, f"not on the page: {unused}"
    assert steps
    return use(steps, folder)


def use(steps: list[tuple[str, str]], folder: Path) -> str:
    """Run steps of the kind "sh" or "python" in `folder`; code of any other kind goes into the file of that name."""
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "OPENMM_DEFAULT_PLATFORM": "CPU"}
    session = [sys.executable, "-c", SESSION]
    done = subprocess.run(session, cwd=folder, input=json.dumps(steps), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
