"""`mlip atlas`: the datasheets of several models, and one page across them.

OUT/NAME/              the datasheet of NAME.mlip.pt
OUT/families/NAME.json models of one family on what the others sampled
OUT/atlas.json         all of it
OUT/atlas.html         the same to read, written from the JSON
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.bench.measure import in_process
from mlip_deploy.comparison.audit import Flag, audit, energy_distances
from mlip_deploy.comparison.cross import cross_predict, start_structures
from mlip_deploy.datasheets.atlas_page import page
from mlip_deploy.datasheets.datasheet import assemble, chosen_pieces, datasheet, must_be_given
from mlip_deploy.datasheets.evidence import Atlas, Relatives, Sheet, name_of
from mlip_deploy.engines import require_hardware
from mlip_deploy.errors import MLIPError, UnwritableError
from mlip_deploy.files import require_folder, write_text
from mlip_deploy.progress import Progress, after, duration, silent
from mlip_deploy.validation.case import Hardware

LABELLED = ("crystals", "ground-states")
"""pieces with an error for each label"""


def atlas(
    files: Sequence[str | Path],
    *,
    out: str | Path,
    pieces: Sequence[str] = (),
    quick: bool = False,
    threads: int = 1,
    device: str = "cpu",
    progress: Progress = silent,
) -> Atlas:
    """Write the datasheets of several models, and one page across them.

    Each model has a process of its own. Everything is stored in `out` as soon as it is known, so that the same call
    continues an interrupted run, and calls for different models may run at the same time: the last one, for all, finds
    their sheets.

    Parameters
    ----------
    files
        Artifacts, two or more.
    out
        Folder of results: `atlas.json`, `atlas.html`, and a folder with the datasheet of each file.
    pieces
        Names of pieces to measure; all when empty.
    quick
        Leave out what takes longer than a minute with SevenNet-0.
    threads
        CPU threads in the models.
    device
        Of the models: "cpu", "cuda", "cuda:N" or "auto".
    progress
        Called with a line of text before each model, by its pieces, and before what is across models.

    Returns
    -------
    Atlas
        All sheets, models of one family on what the others sampled, and labels to look at.

    Raises
    ------
    MLIPError
        For fewer than two files, one that is not an artifact, two of one name, an unknown piece, and a folder that
        cannot be written to: before anything runs.
    """
    paths, out = [Path(file) for file in files], Path(out)
    if len(paths) < 2:
        raise MLIPError(f"an atlas takes two artifacts or more. For one, type: mlip datasheet {paths[0]} -o {out}")
    names = [name_of(path.name) for path in paths]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise MLIPError(f"two files are called '{twice[0]}', as their sheets would be. Rename one of them")
    chosen_pieces(pieces, quick)
    require_hardware(threads, device)
    for path in paths:
        Artifact(path)
    require_folder(out)
    sheets, failures, start = [], {}, time.monotonic()
    for k, (name, path) in enumerate(zip(names, paths, strict=True)):
        left = f" (about {duration((time.monotonic() - start) / k * (len(paths) - k))} left)" if k else ""
        label = f"[{k + 1}/{len(paths)}] {name}{left}"
        progress(label)
        try:
            arguments = path, out / name, list(pieces), quick, threads, device
            sheets.append(in_process(_sheet, *arguments, progress=after(label, progress)))
        except UnwritableError:
            raise
        except MLIPError as error:  # the process ended, such as for want of memory
            failures[path.name] = str(error)
            sheets.append(assemble(path, out / name, threads=threads, device=device))
    families: dict[str, list[Path]] = {}
    for path, sheet in zip(paths, sheets, strict=True):
        if not must_be_given(Artifact(path)):
            families.setdefault(sheet.identity.family, []).append(path)
    hardware = Hardware(threads, device)
    found = Atlas(
        sheets=sheets,
        failures=failures,
        relatives=[
            _relatives(family, members, out, hardware, progress)
            for family, members in families.items()
            if len(members) > 1
        ],
        flags=_flags(sheets),
    )
    write_text(out / "atlas.json", found.model_dump_json(indent=1) + "\n")
    write_text(out / "atlas.html", page(found))
    return found


def _sheet(
    path: Path, out: Path, pieces: list[str], quick: bool, threads: int, device: str, *, progress: Progress
) -> Sheet:
    return datasheet(path, out=out, pieces=pieces, quick=quick, threads=threads, device=device, progress=progress)


# ---- one family -----------------------------------------------------------------------------------------------------


def _relatives(family: str, paths: Sequence[Path], out: Path, hardware: Hardware, progress: Progress) -> Relatives:
    """From disk, if it holds for these files."""
    contents = [Artifact(path).content_sha256() for path in paths]
    key = hashlib.sha256(json.dumps([contents, hardware._asdict()]).encode()).hexdigest()
    file = out / "families" / f"{family}-{key[:12]}.json"
    if file.exists():
        try:
            return Relatives.model_validate_json(file.read_bytes())
        except ValidationError:
            pass  # of another version
    label = f"family {family}"
    progress(label)
    names, start = [name_of(path.name) for path in paths], time.perf_counter()
    try:
        forces, structures = in_process(
            _cross_predict, paths, file.with_suffix(""), hardware, progress=after(label, progress)
        )
    except UnwritableError:
        raise
    except Exception as error:  # what models, engines and their libraries stumble over
        return Relatives(family=family, models=names, reason=f"{type(error).__name__}: {error}")
    found = Relatives(
        family=family,
        models=names,
        forces=forces,
        structures=structures,
        seconds=round(time.perf_counter() - start, 2),
    )
    write_text(file, found.model_dump_json(indent=1) + "\n")
    return found


def _cross_predict(
    paths: Sequence[Path], folder: Path, hardware: Hardware, *, progress: Progress
) -> tuple[list[list[float]], int]:
    artifacts = [Artifact(path) for path in paths]
    found = cross_predict(artifacts, "ase", start_structures(artifacts, []), folder, hardware, progress)
    return found.forces, len(found.structures)


# ---- labels ---------------------------------------------------------------------------------------------------------


def _flags(sheets: Sequence[Sheet]) -> list[Flag]:
    """Labels from which models of two families or more are far, while they agree with each other."""
    flags: list[Flag] = []
    for piece in LABELLED:
        having = [
            (sheet, evidence.found.errors)
            for sheet in sheets
            for evidence in sheet.evidence
            if evidence.piece == piece and evidence.found and evidence.found.errors
        ]
        if len({sheet.identity.family for sheet, _ in having}) < 2:
            continue
        names = sorted(set.intersection(*(set(errors) for _, errors in having)))
        deviation = np.array([[errors[name] for name in names] for _, errors in having])
        flags += audit(piece, names, *energy_distances(np.zeros_like(deviation), deviation), "energy", "eV/atom")
    return flags
