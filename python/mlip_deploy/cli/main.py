"""The command `mlip`. Each subcommand is a thin layer over one function of the package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

import mlip_deploy
from mlip_deploy.artifact.gate import line_to_type, problem
from mlip_deploy.artifact.reader import SUFFIX, SUFFIXES, Artifact
from mlip_deploy.cli import bench
from mlip_deploy.cli import validate as command
from mlip_deploy.comparison import compare
from mlip_deploy.environment import build_plugin as deploy
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions
from mlip_deploy.files import write_text

TORCHFORCE_SUFFIX = ".torchforce.pt"

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 for a failed check or a wrong input, 2 for a wrong command line (argparse)."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except MLIPError as error:
        errors.print(f"[bold red]error[/]: {_escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        errors.print("interrupted")
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlip", description="Export, inspect and check interatomic potentials for LAMMPS, OpenMM and ASE."
    )
    parser.add_argument("--version", action="version", version=f"mlip-deploy {mlip_deploy.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    export = _command(
        commands, "export", "write an artifact from a checkpoint", "mlip export sevennet 7net-0 -o 7net-0.mlip.pt"
    )
    export.add_argument("family", nargs="?", choices=list(FAMILIES), help="framework that the model comes from")
    export.add_argument("source", nargs="?", help="name of a published model, or a checkpoint file")
    export.add_argument("-o", "--output", type=Path, metavar="FILE", help=f"to be written, *{SUFFIX}")
    export.add_argument("--list", action="store_true", help="show the families and how to install each, and exit")
    export.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="default: float32")
    export.add_argument("--modal", help="training modality, for checkpoints that have several")
    export.add_argument("--head", help="read-out head, for models that have several")
    export.add_argument("--elements", nargs="+", default=[], metavar="El", help="keep only these; default: all")
    export.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load a checkpoint file that is a pickle, which runs the code in it",
    )
    export.add_argument(
        "--no-fuse", action="store_true", help="keep the framework's own layers instead of the fused operators (slower)"
    )
    export.add_argument(
        "--backend",
        choices=list(SUFFIXES),
        default="torchscript",
        help="aotinductor: code compiled for this torch and processor, *.mlip.pt2; default: torchscript",
    )
    export.add_argument(
        "--target",
        choices=["artifact", "torchforce"],
        default="artifact",
        help="torchforce: a file for PyPI's openmmtorch, which needs no mlip-deploy to run",
    )
    export.set_defaults(run=_export)

    info = _command(commands, "info", "show an artifact's contract", "mlip info 7net-0.mlip.pt")
    info.add_argument("file", type=Path)
    info.add_argument("--json", action="store_true", help="the contract as it is stored")
    info.set_defaults(run=_info)

    check = _command(
        commands,
        "check",
        "replay an artifact's fixtures in the engines; exit 1 when one is out of tolerance",
        "mlip check 7net-0.mlip.pt --engines ase,lammps,openmm --ranks 1,2",
    )
    check.add_argument("file", type=Path)
    check.add_argument("--engines", default="ase,lammps,openmm", help="default: ase,lammps,openmm")
    check.add_argument("--ranks", default="1,2", help="MPI ranks for LAMMPS; default: 1,2")
    check.add_argument("--device", default="cpu", help="of the model: cpu (default), cuda, cuda:N or auto")
    check.add_argument("--json", type=Path, metavar="OUT", help="also write every number to OUT")
    check.set_defaults(run=_check)

    prove = _command(
        commands,
        "validate",
        "run validation suites on an artifact in an engine; exit 1 when a check fails",
        "mlip validate 7net-0.mlip.pt --suite fidelity,physics --engine lammps --sign -o validation",
    )
    command.add_arguments(prove)
    prove.set_defaults(run=_validate)

    several = _command(
        commands,
        "compare",
        "put several artifacts side by side: references, properties, cross-prediction, label audit",
        "mlip compare A.mlip.pt B.mlip.pt --reference wbm -o comparison/",
    )
    compare.add_arguments(several)
    several.set_defaults(run=_compare)

    measure = _command(
        commands,
        "bench",
        "measure speed, memory and the share of a step outside the model",
        "mlip bench 7net-0.mlip.pt --systems si64,si512 --engines ase,lammps",
    )
    bench.add_arguments(measure)
    measure.set_defaults(run=bench.run)

    build = _command(
        commands,
        "deploy",
        "build pair_style mlip for a LAMMPS of your own",
        "mlip deploy lammps --lammps-root DIR",
    )
    deploy.add_arguments(build)
    build.set_defaults(run=deploy.run)

    doctor = _command(commands, "doctor", "show versions, devices and problems with their cure", "mlip doctor")
    doctor.set_defaults(run=_doctor)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, purpose: str, example: str
) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=purpose, description=purpose.capitalize() + ".", epilog=f"example: {example}")


def _export(options: argparse.Namespace) -> int:
    if options.list:
        return _list_families()
    if not (options.family and options.source and options.output):
        raise MLIPError(
            "mlip export needs FAMILY, SOURCE and -o FILE. Type, for instance: mlip export sevennet 7net-0 -o "
            f"7net-0{SUFFIX}. For the families: mlip export --list"
        )
    torchforce = options.target == "torchforce"
    if torchforce and options.backend != "torchscript":
        raise MLIPError(f"--target torchforce is TorchScript. Leave out --backend {options.backend}")
    suffix = TORCHFORCE_SUFFIX if torchforce else SUFFIXES[options.backend]
    if not options.output.name.endswith(suffix):
        stem = options.output.name.split(".")[0]
        compiled = ", or add --backend aotinductor" if options.output.name.endswith(SUFFIXES["aotinductor"]) else ""
        raise MLIPError(f"-o {options.output}: file names end in {suffix} here. Type: -o {stem}{suffix}{compiled}")
    with _progress() as step:
        step("loading torch and the framework")
        from mlip_deploy.exporters.interface import write_artifact
        from mlip_deploy.exporters.targets.torchforce import write_torchforce

        fuse = not options.no_fuse and not torchforce  # TorchForce files hold no custom operator
        adapted = FAMILIES[options.family].adapt(
            options.source,
            ExportOptions(
                modal=options.modal,
                head=options.head,
                fuse=fuse,
                elements=tuple(options.elements),
                trust_checkpoint=options.trust_checkpoint,
            ),
        )
        if torchforce:
            write_torchforce(adapted, options.output, options.dtype, step)
        else:
            write_artifact(adapted, options.output, options.dtype, step, options.backend)
    size = options.output.stat().st_size / 1e6
    console.print(
        f"{options.output} ({size:.1f} MB): {adapted.identity.name}, {len(adapted.elements)} elements, cutoff "
        f"{adapted.cutoff:g} Å, {options.dtype}"
    )
    if not torchforce:
        console.print(f"next: mlip check {options.output}")
    return 0


def _list_families() -> int:
    table = Table(box=None, pad_edge=False)
    for heading in ("family", "installed", "install with", "SOURCE"):
        table.add_column(heading, no_wrap=heading != "SOURCE")  # a line to copy stays a line
    for family in FAMILIES.values():
        table.add_row(family.name, "yes" if family.installed else "no", family.install, _escape(family.sources))
    console.print(table)
    console.print("A model of your own: mlip_deploy.exporters.export_module (docs/extending.md)")
    return 0


def _info(options: argparse.Namespace) -> int:
    artifact = Artifact(options.file)
    contract = artifact.contract
    if options.json:
        print(contract.to_json())
        return 0
    fixtures = artifact.fixtures()
    signature = artifact.signature()
    if signature is None:
        validated = f"no. Type: {line_to_type(artifact)}"
    else:
        doubts = {engine: problem(artifact, engine) for engine in signature.engines}
        stale = "; ".join(f"not for {engine}: {doubt}" for engine, doubt in doubts.items() if doubt)
        tested = f", physics with {len(signature.elements)} of {len(contract.elements)} elements"
        validated = (
            signature.describe() + tested + (f". Stale: {stale}. Type: {line_to_type(artifact)}" if stale else "")
        )
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    noise = fixtures.float32_noise
    compiled_for = f", compiled for {contract.compiled_for.describe()}" if contract.compiled_for else ""
    for name, value in [
        ("model", f"{contract.model.name} ({contract.model.family}), licence {contract.model.license}"),
        ("citation", contract.model.citation),
        ("source", f"sha256 {contract.model.source_sha256}"),
        ("written by", f"{contract.producer.package} {contract.producer.version}, torch {contract.producer.torch}"),
        ("back end", f"{contract.backend}, {contract.dtype}{compiled_for}"),
        ("elements", f"{len(contract.elements)}: {' '.join(contract.elements)}"),
        (
            "range",
            f"cutoff {contract.cutoff:g} Å, {contract.message_passing_layers} message-passing layers, "
            f"interaction range {contract.interaction_range:g} Å",
        ),
        ("parallel", contract.parallel),
        ("energies", contract.energy_frame.describe()),
        ("inputs", ", ".join(f"{i.name} = {i.value} (of {', '.join(i.choices)})" for i in contract.inputs) or "none"),
        ("extras", ", ".join(contract.extras) or "none"),
        ("operators", ", ".join(contract.operators) or "none"),
        (
            "fixtures",
            f"{len(fixtures.structures)} structures from {fixtures.reference}; float32 noise "
            f"{noise.energy_per_atom:.1e} eV/atom, {noise.forces:.1e} eV/Å, {noise.stress:.1e} eV/Å³, "
            f"isolated atom {fixtures.isolated_atom_noise:.1e} eV",
        ),
        ("validated", validated),
    ]:
        table.add_row(name, _escape(value))
    console.print(table)
    return 0


def _check(options: argparse.Namespace) -> int:
    from mlip_deploy.engines import ENGINES

    engines = options.engines.split(",")
    for engine in engines:
        if engine not in ENGINES:
            raise MLIPError(f"--engines {options.engines}: '{engine}' is not one of {', '.join(ENGINES)}")
    try:
        ranks = [int(text) for text in options.ranks.split(",")]
    except ValueError:
        ranks = [0]
    if min(ranks) < 1:
        raise MLIPError(f"--ranks {options.ranks}: expected numbers such as 1,2")
    if options.json and options.json.is_dir():
        raise MLIPError(f"--json {options.json} is a folder. Name a file in it")

    Artifact(options.file)  # complain about the file before loading any engine
    from mlip_deploy.validation.fidelity import check

    with _progress() as step:
        report = check(options.file, engines, ranks, step, device=options.device)
    if options.json:
        write_text(options.json, report.model_dump_json(indent=1) + "\n")

    table = Table(title=f"{report.artifact}: {report.model} in {report.dtype} against {report.reference} in float64")
    for heading in ("engine", "ranks", "structures", "ΔE eV/atom", "lone atom eV", "ΔF eV/Å", "Δσ eV/Å³", "verdict"):
        table.add_column(heading, justify="left" if heading in ("engine", "verdict") else "right")
    for engine, n_ranks in dict.fromkeys((c.engine, c.ranks) for c in report.comparisons):
        rows = [c for c in report.comparisons if (c.engine, c.ranks) == (engine, n_ranks)]
        applicable = [c for c in rows if c.verdict != "not-applicable"]
        failed = [c for c in rows if c.verdict == "fail"]

        def worst(values: list[float | None]) -> str:
            numbers = [value for value in values if value is not None]
            return f"{max(numbers):.1e}" if numbers else "-"

        table.add_row(
            engine,
            str(n_ranks),
            f"{len(applicable)} of {len(rows)}",
            worst([c.energy_per_atom for c in applicable if c.n_atoms > 1]),
            worst([c.energy_per_atom for c in applicable if c.n_atoms == 1]),
            worst([c.forces for c in applicable]),
            worst([c.stress for c in applicable]),
            "[red]fail[/]" if failed else "[green]pass[/]",
        )
    table.add_section()
    table.add_row(
        "tolerance",
        "",
        "",
        f"{report.tolerance_energy_per_atom:.1e}",
        f"{report.tolerance_isolated_atom:.1e}",
        f"{report.tolerance_forces:.1e}",
        f"{report.tolerance_stress:.1e}",
        "",
    )
    console.print(table)
    for comparison in report.comparisons:
        where = f"{comparison.engine}, {comparison.ranks} rank(s), {comparison.structure}"
        if comparison.verdict == "fail":
            errors.print(f"[red]fail[/] {where}: {_escape(comparison.reason)}")
        elif comparison.verdict == "not-applicable":
            console.print(f"[dim]not applicable: {where}: {comparison.reason}[/]")
    return 0 if report.passed else 1


def _validate(options: argparse.Namespace) -> int:
    with _progress() as step:
        return command.run(options, step, console, errors)


def _compare(options: argparse.Namespace) -> int:
    with _progress() as step:
        return compare.run(options, step, console)


def _doctor(options: argparse.Namespace) -> int:
    from mlip_deploy.environment.doctor import examine

    with _progress() as step:
        step("looking at the environment")
        findings = examine()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for finding in findings:
        table.add_row(finding.item, _escape(finding.found) if finding.ok else f"[red]{_escape(finding.found)}[/]")
        if not finding.ok:
            table.add_row("", f"[red]{_escape(finding.problem)}[/]")
            table.add_row("", f"type: [bold]{_escape(finding.remedy)}[/]")
    console.print(table)
    return 0 if all(finding.ok for finding in findings) else 1


def _escape(text: str) -> str:
    """Rich reads square brackets as markup."""
    return text.replace("[", r"\[")


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """One line that shows what is going on: a spinner in a terminal, plain lines elsewhere."""
    if errors.is_terminal:
        with errors.status("") as status:
            yield lambda message: status.update(_escape(message))
    else:
        yield lambda message: errors.print(_escape(message))


if __name__ == "__main__":
    sys.exit(main())
