"""Read an artifact's contract and fixtures without importing torch.

An artifact is a TorchScript archive, or a package of AOTInductor (both are zip files), that carries
`mlip/contract.json` and `mlip/fixtures.json` as extra files; `sealed_archive` verifies it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from mlip_deploy.artifact.contract import BackendKind, Contract, parse_contract, parse_record
from mlip_deploy.artifact.domain_record import DomainHead, ElementArrays, parse_domain, parse_spaces
from mlip_deploy.artifact.fixtures import Fixtures
from mlip_deploy.artifact.sealed_archive import DOMAIN, EXPORT_LINE, SealedArchive
from mlip_deploy.artifact.validation_record import ValidationRecord
from mlip_deploy.errors import MLIPError

SUFFIXES: dict[BackendKind, str] = {"torchscript": ".mlip.pt", "aotinductor": ".mlip.pt2"}
SUFFIX = SUFFIXES["torchscript"]
CONTRACT_RECORD = "mlip/contract.json"
FIXTURES_RECORD = "mlip/fixtures.json"
VALIDATION_RECORD = "mlip/validation.json"

Record = TypeVar("Record", bound=BaseModel)


class Artifact:
    """The readable parts of an artifact. The whole file is verified when the object is made.

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
        self._archive = SealedArchive(self.path)
        self.contract = parse_contract(self._record(CONTRACT_RECORD), str(path))

    def contract_text(self) -> str:
        """The contract as it is stored: keys of a later minor schema are in it too."""
        return self._record(CONTRACT_RECORD).decode()

    def fixtures(self) -> Fixtures:
        """Structures with the original framework's results, stored at export."""
        return _parse(Fixtures, self._record(FIXTURES_RECORD), self.path, self.contract.is_newer)

    def sha256(self) -> str:
        """Of the whole file as it is now."""
        return file_sha256(self.path)

    def validation_record(self) -> ValidationRecord | None:
        """What `mlip validate --record` wrote; None for a file that has not been validated.

        Raises
        ------
        MLIPError
            For a record of another version.
        """
        record = self._archive.own.get(f"extra/{VALIDATION_RECORD}")
        if record is None:
            return None
        cure = f"validate it again: mlip validate {self.path} --record -o validation"
        return _parse(ValidationRecord, record, self.path, name="validation record", cure=cure)

    def domain(self) -> DomainHead | None:
        """What `mlip domain fit` wrote; None for a file without a domain.

        Raises
        ------
        MLIPError
            For a record that cannot be read, or that belongs to another model.
        """
        record = self._archive.own.get(DOMAIN)
        return None if record is None else parse_domain(record, self.path, self.content_sha256())

    def spaces(self) -> dict[str, ElementArrays]:
        """The space of each element of the domain, where grade 1 is a distance of 1; empty for a file without a domain.

        Raises
        ------
        MLIPError
            As `domain`.
        """
        head = self.domain()
        return {} if head is None else parse_spaces(self._archive.own[DOMAIN], head)

    def content_sha256(self) -> str:
        """Of every record but those of the validation and the domain, so that these change nothing and any edit does.

        It is the SHA-256 of the manifest without the domain (see `sealed_archive`); csrc/core/sealed_archive.cpp
        computes the same.
        """
        return self._archive.content_sha256()

    def _record(self, name: str) -> bytes:
        if f"extra/{name}" not in self._archive.own:
            raise MLIPError(f"'{self.path}' has no record 'extra/{name}'. Write it anew: {EXPORT_LINE}")
        return self._archive.own[f"extra/{name}"]


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _parse(
    model: type[Record],
    text: bytes,
    path: Path,
    newer: bool = False,
    name: str = "",
    cure: str = "",
) -> Record:
    try:
        return parse_record(model, json.loads(text), ignore_unknown=newer) if newer else model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        name = name or model.__name__.lower()
        where = ".".join(str(part) for part in first["loc"]) or name
        cure = cure or f"write it anew: {EXPORT_LINE}"
        raise MLIPError(
            f"'{path}': {name}: '{where}': {first['msg']}. The file may come from another version of "
            f"mlip-deploy; {cure}"
        ) from error


def records(contract: Contract, fixtures: Fixtures) -> dict[str, str]:
    """What makes an archive an artifact: the extra files by name."""
    return {CONTRACT_RECORD: contract.to_json(), FIXTURES_RECORD: fixtures.model_dump_json()}
