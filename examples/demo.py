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

from ase.build import bulk
from ase.io import write

from mlip_deploy import Run
from mlip_deploy.environment.doctor import examine
from mlip_deploy.files import write_text
from mlip_deploy.report.content import Curve
from mlip_deploy.report.page import Page
from mlip_deploy.validation.fidelity import FidelityReport
from mlip_deploy.validation.report.fidelity import add_fidelity

SCRIPTS = Path(sysconfig.get_path("scripts"))
STRUCTURE = "silicon.cif"


class Demo:
    def __init__(self, directory: Path, steps: int, threads: int):
        self.directory = directory
        self.steps = steps
        self.threads = threads
        self.timings: list[tuple[str, float]] = []

    def command(self, *words: str) -> None:
        """Run a command in the demo's folder, showing it and its output as it comes."""
        shown = shlex.join(Path(word).name if word.startswith(str(SCRIPTS)) else word for word in words)
        print(f"\n$ {shown}", flush=True)
        start = time.perf_counter()
        done = subprocess.run(words, cwd=self.directory)
        if done.returncode != 0:
            sys.exit(f"\nmake demo stopped: '{shown}' ended with status {done.returncode}")
        self.timings.append((shown, time.perf_counter() - start))

    def run(self) -> None:
        mlip = str(SCRIPTS / "mlip")
        reports, runs = [], []
        for dtype, name in (("float32", "7net-0.mlip.pt"), ("float64", "7net-0-float64.mlip.pt")):
            self.command(mlip, "export", "sevennet", "7net-0", "-o", name, "--dtype", dtype)
            parity = self.directory / f"parity-{dtype}.json"
            self.command(mlip, "check", name, "--json", parity.name)
            reports.append(FidelityReport.model_validate_json(parity.read_text()))
        write(self.directory / STRUCTURE, bulk("Si", "diamond", a=5.43, cubic=True))
        for engine in ("lammps", "openmm"):
            self.command(
                mlip, "run", engine, "7net-0.mlip.pt", STRUCTURE, "-o", engine, "--force", "--supercell", "2x2x2",
                "--ensemble", "nve", "--temperature", "600", "--timestep", "1fs", "--time", f"{self.steps}fs",
                "--threads", str(self.threads), "--json", f"{engine}.json",
            )  # fmt: skip
            runs.append(Run.model_validate_json((self.directory / f"{engine}.json").read_text()))
        self.write_report(reports, runs)

    def write_report(self, reports: list[FidelityReport], runs: list[Run]) -> None:
        page = Page(
            "SevenNet-0 from checkpoint to molecular dynamics",
            "One exported file, replayed in ASE, LAMMPS and OpenMM against the original framework, and run in both.",
        )
        passed = all(report.passed for report in reports)
        page.verdict(
            "Each engine computes what the original computes" if passed else "An engine differs from the original",
            "pass" if passed else "fail",
            [f"{run.engine}: {finding.text}" for run in runs for finding in run.findings],
        )
        page.heading("Does each engine conserve the energy?")
        page.curves([energies(runs)])
        page.paragraph("Each run has a report of its own: lammps/report.html and openmm/report.html.")
        output = (self.directory / "lammps" / "output.txt").read_text()
        table = re.search(r"pair_style mlip\n(?:  .*\n)+", output)
        if table:
            page.paragraph("What LAMMPS says of the model at set-up, and of its cost at the end:")
            summary = re.search(r"pair_style mlip: \d+ evaluations.*", output)
            page.preformatted(table.group(0) + (summary.group(0) if summary else ""))
        page.heading("Does each engine compute what the original computes?")
        for report in reports:
            add_fidelity(page, report)
        page.heading("Timings")
        page.table(["command", "seconds"], [[command, f"{seconds:.1f}"] for command, seconds in self.timings])
        page.heading("Versions")
        page.table(["item", "found"], [[finding.item, finding.found + finding.problem] for finding in examine()])
        write_text(self.directory / "report.html", page.html())
        write_text(self.directory / "timings.json", json.dumps(self.timings, indent=1) + "\n")
        print(f"\nreport: {self.directory / 'report.html'}")


def energies(runs: list[Run]) -> Curve:
    """The change of the total energy, of all runs in one plot."""
    found = [(run.engine, curve) for run in runs for curve in run.curves if curve.title == "Change of total energy"]
    series = [curve.series[0].model_copy(update={"label": engine}) for engine, curve in found]
    return found[0][1].model_copy(update={"series": series})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path("demo"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    Demo(options.directory.resolve(), options.steps, options.threads).run()
