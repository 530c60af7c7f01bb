"""`mlip datasheet`: what one model says to six open questions. Each piece of evidence is kept as soon as it is there.

OUT/pieces/NAME.json   one piece of evidence with the key under which it holds
OUT/datasheet.json     all of them
OUT/datasheet.html     the same to read, written from the JSON
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

import mlip_deploy
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.artifact.validation_record import VERSIONED, release
from mlip_deploy.bench.report import machine
from mlip_deploy.datasheets.evidence import Evidence, Identity, Sheet, Stored
from mlip_deploy.datasheets.pieces import PIECES
from mlip_deploy.datasheets.pieces.piece import NotApplicableError, Piece, Subject, require_elements
from mlip_deploy.datasheets.sheet_page import page
from mlip_deploy.engines import require_hardware
from mlip_deploy.errors import MLIPError, UnwritableError
from mlip_deploy.files import require_folder, write_text
from mlip_deploy.progress import Progress, after, duration, silent
from mlip_deploy.validation.case import Hardware

QUICK = 60
"""s: `--quick` leaves out the pieces that take longer with SevenNet-0"""


def datasheet(
    path: str | Path,
    *,
    out: str | Path,
    pieces: Sequence[str] = (),
    quick: bool = False,
    threads: int = 1,
    device: str = "cpu",
    progress: Progress = silent,
) -> Sheet:
    """Measure what one model says to six open questions on foundation models, and write it as a page.

    Every piece of evidence is stored in `out` as soon as it is known, so that the same call continues an interrupted
    run. A piece that cannot be measured is missing evidence with its reason, and is tried again by the next call.

    Parameters
    ----------
    path
        Artifact written by `mlip export`.
    out
        Folder of results: `datasheet.json`, `datasheet.html`, and `pieces/`.
    pieces
        Names of pieces to measure; all when empty. Stored ones of other names stay on the sheet.
    quick
        Leave out what takes longer than a minute with SevenNet-0.
    threads
        CPU threads in the model.
    device
        Of the model: "cpu", "cuda", "cuda:N" or "auto".
    progress
        Called with a line of text before each piece and by the pieces themselves.

    Returns
    -------
    Sheet
        The identity of the file, and all evidence.

    Raises
    ------
    MLIPError
        For a file that is not an artifact, an unknown piece, a device that is not here, and a folder that cannot be
        written to: before anything runs.
    """
    chosen = chosen_pieces(pieces, quick)
    require_hardware(threads, device)
    require_folder(out)
    return _sheet(Path(path), Path(out), chosen, Hardware(threads, device), progress)


def assemble(path: str | Path, out: str | Path, *, threads: int = 1, device: str = "cpu") -> Sheet:
    """The datasheet of what is stored already, with its page."""
    return _sheet(Path(path), Path(out), [], Hardware(threads, device), silent)


def _sheet(path: Path, out: Path, chosen: Sequence[Piece], hardware: Hardware, progress: Progress) -> Sheet:
    """Measure the chosen pieces that are not stored, and write everything."""
    artifact = Artifact(path)
    identity = identity_of(artifact)
    versions = {"mlip-deploy": mlip_deploy.__version__, **{name: release(name) for name in VERSIONED}}
    left = sum(piece.seconds for piece in chosen)
    pace: list[tuple[float, float]] = []  # expected and measured seconds of what was measured
    evidence: list[Evidence] = []
    for piece in PIECES.values():
        file = out / "pieces" / f"{piece.name}.json"
        key = _key(piece, identity, hardware, versions)
        stored = _read(file, key)
        if piece in chosen:
            label = f"[{1 + chosen.index(piece)}/{len(chosen)}] {piece.name}{_time_left(left, pace)}"
            left -= piece.seconds
            if stored is None or stored.status == "missing":
                progress(label)
                subject = Subject(artifact, out / "work" / piece.name, hardware)
                stored = _measure(piece, subject, after(label, progress))
                pace.append((piece.seconds, stored.seconds))
                write_text(file, Stored(key=key, evidence=stored).model_dump_json(indent=1) + "\n")
            else:
                progress(f"{label} (stored)")
        if stored is None:
            stored = _without(piece, f"not measured yet. Type: mlip datasheet {path} --pieces {piece.name} -o {out}")
        evidence.append(stored)
    sheet = Sheet(identity=identity, machine=machine(), versions=versions, threads=hardware.threads, evidence=evidence)
    write_text(out / "datasheet.json", sheet.model_dump_json(indent=1) + "\n")
    write_text(out / "datasheet.html", page(sheet))
    return sheet


def chosen_pieces(names: Sequence[str], quick: bool) -> list[Piece]:
    """In the order of a sheet.

    Raises
    ------
    MLIPError
        For an unknown name, and where nothing is left.
    """
    for name in names:
        if name not in PIECES:
            raise MLIPError(f"--pieces {','.join(names)}: '{name}' is not one of {', '.join(PIECES)}")
    chosen = [piece for piece in PIECES.values() if not names or piece.name in names]
    kept = [piece for piece in chosen if not quick or piece.seconds <= QUICK]
    if not kept:
        raise MLIPError(f"--quick leaves nothing of --pieces {','.join(names)}. Leave --quick out")
    return kept


def identity_of(artifact: Artifact) -> Identity:
    """What the file says of itself."""
    contract, domain, validation = artifact.contract, artifact.domain(), artifact.validation_record()
    return Identity(
        file=artifact.path.name,
        content_sha256=artifact.content_sha256(),
        megabytes=1e-6 * artifact.path.stat().st_size,
        name=contract.model.name,
        family=contract.model.family,
        source_sha256=contract.model.source_sha256,
        licence=contract.model.license,
        citation=contract.model.citation,
        dtype=contract.dtype,
        parallel=contract.parallel,
        elements=contract.elements,
        cutoff=contract.cutoff,
        interaction_range=contract.interaction_range,
        energy_frame=contract.energy_frame.describe(),
        fixed={one.name: one.value for one in contract.inputs},
        settings=[f"{setting.name}: {setting.describe()}" for setting in contract.settings],
        outputs=[output.describe() for output in contract.outputs],
        domain=domain.describe() if domain else "none",
        validation=f"{validation.verdict}: {validation.describe()}" if validation else "none",
    )


def _measure(piece: Piece, subject: Subject, progress: Progress) -> Evidence:
    """Whatever goes wrong in a piece is its missing evidence, and not the end of the sheet."""
    evidence, start, cpu = _without(piece, ""), time.perf_counter(), _cpu_seconds()
    try:
        require_elements(subject.elements, piece.elements)
        _require_no_settings(piece, subject)
        found = piece.measure(subject, progress)
        evidence = evidence.model_copy(update={"status": "measured", "found": found})
    except UnwritableError:
        raise
    except NotApplicableError as why:
        evidence = evidence.model_copy(update={"status": "not-applicable", "reason": str(why)})
    except Exception as error:  # what models, engines and their libraries stumble over
        reason = str(error) if isinstance(error, MLIPError) else f"{type(error).__name__}: {error}"
        evidence = evidence.model_copy(update={"reason": reason})
    took = {"seconds": round(time.perf_counter() - start, 2), "cpu_seconds": round(_cpu_seconds() - cpu, 2)}
    return evidence.model_copy(update=took)


def _cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def must_be_given(artifact: Artifact) -> list[str]:
    """Names of settings without a default."""
    return [setting.name for setting in artifact.contract.settings if setting.default is None]


def _require_no_settings(piece: Piece, subject: Subject) -> None:
    needed = must_be_given(subject.artifact)
    if needed and not piece.gives_settings:
        raise NotApplicableError(
            f"settings: {', '.join(needed)} must be given at run time. See the sheet of a file with fixed ones: "
            f"mlip export ... {' '.join(f'--fix {name}=VALUE' for name in needed)}"
        )


def _without(piece: Piece, reason: str) -> Evidence:
    return Evidence(
        piece=piece.name,
        question=piece.question,
        measures=piece.measures,
        not_tested=piece.not_tested,
        status="missing",
        reason=reason,
    )


def _key(piece: Piece, identity: Identity, hardware: Hardware, versions: dict[str, str]) -> str:
    """Digest of all that the evidence depends on."""
    depends = [piece.name, piece.measures, identity.content_sha256, hardware._asdict(), versions]
    if piece.on_this_machine:
        depends.append(machine())
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def _read(file: Path, key: str) -> Evidence | None:
    if not file.exists():
        return None
    try:
        stored = Stored.model_validate_json(file.read_bytes())
    except ValidationError:
        return None  # of another version
    return stored.evidence if stored.key == key else None


def _time_left(expected: float, pace: Sequence[tuple[float, float]]) -> str:
    """In words, by the pace of what was measured so far; nothing before that."""
    if not pace:
        return ""
    slower = sum(measured for _, measured in pace) / sum(estimate for estimate, _ in pace)
    return f" (about {duration(expected * slower)} left)"
