"""Damaged artifacts: no bit can change, and nothing can be cut off, added or exchanged, without a refusal that says it.

Where a record lies in the file is read by Python's `zipfile`, not by the code that is tested. Damaged files are opened
in a process of their own: a crash there is a failure here.
"""

import base64
import hashlib
import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import openmm
import pytest
from archives import rewritten

from mlip_deploy.artifact import sealed_archive
from mlip_deploy.artifact.gate import write_validation_record
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.artifact.validation_record import ValidationRecord, release
from mlip_deploy.engines.lammps import LAMMPSError, run
from mlip_deploy.errors import MLIPError
from mlip_deploy.openmm import MLIPForce

AGAIN = "Copy it again, or write it anew: mlip export"

OPENER = """
import json, sys
import torch
from mlip_deploy import _core
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.errors import MLIPError

def attempt(open_file):
    try:
        open_file()
    except MLIPError as error:
        return str(error)
    return None

for path in json.load(sys.stdin):
    print(json.dumps([attempt(lambda: Artifact(path).fixtures()), attempt(lambda: _core.Potential(path))]), flush=True)
"""


@dataclass
class Place:
    """Where a record lies in a file, in bytes from its start."""

    name: str
    header: int
    content: int
    end: int
    entry: int
    """in the directory"""
    full_name: bytes


def places(path: Path) -> list[Place]:
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entry = archive.start_dir
        found = []
        for info in archive.infolist():
            name = info.filename.encode()
            name_length, extra = (int.from_bytes(data[info.header_offset + at :][:2], "little") for at in (26, 28))
            content = info.header_offset + 30 + name_length + extra
            short = info.filename.partition("/")[2]
            found.append(Place(short, info.header_offset, content, content + info.file_size, entry, name))
            entry += 46 + len(name) + len(info.extra) + len(info.comment)
    return found


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def replaced(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


@pytest.fixture(scope="module")
def whole(toy_local, tmp_path_factory):
    """A file with all kinds of records, the validation record too."""
    path = tmp_path_factory.mktemp("whole") / "toy.mlip.pt"
    path.write_bytes(toy_local.read_bytes())
    artifact = Artifact(path)
    write_validation_record(
        artifact,
        ValidationRecord(
            schema="1.0", verdict="pass", content_sha256=artifact.content_sha256(), suites=["fidelity", "physics"],
            engines=["ase"], elements=["Si"], versions={"torch": release("torch")}, expected_failures=[],
        ),
    )  # fmt: skip
    return path


def opened(paths: list[Path]) -> list[list[str | None]]:
    """What Python and C++ say to each file; None if it is taken."""
    done = subprocess.run(
        [sys.executable, "-c", OPENER], input=json.dumps([str(path) for path in paths]), capture_output=True, text=True
    )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert done.returncode == 0, f"{paths[min(len(answers), len(paths) - 1)]} ended the process: {done.stderr[-2000:]}"
    assert len(answers) == len(paths)
    return answers


def refused(directory: Path, mutants: dict[str, bytes], words: dict[str, str]) -> None:
    """Each mutant is refused, in the same words by Python and C++.

    Args:
        mutants: bytes of files by what was done to them.
        words: what the refusal must hold, beside what to type.
    """
    paths = {}
    for number, (what, data) in enumerate(mutants.items()):
        paths[what] = directory / f"{number}.mlip.pt"
        paths[what].write_bytes(data)
    wrong = []
    for (what, path), (python, cpp) in zip(paths.items(), opened(list(paths.values())), strict=True):
        if python is None or python != cpp or words[what] not in python or "mlip export" not in python:
            wrong.append(f"{what} ({path.name}): expected '{words[what]}'; Python: {python}; C++: {cpp}")
    assert not wrong, "\n".join(wrong)


def test_the_whole_file_is_taken(whole):
    assert opened([whole]) == [[None, None]]
    names = {place.name for place in places(whole)}
    assert {"extra/mlip/contract.json", "extra/mlip/validation.json", "constants/0", "data.pkl", "version"} <= names


def test_one_flipped_bit(whole, tmp_path):
    """In every record: at the start, in the middle and at the end of its content, of its header, and of its entry."""
    data = whole.read_bytes()
    mutants, words = {}, {}

    def flip(what: str, at: int, expected: str) -> None:
        bit = at % 8
        mutants[f"{what}, byte {at}, bit {bit}"] = flipped(data, at, bit)
        words[f"{what}, byte {at}, bit {bit}"] = expected

    for place in places(whole):
        named = f"record '{place.name}'"
        if place.end > place.content:
            for at in {place.content, (place.content + place.end) // 2, place.end - 1}:
                flip(f"content of {place.name}", at, named)
        # signature, flags, method, date, CRC, size, lengths, name, padding
        for at in (0, 6, 8, 12, 14, 21, 26, 28, 30, 30 + len(place.full_name) - 1, place.content - place.header - 1):
            flip(f"header of {place.name}", place.header + at, named)
        for at in (0, 8, 10, 16, 20, 24, 28, 30, 42, 46, 46 + len(place.full_name) - 1):
            flip(f"entry of {place.name}", place.entry + at, "damaged")
    for at in range(len(data) - 22, len(data)):
        flip("end record", at, "damaged")
    assert len(mutants) >= 200
    refused(tmp_path, mutants, words)


def test_a_name_that_is_no_text(whole, tmp_path):
    """One flipped bit may make a name of bytes that are no UTF-8: the message has to come through all the same."""
    content = bytearray(whole.read_bytes())
    place = content.rindex(b"constants.pkl") + len(b"constants.pkl") - 1  # in the directory, which stands at the end
    content[place] = 0xF9
    path = tmp_path / "name.mlip.pt"
    path.write_bytes(content)
    ((python, cpp),) = opened([path])
    assert python is not None
    assert "constants.pk\ufffd" in python
    assert python == cpp


def test_cut_off_or_added_to(whole, tmp_path):
    data = whole.read_bytes()
    mutants, words = {}, {}
    boundaries = [at for place in places(whole) for at in (place.header, place.content, place.end, place.entry)]
    for length in sorted({*boundaries, *range(0, len(data), len(data) // 20), *range(len(data) - 23, len(data))}):
        mutants[f"cut to {length}"] = data[:length]
        words[f"cut to {length}"] = "truncated or damaged" if length >= 4 else "is not an artifact"
    for name, more in (("a zero", b"\0"), ("zeros", b"\0" * 4096), ("a newline", b"\n"), ("itself", data)):
        mutants[f"{name} added"] = data + more
        words[f"{name} added"] = "damaged"
    mutants["a byte before"], words["a byte before"] = b"\0" + data, "damaged"
    middle = len(data) // 2
    mutants["a byte lost"], words["a byte lost"] = data[:middle] + data[middle + 1 :], "damaged"
    # A block of a disk that was never written.
    mutants["a hole"], words["a hole"] = replaced(data, 4096, b"\0" * 4096), "damaged"
    refused(tmp_path, mutants, words)


def test_exchanged_names(whole, tmp_path):
    """The checksum of each content is right and stands beside it; two names of one length are exchanged."""
    data = whole.read_bytes()
    of = {place.name: place for place in places(whole)}
    a, b = of["constants/0"], of["constants/1"]
    swapped = data
    for place, name in ((a, b.full_name), (b, a.full_name)):
        swapped = replaced(replaced(swapped, place.header + 30, name), place.entry + 46, name)
    twice = replaced(replaced(data, b.header + 30, a.full_name), b.entry + 46, a.full_name)
    refused(
        tmp_path,
        {"exchanged": swapped, "one name twice": twice},
        {
            "exchanged": "record 'constants/0' holds what another one should hold",
            "one name twice": "lists a record twice",
        },
    )


def test_records_that_are_missing_or_foreign(whole, tmp_path, monkeypatch):
    """Archives without a fault, but for a manifest that is not theirs."""
    manifest = sealed_archive.SealedArchive(whole).own[sealed_archive.MANIFEST].decode()
    monkeypatch.setattr(sealed_archive, "_manifest", lambda records: manifest)
    scratch = tmp_path / "scratch"

    def changed(change) -> bytes:
        return rewritten(whole, scratch, change).read_bytes()

    def exchange(contents):
        contents["constants/0"], contents["constants/1"] = contents["constants/1"], contents["constants/0"]

    mutants, words = (
        {"contents exchanged": changed(exchange)},
        {"contents exchanged": "record 'constants/0' holds what"},
    )
    for place in places(whole):
        if place.name not in (sealed_archive.MANIFEST, sealed_archive.VALIDATION):
            mutants[f"without {place.name}"] = changed(lambda contents, name=place.name: contents.pop(name))
            words[f"without {place.name}"] = f"record '{place.name}' is missing"
    mutants["one more"] = changed(lambda contents: contents.update({"constants/99": b"1234"}))
    words["one more"] = "record 'constants/99' does not belong to it"
    contents = sealed_archive.SealedArchive(whole).read_all()
    del contents[sealed_archive.MANIFEST]
    with monkeypatch.context() as named_otherwise, scratch.open("wb") as file:
        named_otherwise.setattr(sealed_archive, "MANIFEST", "extra/other.txt")
        sealed_archive.write(file, contents)
    mutants["without a manifest"] = scratch.read_bytes()
    words["without a manifest"] = "has no record 'extra/mlip/manifest.txt'"
    refused(tmp_path, mutants, words)


def test_an_archive_in_another_form(whole, tmp_path):
    """Compressed by a zip tool, without a change of any record."""
    path = tmp_path / "zipped.mlip.pt"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    refused(tmp_path, {"zipped": path.read_bytes()}, {"zipped": "damaged: the entry of record '"})


def test_other_readers_find_no_fault(whole):
    """Python's zipfile verifies the checksums that ours writes."""
    with zipfile.ZipFile(whole) as archive:
        assert archive.testzip() is None
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    assert all(place.content % 64 == 0 for place in places(whole))


# ---- the slower engines -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flipped_weight(whole, tmp_path_factory):
    """One bit of a number of the model."""
    path = tmp_path_factory.mktemp("flipped") / "toy.mlip.pt"
    place = next(place for place in places(whole) if place.name == "constants/0")
    path.write_bytes(flipped(whole.read_bytes(), place.content + 5, 3))
    return path


DECK = """
units metal
region box block 0 9 0 9 0 9
create_box 1 box
create_atoms 1 single 1 1 1
create_atoms 1 single 3 1 1
mass 1 28.0
pair_style mlip
pair_coeff * * {path} Si
run 0
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_lammps(ranks, flipped_weight, tmp_path):
    with pytest.raises(LAMMPSError, match=rf"is damaged: record 'constants/0' does not hold .*{AGAIN}"):
        run(DECK.format(path=flipped_weight), tmp_path, ranks=ranks)


def test_openmm(whole, flipped_weight):
    with pytest.raises(MLIPError, match=rf"is damaged: record 'constants/0' does not hold .*{AGAIN}"):
        MLIPForce(flipped_weight, ["Si"])
    # What is embedded in a System's XML is read by C++ alone; this one was damaged before it was embedded.
    system = openmm.System()
    system.addParticle(28.0)
    system.addForce(MLIPForce(whole, ["Si"], embed=True))
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(system))
    element = next(root.iter("Artifact"))
    root.find(".//Force[@sha256]").set("sha256", hashlib.sha256(flipped_weight.read_bytes()).hexdigest())
    element.set("base64", base64.b64encode(flipped_weight.read_bytes()).decode())
    damaged = openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode"))
    with pytest.raises(openmm.OpenMMException, match=rf"is damaged: record 'constants/0' does not hold .*{AGAIN}"):
        openmm.Context(damaged, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))


def test_an_artifact_stays_what_was_verified(whole, tmp_path):
    """All parts come from one reading, whatever becomes of the file in between."""
    path = tmp_path / "toy.mlip.pt"
    path.write_bytes(whole.read_bytes())
    artifact, fresh = Artifact(path), Artifact(whole)
    path.write_bytes(b"another file")
    assert artifact.fixtures() == fresh.fixtures()
    assert artifact.validation_record() == fresh.validation_record()
    assert artifact.content_sha256() == fresh.content_sha256()
    assert artifact.contract_text() == fresh.contract_text()
