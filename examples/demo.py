"""The main job from checkpoint to molecular dynamics, as `make demo` runs it. Writes demo/report.html.

Every step is one command that a user could type; it is printed before it runs.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib.figure import Figure

from mlip_deploy.environment.doctor import examine
from mlip_deploy.files import write_text
from mlip_deploy.report.page import Page
from mlip_deploy.validation.fidelity import FidelityReport
from mlip_deploy.validation.report.fidelity import add_fidelity

EXAMPLES = Path(__file__).resolve().parent
SCRIPTS = Path(sysconfig.get_path("scripts"))
N_ATOMS = 64


class Demo:
    def __init__(self, directory: Path, steps: int, threads: int):
        self.directory = directory
        self.steps = steps
        self.threads = threads
        self.timings: list[tuple[str, float]] = []

    def command(self, *words: str) -> str:
        """Run a command in the demo's folder, showing it and its output as it comes."""
        shown = shlex.join(Path(word).name if word.startswith(str(SCRIPTS)) else word for word in words)
        print(f"\n$ {shown}", flush=True)
        start = time.perf_counter()
        process = subprocess.Popen(
            words, cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        lines = []
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
        if process.wait() != 0:
            sys.exit(f"\nmake demo stopped: '{shown}' ended with status {process.returncode}")
        self.timings.append((shown, time.perf_counter() - start))
        return "".join(lines)

    def run(self) -> None:
        mlip, lmp = str(SCRIPTS / "mlip"), str(SCRIPTS / "lmp")
        reports = []
        for dtype, name in (("float32", "7net-0.mlip.pt"), ("float64", "7net-0-float64.mlip.pt")):
            self.command(mlip, "export", "sevennet", "7net-0", "-o", name, "--dtype", dtype)
            parity = self.directory / f"parity-{dtype}.json"
            self.command(mlip, "check", name, "--json", parity.name)
            reports.append(FidelityReport.model_validate_json(parity.read_text()))
        options = {"model": "7net-0.mlip.pt", "steps": str(self.steps), "threads": str(self.threads)}
        variables = [word for item in options.items() for word in ("-var", *item)]
        lammps = self.command(lmp, "-in", str(EXAMPLES / "lammps" / "silicon_nve.in"), *variables)
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        self.command(sys.executable, str(EXAMPLES / "openmm" / "silicon_nve.py"), *arguments)
        self.write_report(reports, lammps)

    def write_report(self, reports: list[FidelityReport], lammps: str) -> None:
        page = Page(
            "SevenNet-0 from checkpoint to molecular dynamics",
            "One exported file, replayed in ASE, LAMMPS and OpenMM against the original framework, and run in both.",
        )
        page.heading("Does each engine compute what the original computes?")
        for report in reports:
            add_fidelity(page, report)
        page.heading("Does each engine conserve the energy?")
        figure, drifts = self.conservation()
        page.figure(figure, "Total energy per atom against time in LAMMPS and OpenMM")
        page.table(["engine", "steps", "drift / meV/atom/ps", "largest deviation / meV/atom"], drifts)
        table = re.search(r"pair_style mlip\n(?:  .*\n)+", lammps)
        if table:
            page.paragraph("What LAMMPS says of the model at set-up, and of its cost at the end:")
            summary = re.search(r"pair_style mlip: \d+ evaluations.*", lammps)
            page.preformatted(table.group(0) + (summary.group(0) if summary else ""))
        page.heading("Timings")
        page.table(["command", "seconds"], [[command, f"{seconds:.1f}"] for command, seconds in self.timings])
        page.heading("Versions")
        page.table(["item", "found"], [[finding.item, finding.found + finding.problem] for finding in examine()])
        write_text(self.directory / "report.html", page.html())
        write_text(self.directory / "timings.json", json.dumps(self.timings, indent=1) + "\n")
        print(f"\nreport: {self.directory / 'report.html'}")

    def conservation(self) -> tuple[Figure, list[list[str]]]:
        lammps = np.loadtxt(self.directory / "silicon_nve_lammps.dat")
        openmm = np.loadtxt(self.directory / "silicon_nve_openmm.csv", delimiter=",", skiprows=1)
        from mlip_deploy import _core

        figure = Figure(figsize=(7.5, 3.6))
        axes = figure.subplots()
        rows = []
        for name, time_ps, energy in (
            ("LAMMPS", lammps[:, 0], lammps[:, 1]),
            ("OpenMM", openmm[:, 0], openmm[:, 1] / _core.EV_IN_KJ_PER_MOL),
        ):
            deviation = 1000.0 * (energy - energy[0]) / N_ATOMS
            axes.plot(time_ps, deviation, label=name)
            slope = np.polyfit(time_ps, deviation, 1)[0]
            rows.append([name, str(len(time_ps) - 1), f"{slope:.4f}", f"{np.abs(deviation).max():.4f}"])
        axes.set_xlabel("time / ps")
        axes.set_ylabel("change of total energy / meV/atom")
        axes.legend()
        axes.grid(alpha=0.3)
        return figure, rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path("demo"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    Demo(options.directory.resolve(), options.steps, options.threads).run()
