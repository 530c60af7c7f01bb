"""The example of a user's own message-passing model: exported by the script itself, the same on any number of ranks."""

import subprocess
import sys

from conftest import EXAMPLES

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.validation.fidelity import check


def test_one_file_for_one_and_two_ranks(tmp_path):
    subprocess.run([sys.executable, EXAMPLES / "message_passing.py"], cwd=tmp_path, check=True)
    path = tmp_path / "messages.mlip.pt"
    contract = Artifact(path).contract
    assert (contract.parallel, contract.operators) == ("exchange", {"mlip::ghost_gather": 1})
    report = check(path, ["ase", "lammps"], [1, 2])
    assert report.passed, [c.reason for c in report.comparisons if c.verdict == "fail"]
    assert {(c.engine, c.ranks) for c in report.comparisons} == {("ase", 1), ("lammps", 1), ("lammps", 2)}
