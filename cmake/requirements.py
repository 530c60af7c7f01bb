"""Print the requirements of pyproject.toml, one a line: to build, to run, to export and to test."""

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
extras = project["project"]["optional-dependencies"]
for requirement in [
    *project["build-system"]["requires"],
    *project["project"]["dependencies"],
    *(requirement for extra in extras.values() for requirement in extra),
]:
    if not requirement.startswith("torch"):
        print(requirement)
