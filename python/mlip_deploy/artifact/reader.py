"""Read an artifact's contract and fixtures without importing torch.

An artifact is a TorchScript archive, or a package of AOTInductor (both are zip files), that carries
`mlip/contract.json` and `mlip/fixtures.json` as extra files. csrc/core/archive.cpp makes the same distinctions between
files that are not artifacts.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from mlip_deploy.artifact.contract import BackendKind, Contract
from mlip_deploy.artifact.fixtures import Fixtures
from mlip_deploy.artifact.validation_record import Signature
from mlip_deploy.errors import MLIPError

SUFFIXES: dict[BackendKind, str] = {"torchscript": ".mlip.pt", "aotinductor": ".mlip.pt2"}
SUFFIX = SUFFIXES["torchscript"]
CONTRACT_RECORD = "mlip/contract.json"
FIXTURES_RECORD = "mlip/fixtures.json"
SIGNATURE_RECORD = "mlip/validation.json"
EXPORT_LINE = "mlip export FAMILY SOURCE -o NAME.mlip.pt"
"""Of a file that does not say of which family it is."""

Record = TypeVar("Record", bound=BaseModel)


class Artifact:
    """The readable parts of an artifact.

    Parameters
    ----------
    path
        File written by `mlip export`.

    Raises
    ------
    MLIPError
        For a file that is not an artifact, or one that is damaged; with the line that writes it anew.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.contract = _parse(Contract, self._record(CONTRACT_RECORD), self.path)

    def fixtures(self) -> Fixtures:
        """Structures with the original framework's results, stored at export."""
        return _parse(Fixtures, self._record(FIXTURES_RECORD), self.path)

    def sha256(self) -> str:
        """Of the whole file."""
        return file_sha256(self.path)

    def signature(self) -> Signature | None:
        """What `mlip validate --sign` wrote; None for a file that nobody signed."""
        with zipfile.ZipFile(self.path) as archive:
            entry = _records(archive).get(f"extra/{SIGNATURE_RECORD}")
            return None if entry is None else _parse(Signature, archive.read(entry), self.path)

    def content_sha256(self) -> str:
        """Of every record but the signature, so that signing changes nothing and any other edit does.

        In the order of the names (bytes): name, a zero byte, the length as eight bytes (little end first), content.
        csrc/core/archive.cpp computes the same.
        """
        digest = hashlib.sha256()
        with zipfile.ZipFile(self.path) as archive:
            for name, entry in sorted(_records(archive).items(), key=lambda item: item[0].encode()):
                if name != f"extra/{SIGNATURE_RECORD}":
                    content = archive.read(entry)
                    digest.update(name.encode() + b"\0" + len(content).to_bytes(8, "little") + content)
        return digest.hexdigest()

    def _record(self, name: str) -> bytes:
        path = self.path
        not_an_artifact = f"'{path}' is not an artifact of mlip-deploy (*{SUFFIX}). Write one with: {EXPORT_LINE}"
        if not path.exists():
            raise MLIPError(f"'{path}': no such file. Write one with: {EXPORT_LINE}")
        if path.is_dir():
            raise MLIPError(f"'{path}' is a folder, not an artifact (*{SUFFIX})")
        try:
            with zipfile.ZipFile(path) as archive:
                names = _records(archive)
                if f"extra/{name}" in names:
                    return archive.read(names[f"extra/{name}"])
        except (zipfile.BadZipFile, OSError) as error:
            with path.open("rb") as file:
                starts_like_zip = file.read(4) == b"PK\x03\x04"
            if starts_like_zip:
                raise MLIPError(
                    f"'{path}' is truncated or damaged ({path.stat().st_size} bytes). Copy it again, or write it anew: "
                    f"{EXPORT_LINE}"
                ) from error
            raise MLIPError(not_an_artifact) from error
        if "constants.pkl" in names:
            raise MLIPError(
                f"'{path}' is a TorchScript file without a contract: mlip-deploy did not write it. Export the model's "
                f"checkpoint instead: {EXPORT_LINE}"
            )
        if "archive_format" in names:
            raise MLIPError(
                f"'{path}' is a package of torch.export without a contract: mlip-deploy did not write it. Export the "
                f"model's checkpoint instead: {EXPORT_LINE}"
            )
        if "data.pkl" in names:
            raise MLIPError(
                f"'{path}' is a PyTorch checkpoint, not an exported model. Export it first: "
                f"mlip export FAMILY {path} -o NAME{SUFFIX}   (families: mlip export --list)"
            )
        raise MLIPError(not_an_artifact)


def _records(archive: zipfile.ZipFile) -> dict[str, str]:
    """Name in the archive of each record; torch puts all below a folder called as the file was when it was written."""
    return {entry.partition("/")[2]: entry for entry in archive.namelist()}


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _parse(model: type[Record], text: bytes, path: Path) -> Record:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or model.__name__.lower()
        raise MLIPError(
            f"'{path}': {model.__name__.lower()}: '{where}': {first['msg']}. The file may come from another version of "
            f"mlip-deploy; write it anew: {EXPORT_LINE.replace('FAMILY', _family(text))}"
        ) from error


def _family(contract: bytes) -> str:
    """Of a contract that is not whole, if it says so much."""
    try:
        return str(json.loads(contract)["model"]["family"])
    except (ValueError, LookupError, TypeError):
        return "FAMILY"


def records(contract: Contract, fixtures: Fixtures) -> dict[str, str]:
    """What makes an archive an artifact: the extra files by name."""
    return {CONTRACT_RECORD: contract.to_json(), FIXTURES_RECORD: fixtures.model_dump_json()}
