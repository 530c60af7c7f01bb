"""Print the requirements of pyproject.toml, one a line: to build, to run, to export and to test.

MACE excludes the version of e3nn that SevenNet and NequIP need: `requirements.py mace` prints it instead of them.
"""

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
BESIDE_MACE = {"mace", "chgnet", "openmmml", "validate", "dispersion", "test", "release"}
"""extras"""

if __name__ == "__main__":
    extras = project["project"]["optional-dependencies"]
    left_out = set(extras) - BESIDE_MACE if sys.argv[1:] == ["mace"] else {"mace"}
    for requirement in [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(line for name, extra in extras.items() if name not in left_out for line in extra),
    ]:
        if not re.match(r"torch(?![\w-])", requirement):
            print(requirement)
