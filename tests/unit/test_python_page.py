"""The code of docs/python.md, run as it stands there, but for a model that takes no minutes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

pytestmark = pytest.mark.slow

TEXT = (Path(__file__).parents[2] / "docs" / "python.md").read_text()


def test_page(artifacts, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    code = "".join(blocks)
    published, named = '"7net-0", "7net-0.mlip.pt"', code.count('"7net-0",')
    assert named == code.count(published) == 1
    code = code.replace(published, f'"{artifacts.checkpoint()}", "7net-0.mlip.pt"')
    write(tmp_path / "crystal.pdb", bulk("Si", cubic=True).repeat(2))
    ending = "\nassert report.passed, report\nassert {c.ranks for c in report.comparisons} == {1, 2}\nprint('done')\n"
    done = subprocess.run([sys.executable, "-c", code + ending], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "['O', 'Si']" in done.stdout
    assert "'nothing.mlip.pt': no such file. Write one with: mlip export FAMILY SOURCE" in done.stdout
    assert done.stdout.endswith("done\n")
    assert {"validation.json", "report.html"} <= {path.name for path in (tmp_path / "validation").iterdir()}
