"""Print the requirements of pyproject.toml, one a line: to build, to run, to export and to test.

Some frameworks exclude each other's versions of e3nn; only one of them is printed: `requirements.py mace`.
"""

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

EXCLUSIVE = {"sevennet", "mace"}
chosen = sys.argv[1] if len(sys.argv) > 1 else "sevennet"

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
extras = project["project"]["optional-dependencies"]
for requirement in [
    *project["build-system"]["requires"],
    *project["project"]["dependencies"],
    *(line for name, extra in extras.items() if name not in EXCLUSIVE - {chosen} for line in extra),
]:
    if not requirement.startswith("torch"):
        print(requirement)
