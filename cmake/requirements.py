"""Print the requirements of pyproject.toml, one a line: to build, to run, to export and to test.

MACE excludes the version of e3nn that SevenNet and NequIP need: `requirements.py mace` prints it instead of them.
"""

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())

if __name__ == "__main__":
    LEFT_OUT = (
        {"sevennet", "nequip", "nequix", "ani", "so3lr", "matgl", "docs"} if sys.argv[1:] == ["mace"] else {"mace"}
    )
    extras = project["project"]["optional-dependencies"]
    for requirement in [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(line for name, extra in extras.items() if name not in LEFT_OUT for line in extra),
    ]:
        if not requirement.startswith("torch"):
            print(requirement)
