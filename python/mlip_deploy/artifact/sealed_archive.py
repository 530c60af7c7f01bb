"""The archive that an artifact is: a zip file of which no byte can change unseen.

torch and every zip tool read it, but it has one form alone: records stored as they are, one after the other, each
content at a multiple of 64 bytes (torch maps tensors from there), then the directory, then the end record. So every
byte of a header follows from the names, sizes and CRC-32 values of the directory, and a reader compares all of them.
One record more, the manifest, binds each name to its content: a line with CRC-32, size and name for every record but
itself and the validation record, in the order of the names (bytes). csrc/core/sealed_archive.cpp reads the same.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mlip_deploy.errors import MLIPError

OWN = "extra/mlip/"
"""Where the records of mlip-deploy stand; the others are torch's. An archive without any is not an artifact."""
MANIFEST = "extra/mlip/manifest.txt"
VALIDATION = "extra/mlip/validation.json"
DOMAIN = "extra/mlip/domain"

EXPORT_LINE = "mlip export FAMILY SOURCE -o NAME.mlip.pt"
AGAIN = f"Copy it again, or write it anew: {EXPORT_LINE}"
AS_BYTES = "surrogateescape"
"""Names of damaged records may be no UTF-8: they keep their bytes."""

FOLDER = "artifact/"
"""torch wants all records below one folder"""
ALIGNMENT = 64
"""bytes"""
MOST_BYTES = 2**32 - 1
CHUNK = 1 << 20

# The fixed-size parts of a zip file (APPNOTE.TXT): of a record, of its entry in the directory, and the end.
HEADER = struct.Struct("<4s5H3I2H")
ENTRY = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
VERSION, UTF8_NAMES, STORED, MIDNIGHT, FIRST_OF_1980 = 20, 0x0800, 0, 0, 0x0021


class _Record(NamedTuple):
    name: str
    crc: int
    size: int
    offset: int
    """of its header in the file"""

    def header(self) -> bytes:
        """What stands before the content: fixed part, name, padding (an extra field, as torch writes it)."""
        name = (FOLDER + self.name).encode(errors=AS_BYTES)
        padding = -(self.offset + HEADER.size + len(name) + 4) % ALIGNMENT
        fixed = HEADER.pack(
            b"PK\x03\x04", VERSION, UTF8_NAMES, STORED, MIDNIGHT, FIRST_OF_1980, self.crc, self.size, self.size,
            len(name), 4 + padding,
        )  # fmt: skip
        return fixed + name + b"FB" + padding.to_bytes(2, "little") + b"Z" * padding

    def entry(self) -> bytes:
        """What stands in the directory."""
        name = (FOLDER + self.name).encode(errors=AS_BYTES)
        fixed = ENTRY.pack(
            b"PK\x01\x02", VERSION, VERSION, UTF8_NAMES, STORED, MIDNIGHT, FIRST_OF_1980, self.crc, self.size,
            self.size, len(name), 0, 0, 0, 0, 0, self.offset,
        )  # fmt: skip
        return fixed + name


def _end(n_records: int, directory_size: int, directory_offset: int) -> bytes:
    return END.pack(b"PK\x05\x06", 0, 0, n_records, n_records, directory_size, directory_offset, 0)


def _manifest(records: list[_Record]) -> str:
    listed = (record for record in records if record.name not in (MANIFEST, VALIDATION))
    by_name = sorted(listed, key=lambda record: record.name.encode(errors=AS_BYTES))
    return "".join(f"{record.crc:08x} {record.size} {record.name}\n" for record in by_name)


def _name_in(line: str) -> str:
    """The name in a line of a manifest."""
    return line.partition(" ")[2].partition(" ")[2]


def write(file: BinaryIO, contents: Mapping[str, bytes]) -> None:
    """Write an archive.

    Args:
        contents: by the name of the record, in the order in which they are to stand; without a manifest.

    Raises:
        MLIPError: for more than 4 GiB.
    """
    records: list[_Record] = []

    def add(name: str, content: bytes) -> None:
        record = _Record(name, zlib.crc32(content), len(content), file.tell())
        if record.offset + record.size > MOST_BYTES:
            raise MLIPError(f"an artifact holds 4 GiB at most; with record '{name}' this one would be larger")
        records.append(record)
        file.write(record.header())
        file.write(content)

    for name, content in contents.items():
        if name != MANIFEST:
            add(name, content)
    add(MANIFEST, _manifest(records).encode())
    directory_offset = file.tell()
    directory = b"".join(record.entry() for record in records)
    file.write(directory + _end(len(records), len(directory), directory_offset))


def write_zip(file: BinaryIO, archive: BinaryIO) -> None:
    """Write the records of any zip file whose records are below one folder, such as torch's, as an archive."""
    with zipfile.ZipFile(archive) as records:
        write(file, {name.partition("/")[2]: records.read(name) for name in records.namelist()})


class SealedArchive:
    """The records of an artifact. Every byte of the file has been verified once the constructor returns.

    Attributes:
        names: of all records.
        own: contents of the records below `extra/mlip/`.

    Raises:
        MLIPError: for a file that is missing, foreign or damaged; it names the record.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)
        self.own: dict[str, bytes] = {}
        if not self._path.exists():
            raise MLIPError(f"'{path}': no such file. Write one with: {EXPORT_LINE}")
        if self._path.is_dir():
            raise MLIPError(f"'{path}' is a folder, not an artifact (*.mlip.pt)")
        with self._path.open("rb") as file:
            self._verify(file)

    def read_all(self) -> dict[str, bytes]:
        """The contents of all records in their order, verified once more."""
        contents = {}
        with self._path.open("rb") as file:
            for record in self._records:
                file.seek(record.offset + len(record.header()))
                contents[record.name] = file.read(record.size)
                if zlib.crc32(contents[record.name]) != record.crc:
                    raise self._damaged(f"record '{record.name}' changed while it was read")
        return contents

    def content_sha256(self) -> str:
        """Of the manifest without the domain, and so of every record but the validation record and the domain.

        Both are said of a model and not part of it: a new domain leaves a validation as it is.
        """
        lines = self.own[MANIFEST].splitlines(keepends=True)
        kept = [line for line in lines if _name_in(line.decode(errors=AS_BYTES).rstrip("\n")) != DOMAIN]
        return hashlib.sha256(b"".join(kept)).hexdigest()

    def _verify(self, file: BinaryIO) -> None:
        self._size = file.seek(0, 2)
        directory, directory_offset, n_records = self._read_directory(file)
        self._records = self._list(directory)
        self.names = frozenset(record.name for record in self._records)
        if not any(name.startswith(OWN) for name in self.names):
            raise self._foreign()
        if MANIFEST not in self.names:
            raise MLIPError(
                f"'{self._path}' has no record '{MANIFEST}', by which the others are verified: it is damaged, or a "
                f"development version of mlip-deploy wrote it. {AGAIN}"
            )
        if len(self.names) != len(self._records) or n_records != len(self._records):
            raise self._damaged("its directory lists a record twice, or not all of them")

        file.seek(0)
        entry_offset = 0
        for record in self._records:
            entry = record.entry()
            if record.offset != file.tell() or directory[entry_offset : entry_offset + len(entry)] != entry:
                raise self._damaged(f"the entry of record '{record.name}' in its directory is not what was written")
            entry_offset += len(entry)
            header = record.header()
            if file.read(len(header)) != header:
                raise self._damaged(f"the header of record '{record.name}' is not what was written")
            self._verify_content(file, record)
        if file.tell() != directory_offset:
            raise self._damaged(f"its directory begins at byte {directory_offset}, expected {file.tell()}")
        self._compare(_manifest(self._records), self.own[MANIFEST].decode(errors=AS_BYTES))

    def _read_directory(self, file: BinaryIO) -> tuple[bytes, int, int]:
        """Its bytes, where it begins, and how many entries it should have."""
        file.seek(0)
        starts_like_zip = file.read(4) == b"PK\x03\x04"
        file.seek(max(0, self._size - END.size))
        end = file.read(END.size)
        if not end.startswith(b"PK\x05\x06"):
            if starts_like_zip:
                raise MLIPError(f"'{self._path}' is truncated or damaged ({self._size} bytes). {AGAIN}")
            raise self._not_an_artifact()
        _, _, _, _, n_records, size, offset, _ = END.unpack(end)
        # torch ends files with two records more, which lie between.
        if offset == MOST_BYTES or offset + size > self._size - END.size:
            raise self._damaged("its end record points outside of the file")
        file.seek(offset)
        directory = file.read(size)
        sealed = end == _end(n_records, size, offset) and offset + size == self._size - END.size
        if not sealed and MANIFEST.encode() in directory:
            raise self._damaged("its end record is not what was written")
        return directory, offset, n_records

    def _list(self, directory: bytes) -> list[_Record]:
        """As the directory says, whoever wrote it."""
        records: list[_Record] = []
        position = 0
        while position < len(directory):
            if position + ENTRY.size > len(directory) or directory[position : position + 4] != b"PK\x01\x02":
                raise self._damaged(f"its directory is not readable after entry {len(records)}")
            fields = ENTRY.unpack_from(directory, position)
            crc, size, (name_length, extra_length, comment_length) = fields[7], fields[9], fields[10:13]
            position += ENTRY.size
            name = directory[position : position + name_length].decode(errors=AS_BYTES).partition("/")[2]
            records.append(_Record(name, crc, size, fields[16]))
            position += name_length + extra_length + comment_length
        return records

    def _verify_content(self, file: BinaryIO, record: _Record) -> None:
        crc, left = 0, record.size
        chunks = []
        while left > 0:
            chunk = file.read(min(left, CHUNK))
            if not chunk:
                raise self._damaged(f"record '{record.name}' is longer than the file")
            crc = zlib.crc32(chunk, crc)
            left -= len(chunk)
            if record.name.startswith(OWN):
                chunks.append(chunk)
        if crc != record.crc:
            raise self._damaged(
                f"record '{record.name}' does not hold what was written (CRC-32 {crc:08x}, expected {record.crc:08x})"
            )
        if record.name.startswith(OWN):
            self.own[record.name] = b"".join(chunks)

    def _compare(self, found: str, expected: str) -> None:
        """Two manifests; raises with the first record in which they differ."""
        if found == expected:
            return
        here, listed = ({_name_in(line): line for line in text.splitlines()} for text in (found, expected))
        for name in sorted(here.keys() | listed.keys()):
            if name not in here:
                raise self._damaged(f"record '{name}' is missing")
            if name not in listed:
                raise self._damaged(f"record '{name}' does not belong to it")
            if here[name] != listed[name]:
                raise self._damaged(f"record '{name}' holds what another one should hold")
        raise self._damaged(f"record '{MANIFEST}' does not list its records as they are")

    def _damaged(self, what: str) -> MLIPError:
        readable = what.encode(errors=AS_BYTES).decode(errors="replace")
        return MLIPError(f"'{self._path}' is damaged: {readable}. {AGAIN}")

    def _not_an_artifact(self) -> MLIPError:
        return MLIPError(f"'{self._path}' is not an artifact of mlip-deploy (*.mlip.pt). Write one with: {EXPORT_LINE}")

    def _foreign(self) -> MLIPError:
        """What an archive without records of mlip-deploy is."""
        if "constants.pkl" in self.names:
            return MLIPError(
                f"'{self._path}' is a TorchScript file without a contract: mlip-deploy did not write it. Export the "
                f"model's checkpoint instead: {EXPORT_LINE}"
            )
        if "archive_format" in self.names:
            return MLIPError(
                f"'{self._path}' is a package of torch.export without a contract: mlip-deploy did not write it. Export "
                f"the model's checkpoint instead: {EXPORT_LINE}"
            )
        if "data.pkl" in self.names:
            return MLIPError(
                f"'{self._path}' is a PyTorch checkpoint, not an exported model. Export it first: "
                f"mlip export FAMILY {self._path} -o NAME.mlip.pt   (families: mlip export --list)"
            )
        return self._not_an_artifact()
