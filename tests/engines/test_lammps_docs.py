"""The input fragments of docs/lammps.md, run as they stand there."""

import re
from pathlib import Path

import pytest

from mlip_deploy.engines.lammps import run

TEXT = (Path(__file__).parents[2] / "docs" / "lammps.md").read_text()
FRAGMENTS = re.findall(r"^```lammps\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
BOX = """
clear
units metal
lattice sc 2.6
region box block 0 3 0 2 0 2
create_box 2 box
create_atoms 1 box
set type 1 type/fraction 2 0.5 11
mass 1 28.085
mass 2 15.999
displace_atoms all random 0.1 0.1 0.1 3
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_fragments(ranks, tiny, tmp_path):
    (tmp_path / "model.mlip.pt").symlink_to(tiny)
    assert len(FRAGMENTS) >= 6
    script = "".join(
        f'{BOX}{text}\nrun 0\nprint "fragment {k} $(pe:%.17g)"\nvelocity all create 300 1\nfix 1 all nve\nrun 2\n'
        for k, text in enumerate(FRAGMENTS)
    )
    output = run(script, tmp_path, ranks=ranks)
    energies = [float(value) for value in re.findall(r"^fragment \d+ (\S+)$", output, flags=re.MULTILINE)]
    assert len(energies) == len(FRAGMENTS)
    plain, flux, extra, repulsion, dispersion, lj = energies
    assert flux == extra == repulsion == plain, "ZBL does nothing at the distances of a crystal"
    assert abs(dispersion - plain) > 0.1
    assert abs(lj - plain) > 0.1
