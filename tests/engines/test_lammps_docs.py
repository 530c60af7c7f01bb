"""The input fragments of docs/lammps.md, run as they stand there."""

import re
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from tolerances import FLOAT64_ROTATED

from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.engines.lammps import run

TEXT = (Path(__file__).parents[2] / "docs" / "lammps.md").read_text()
FRAGMENTS = re.findall(r"^```lammps\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
(FULL,) = re.findall(r"^```lammps-full\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
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


def waters():
    """Eight molecules, O H H each, turned this way and that."""
    whole, random = None, np.random.default_rng(4)
    for corner in np.ndindex(2, 2, 2):
        one = molecule("H2O")
        one.rotate(360 * random.random(), random.normal(size=3))
        one.positions += 3.1 * np.array(corner) + 1.5
        whole = one if whole is None else whole + one
    whole.set_cell([6.2, 6.2, 6.2])
    whole.pbc = True
    return whole


def data_of_waters(atoms):
    lines = ["water", "", "24 atoms", "16 bonds", "8 angles", "2 atom types", "1 bond types", "1 angle types"]
    lines += [f"0 6.2 {a}lo {a}hi" for a in "xyz"] + ["", "Masses", "", "1 15.999", "2 1.008", "", "Atoms # full", ""]
    for k, (symbol, position) in enumerate(zip(atoms.symbols, atoms.positions, strict=True)):
        kind, charge = (1, -0.8476) if symbol == "O" else (2, 0.4238)
        lines.append(" ".join([str(k + 1), str(k // 3 + 1), str(kind), str(charge), *(f"{x:.17g}" for x in position)]))
    oxygens = range(1, 25, 3)
    lines += ["", "Bonds", "", *(f"{2 * k + h + 1} 1 {o} {o + h + 1}" for k, o in enumerate(oxygens) for h in (0, 1))]
    lines += ["", "Angles", "", *(f"{k + 1} 1 {o + 1} {o} {o + 2}" for k, o in enumerate(oxygens))]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_force_field_of_bonded_molecules(ranks, tiny, tmp_path):
    """The energy of both is ASE's of the model and LAMMPS's of the force field alone, whose weights are zeros."""
    atoms = waters()
    (tmp_path / "model.mlip.pt").symlink_to(tiny)
    (tmp_path / "water.data").write_text(data_of_waters(atoms))
    alone = FULL.replace("hybrid/overlay mlip ", "").replace("lj/cut/coul/long 0", "0").replace("1e-30 1e-30", "0 0")
    alone = re.sub("^pair_coeff .* mlip .*\n", "", alone, flags=re.MULTILINE)
    energies = []
    for text in (FULL, alone):
        box = f"units metal\natom_style full\nread_data water.data\n{text}"
        output = run(f'{box}\nrun 0\nprint "energy $(pe:%.17g)"\n', tmp_path, ranks=ranks)
        energies.append(float(re.search(r"^energy (\S+)$", output, flags=re.MULTILINE).group(1)))
    both, force_field = energies
    assert "mlip" not in alone
    assert abs(force_field) > 0.1
    assert both - force_field == pytest.approx(ase_engine.evaluate(tiny, atoms).energy, abs=FLOAT64_ROTATED)
