"""`run`: the engine does what was prepared, and a report says what came of it."""

from __future__ import annotations

import re
import sys
import time

from ase.formula import Formula
from ase.io import read, write

from mlip_deploy.engines.lammps import error_line, launcher
from mlip_deploy.engines.lammps_files import keep_whole_frames
from mlip_deploy.engines.process import follow
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import write_text
from mlip_deploy.preparation.prepare import Prepared
from mlip_deploy.progress import Progress, duration, silent
from mlip_deploy.simulation import judge
from mlip_deploy.simulation.content import JUDGEMENTS, Ending, Finding, Run
from mlip_deploy.simulation.page import page
from mlip_deploy.simulation.remedies import remedy
from mlip_deploy.simulation.table import Table

OUTPUT, REPORT = "output.txt", "report.html"
"""files of a run: all that the engine printed, and the page"""


def run(prepared: Prepared, *, ranks: int = 1, progress: Progress = silent) -> Run:
    """Run what `prepare` wrote, and write a report beside it.

    The engine runs in a process of its own, in the folder. `output.txt` holds all that it prints, `report.html` the
    verdict, the plots, the settings and what to do next.

    Parameters
    ----------
    prepared
        From `mlip_deploy.prepare`.
    ranks
        MPI ranks (LAMMPS only).
    progress
        Called with a line of text at each row of the engine's table.

    Returns
    -------
    Run
        A run that died is one too: its `passed` is False, its findings hold the engine's message and a remedy.

    Raises
    ------
    MLIPError
        For ranks that the engine does not have, and an engine that cannot be started.
    KeyboardInterrupt, SystemExit
        On Ctrl-C, and on SIGTERM under the command `mlip`: the engine is ended and the report written before.
    """
    if ranks < 1 or (ranks > 1 and prepared.engine != "lammps"):
        expected = "a positive number" if ranks < 1 else f"1: {prepared.engine} has threads, but no ranks"
        raise MLIPError(f"--ranks {ranks}: expected {expected}. For several ranks type: mlip run lammps ... --ranks 2")
    command = [sys.executable, prepared.script.name]
    if prepared.engine == "lammps":
        command = [*launcher(ranks), "-in", prepared.script.name]
    for name in RESTARTS[prepared.engine]:  # of an earlier run in this folder
        (prepared.folder / name).unlink(missing_ok=True)
    table, lines, start = Table(), list[str](), time.monotonic()

    def ended(ending: Ending, message: str = "") -> Run:
        seconds = time.monotonic() - start
        done = _summary(prepared, ranks, table, ending, message, seconds, _warnings(lines))
        write_text(prepared.folder / REPORT, page(done))
        return done

    with open(prepared.folder / OUTPUT, "w", encoding="utf-8", buffering=1) as output:

        def heard(line: str) -> None:
            output.write(line)
            lines.append(line)
            row = table.take(line)
            if row is not None and (not prepared.plan.relaxes or "largest_force" in row):
                progress(_now(prepared, row, time.monotonic() - start))

        progress(f"{prepared.engine}: starting")
        try:
            status = follow(command, prepared.folder, heard)
        except (KeyboardInterrupt, SystemExit):
            if prepared.engine == "lammps":
                keep_whole_frames(prepared.folder / TRAJECTORIES["lammps"])
            ended("interrupted")
            raise
    if status != 0:
        return ended("failed", _message("".join(lines), status))
    if prepared.engine == "lammps":  # as the other engines, in a format that names elements: the start of another run
        write(prepared.folder / "final.extxyz", read(prepared.folder / "final.data", format="lammps-data"))
    return ended("finished")


def _summary(
    prepared: Prepared, ranks: int, table: Table, ending: Ending, message: str, seconds: float, warnings: list[str]
) -> Run:
    plan = prepared.plan
    done = int(table["step"][-1]) if len(table) else 0
    if ending == "finished" and not plan.relaxes:
        done = plan.steps  # which need not be in the table
    step = "iteration" if plan.relaxes else "step"
    how_far = f"{step} {done}" if plan.relaxes else f"{step} {done} of {plan.steps}"
    if ending == "finished":
        findings = judge.findings(prepared, table)
    elif ending == "interrupted":
        findings = [Finding(verdict="open", text=f"it was interrupted at {how_far}", remedy=_go_on(prepared))]
    else:
        findings = [
            Finding(verdict="fail", text=f"{prepared.engine} stopped at {how_far}: {message}", remedy=remedy(message))
        ]
    findings.sort(key=lambda finding: JUDGEMENTS.index(finding.verdict), reverse=True)
    return Run(
        engine=prepared.engine,
        command=f"cd {prepared.folder} && {f'mpiexec -n {ranks} ' if ranks > 1 else ''}{prepared.command}",
        ranks=ranks,
        model=prepared.model,
        structure=f"{prepared.formula}, {prepared.n_atoms} atoms",
        plan=plan.describe(),
        settings=tuple(_settings(prepared, ranks)),
        ending=ending,
        steps_done=done,
        steps=plan.steps,
        seconds=seconds,
        findings=tuple(findings),
        averages=tuple(judge.averages(prepared, table)),
        curves=tuple(judge.curves(prepared, table)) if len(table) > 1 else (),
        warnings=tuple(warnings),
        following=tuple(_following(prepared, ending, findings)),
    )


def _settings(prepared: Prepared, ranks: int) -> list[tuple[str, str]]:
    plan = prepared.plan
    found = [] if plan.relaxes else [("time step", f"{plan.timestep:g} fs: {plan.timestep_reason}")]
    if plan.d3:
        found.append(("dispersion", f"D3 for {plan.d3}"))
    if plan.zbl:
        found.append(("repulsion", "ZBL"))
    threads = f"{plan.threads} threads" if plan.threads else "the engine's own number of threads"
    found.append(("hardware", f"{plan.device}, {ranks} rank{'s' if ranks > 1 else ''}, {threads}"))
    return [*found, *(("note", note) for note in prepared.notes)]


def _now(prepared: Prepared, row: dict[str, float], seconds: float) -> str:
    """Where a run is, in a line."""
    plan, step = prepared.plan, int(row["step"])
    words = [f"{row['potential'] / prepared.n_atoms:.4f} eV/atom"]
    if "largest_force" in row:
        words.append(f"largest force {row['largest_force']:.4f} eV/Å")
    if plan.relaxes:
        return f"{prepared.engine}: iteration {step}, {', '.join(words)}"
    words.insert(0, f"{row['temperature']:.0f} K")
    if 0 < step < plan.steps:
        words.append(f"{duration(seconds / step * (plan.steps - step))} left")
    return f"{prepared.engine}: step {step} of {plan.steps} ({100 * step // plan.steps} %), {', '.join(words)}"


def _message(output: str, status: int) -> str:
    """What an engine says of its end: LAMMPS's error, the last line of a traceback, or the end of what it printed."""
    if error := error_line(output):
        return error
    traceback = output.rpartition("\nTraceback (most recent call last):\n")[2]
    raised = re.search(r"^[\w.]*(?:Error|Exception|Exit)\w*: .*", traceback, flags=re.MULTILINE | re.DOTALL)
    if raised:
        return raised[0].strip()
    how = f"signal {-status}{' (Killed)' if status == -9 else ''}" if status < 0 else f"status {status}"
    return f"{how}, after: {output.strip()[-500:] or 'nothing'}"


def _warnings(lines: list[str]) -> list[str]:
    """Each of the engine's warnings once, without where it stands in the engine's source."""
    found = (re.match(r"\s*WARNING(?: on proc \d+)?: (.*?)(?: \(\S*:\d+\))?$", line) for line in lines)
    return list(dict.fromkeys(match[1] for match in found if match))


def _go_on(prepared: Prepared) -> str:
    """After a stop."""
    folder = prepared.folder
    if prepared.plan.relaxes:
        trajectory = folder / TRAJECTORIES[prepared.engine]
        if prepared.engine == "openmm" or not trajectory.exists():  # which writes no structure on the way to a minimum
            return BEGIN_ANEW
        return f"To relax further from the last structure, take {trajectory} in place of the structure"
    found = [name for name in RESTARTS[prepared.engine] if (folder / name).exists()]
    if not found:
        return BEGIN_ANEW
    return (
        f"The table and the trajectory up to there are whole. To go on from {' or '.join(found)}: "
        f"{prepared.script.name} says how, at 'to go on after a stop'"
    )


BEGIN_ANEW = "Nothing to go on from was written yet. Type the same line with --force"
TRAJECTORIES = {"ase": "trajectory.traj", "lammps": "trajectory.lammpstrj", "openmm": "trajectory.dcd"}
RESTARTS = {"ase": ["trajectory.traj"], "lammps": ["restart.a", "restart.b"], "openmm": ["restart.chk"]}
"""what an engine writes to go on from"""


def _following(prepared: Prepared, ending: Ending, findings: list[Finding]) -> list[tuple[str, str]]:
    """What to do next: sentences, and lines to type."""
    if ending != "finished" or any(finding.verdict == "fail" for finding in findings):
        return []
    (model,) = prepared.folder.glob("model.mlip.*")
    again = f"mlip run {prepared.engine} {model} {prepared.folder / 'final.extxyz'}"
    found = [("Look at the trajectory.", _viewer(prepared))]
    if prepared.plan.relaxes:
        found.append(("Let it move.", f"{again} -o dynamics --ensemble nvt --temperature 300 --time 10ps"))
    else:
        longer = f"--ensemble {prepared.plan.ensemble} --temperature {prepared.plan.temperature:g}"
        found.append(("Start a longer run where this one ended.", f"{again} -o longer {longer} --time 100ps"))
    elements = ",".join(Formula(prepared.formula).count())
    command = f"mlip validate {model} --elements {elements} -o validation"
    found.append(("Ask what the model is worth for these elements.", command))
    return found


def _viewer(prepared: Prepared) -> str:
    trajectory = prepared.folder / TRAJECTORIES[prepared.engine]
    if prepared.engine == "openmm":
        return f"vmd {prepared.folder / 'topology.pdb'} {trajectory}"
    return f"ase gui {trajectory}"
