"""Whether a LAMMPS that pair_style mlip was built for computes with it: the energy of a crystal with one atom."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import torch
from torch import Tensor, nn

from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.module import export_module
from mlip_deploy.files import temporary_folder

SIDE = 2.0
"""Å, of the cubic cell"""
CUTOFF = 2.5
"""Å: beyond the 6 nearest images, before the next"""
STIFFNESS = 0.1
"""eV/Å^4"""
ENERGY = 3.0 * STIFFNESS * (CUTOFF**2 - SIDE**2) ** 2
"""eV"""
TOLERANCE = 1e-9
"""eV; the input prints twelve digits"""

# Twice, since `clear` makes LAMMPS anew.
INPUT = """\
units metal
{load}
region box block 0 {side} 0 {side} 0 {side}
create_box 1 box
create_atoms 1 single 1 1 1
mass 1 1.0
pair_style mlip
pair_coeff * * {model} H
run 0
variable energy equal pe
print "mlip_energy $(v_energy:%.12f)"
{again}"""
ERROR_LINE = re.compile(r"^ERROR.*|^lmp-mlip: .*", flags=re.MULTILINE)


class Quartic(nn.Module):
    """Of each pair of atoms, STIFFNESS times the square of CUTOFF^2 - r^2."""

    def __init__(self) -> None:
        super().__init__()
        self.cutoff, self.stiffness = CUTOFF, STIFFNESS

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        """Atomic energies [n_owned], eV."""
        below = self.cutoff * self.cutoff - (edge_vectors * edge_vectors).sum(dim=1)
        pair = 0.5 * self.stiffness * below * below
        return torch.zeros(n_owned, dtype=pair.dtype, device=pair.device).index_add(0, edge_index[0], pair)


def prove(program: Path, plugin: Path | None) -> None:
    """Run the crystal in `program`, which loads `plugin` by its input if one is given.

    Raises
    ------
        MLIPError: it does not run, or its energy is another one.
    """
    with temporary_folder("mlip-proof-") as folder:
        export_module(Quartic(), folder / "proof.mlip.pt", elements=["H"], cutoff=CUTOFF, name="proof", dtype="float64")
        load = f"plugin load {plugin}" if plugin else ""
        text = INPUT.format(load=load, side=SIDE, model="proof.mlip.pt", again="{again}")
        (folder / "in.proof").write_text(text.format(again=f"clear\n{text.format(again='')}"))
        command = [str(program), "-in", "in.proof", "-log", "none"]
        # Without a plugin of the same name that every run loads.
        environment = {name: value for name, value in os.environ.items() if name != "LAMMPS_PLUGIN_PATH"}
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
        )
    output = done.stdout + done.stderr
    energies = [float(value) for value in re.findall(r"^mlip_energy (\S+)$", output, flags=re.MULTILINE)]
    if done.returncode != 0 or len(energies) != 2:
        error = ERROR_LINE.search(output)
        raise MLIPError(
            f"the pair style was compiled, but {program} does not run it: "
            f"{error[0] if error else f'it ended with status {done.returncode}: {output[-1000:].strip()}'}"
        )
    if any(abs(energy - ENERGY) > TOLERANCE for energy in energies):
        raise MLIPError(f"the pair style was compiled, but in {program} its energies are {energies}, not {ENERGY:g} eV")
