"""`mlip_deploy.validate`: run suites on an artifact, write the report, and the verdict into the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlip_deploy.artifact.gate import write_validation_record
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.artifact.validation_record import REQUIRED_SUITES
from mlip_deploy.domain.fit import fit_domain
from mlip_deploy.engines import require_engine, require_hardware
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import require_file, require_folder, write_text
from mlip_deploy.progress import Progress, silent
from mlip_deploy.validation import run
from mlip_deploy.validation.case import Context, Hardware
from mlip_deploy.validation.report.summary import page
from mlip_deploy.validation.run import Validation
from mlip_deploy.validation.suites import DEFAULT_SUITES, MEASURED, SUITES


def validate(
    path: str | Path,
    suites: Sequence[str] = DEFAULT_SUITES,
    *,
    out: str | Path,
    engine: str = "lammps",
    elements: Sequence[str] = (),
    use: str | None = None,
    reference: Sequence[str | Path] = (),
    base: str | Path | None = None,
    tuned_on: Sequence[str | Path] = (),
    frame: str | None = None,
    recipes: str | Path | None = None,
    threads: int = 0,
    device: str = "cpu",
    record: bool = False,
    progress: Progress = silent,
) -> Validation:
    """Run validation suites on an artifact in an engine.

    Every outcome is stored in `out` as soon as it is known, so that the same call continues an interrupted run. `out`
    then contains `validation.json` (every number, threshold, source and verdict) and `report.html`.

    Parameters
    ----------
    path
        Artifact written by `mlip export`.
    suites
        Some of "fidelity", "physics", "reference", "properties", "cost".
    out
        Folder of results.
    engine
        Engine of the suites physics and properties: "ase", "lammps" or "openmm". Fidelity runs in all that are
        installed.
    elements
        Chemical symbols to test with; all of the model's when empty.
    use
        Purpose of the model, in your words; printed in the report.
    reference
        Reference data, by name or as files in extended XYZ.
    base
        Artifact of the model before it was fine-tuned.
    tuned_on
        Reference data that it was fine-tuned on, by name or as files.
    frame
        Conversion of the reference energies to the model's energy frame.
    recipes
        Folder with property recipes of your own.
    threads
        CPU threads in the model; 0 is the engine's own choice.
    device
        Of the model: "cpu", "cuda", "cuda:N" or "auto".
    record
        Write the verdict, pass or fail, into the file, and with it the domain: the reference frames, from which grades
        are distances. A file keeps the domain that it has.
    progress
        Called with a line of text before each case and by the cases themselves.

    Returns
    -------
    Validation
        All outcomes; `passed` is true if every suite has a result and no check failed.

    Raises
    ------
    MLIPError
        For wrong input, an engine or a package that is not installed, a device that is not here, a folder that cannot
        be written to: before anything runs.
    """
    if not suites:
        raise MLIPError(f"--suites is empty. Name some of {', '.join(SUITES)}")
    named = ",".join(suites)
    for suite in suites:
        if suite not in SUITES:
            raise MLIPError(f"--suites {named}: '{suite}' is not one of {', '.join(SUITES)}")
    if not set(suites) - set(MEASURED):
        raise MLIPError(
            f"--suites {named} measures and judges nothing. Add a suite, such as fidelity, or type: mlip bench {path}"
        )
    absent = [suite for suite in REQUIRED_SUITES if suite not in suites]
    if record and absent:
        raise MLIPError(
            f"--record: the suite(s) {', '.join(absent)} would not run. Type: mlip validate {path} --suites "
            f"{','.join(dict.fromkeys([*REQUIRED_SUITES, *suites]))} --record -o {out}"
        )
    if recipes is not None and not Path(recipes).is_dir():
        raise MLIPError(f"--recipes {recipes}: no such folder")
    if tuned_on and base is None:
        raise MLIPError(f"--tuned-on {tuned_on[0]} needs the model before it was tuned. Add: --base FILE")
    if base is not None and not (reference or tuned_on):
        raise MLIPError(f"--base {base} is compared on reference data. Add: --tuned-on FILE --reference NAME")
    if base is not None and "reference" not in suites:
        raise MLIPError(f"--base {base}: nothing reads it. Add: --suites reference")
    require_engine(engine)
    require_hardware(threads, device)
    artifact = Artifact(path)
    contract = artifact.contract
    unknown = [symbol for symbol in elements if symbol not in contract.elements]
    if unknown:
        raise MLIPError(
            f"--elements {','.join(elements)}: '{unknown[0]}' is not an element of {contract.model.name} "
            f"({len(contract.elements)} elements, see: mlip info {path})"
        )
    require_folder(out)
    if record:
        require_file(path)
    context = Context(
        artifact=artifact,
        engine=engine,
        directory=Path(out),
        elements=list(elements),
        use=use,
        reference=[str(name) for name in reference],
        base=Artifact(base) if base is not None else None,
        tuned_on=[str(name) for name in tuned_on],
        frame=frame,
        hardware=Hardware(threads, device),
        recipes=Path(recipes) if recipes is not None else None,
    )
    validation = run.validate(context, suites, progress)
    progress("writing the report")
    report = Path(out) / "report.html"
    write_text(report, page(validation))
    if record:
        write_validation_record(artifact, validation.record())
        if reference:
            validation = validation.model_copy(update={"domain": _fit_domain(context, progress)})
            write_text(report, page(validation))
    return validation


def _fit_domain(context: Context, progress: Progress) -> str:
    """Fit the domain of the file to the reference frames, unless it has one; returns in words what holds then."""
    path = context.artifact.path
    if context.artifact.contract.features is None:
        return "none: the file has no features"
    try:
        kept = Artifact(path).domain()
        if kept is not None:
            fit = f"mlip domain fit {path} --frames {' '.join(context.reference)}"
            return f"kept: {kept.describe()}. For that of the frames compared here: {fit}"
        device, threads = context.hardware.device, context.hardware.threads
        return fit_domain(path, context.reference, device=device, threads=threads, progress=progress).describe()
    except MLIPError as error:
        return f"none: {error}"
