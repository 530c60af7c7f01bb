"""The example of the active-learning loop, with SevenNet-0 and a small cell: alarm, frames, labels, domain, silence.

It is what docs/tutorials/active-learning.md does by hand."""

import re
import subprocess
import sys

import numpy as np
from ase.io import read
from conftest import EXAMPLES

from mlip_deploy.ase import MLIPCalculator


def test_the_loop(artifacts, tiny, tmp_path):
    command = [sys.executable, EXAMPLES / "active_learning.py", artifacts.sevennet_0("float32"), tiny]
    command += ["--repeat", "1", "--steps", "100", "--n", "10", "--out", tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = (int(alarms) for alarms in re.findall(r"(\d+) of 21 checks had atoms above grade 1.5", done.stdout))
    assert before > 0
    assert after == 0
    labelled = read(tmp_path / "labelled.extxyz", ":")
    assert 0 < len(labelled) <= 10
    truth = MLIPCalculator(tiny).get_forces(labelled[0])
    np.testing.assert_allclose(labelled[0].get_forces(), truth, atol=1e-6)
