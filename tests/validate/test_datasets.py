"""Reference sets: from MLIP_DATA_DIR or by download, and never with another checksum."""

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlip_deploy.errors import MLIPError
from mlip_deploy.reference_data.datasets import DATA_DIR, DATASETS, Dataset, MissingDataError, fetch
from mlip_deploy.reference_data.readers import read_moduli, read_set, read_vacancies

needs_data = pytest.mark.skipif(not os.environ.get(DATA_DIR), reason=f"{DATA_DIR} names no folder with reference data")


def test_a_local_file_with_another_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_DIR, str(tmp_path))
    (tmp_path / DATASETS["wbm"].file).write_bytes(b"something else")
    with pytest.raises(MLIPError, match=r"the set 'wbm' has 8fc0aa85e6c9.*Fetch it anew: curl --create-dirs -Lo"):
        fetch(DATASETS["wbm"])


def test_a_missing_file_gives_the_line_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_DIR, str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    unreachable = replace(DATASETS["mlearn-Si"], url="http://127.0.0.1:9/data/Si/test.json")
    with pytest.raises(MLIPError) as error:
        fetch(unreachable)
    assert f"curl --create-dirs -Lo {tmp_path}/mlearn/Si.json {unreachable.url}" in str(error.value)
    assert str(error.value).endswith(f"export {DATA_DIR}={tmp_path}")


CONTENT = b"symbol,e_vacform\nCu,1.07\n"


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; `broken` breaks the connection off half way through it, as a bad network does."""

    broken = False

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if type(self).broken else CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dataset]:
    """A set on a server of this machine, with an empty cache of downloads."""
    monkeypatch.delenv(DATA_DIR, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Server, "broken", False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/table.csv"
        yield replace(DATASETS["vacancies-fcc"], url=url, sha256=hashlib.sha256(CONTENT).hexdigest())
        server.shutdown()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_download_is_verified_and_kept(served: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch(served)
    assert path.read_bytes() == CONTENT
    monkeypatch.setattr(Server, "broken", True)
    assert fetch(served) == path  # no second download


def test_a_download_with_another_checksum_is_refused_and_removed(served: Dataset, tmp_path: Path) -> None:
    expected = "0" * 64
    with pytest.raises(MLIPError) as error:
        fetch(replace(served, sha256=expected))
    message = str(error.value)
    assert f"{served.url} has SHA-256 {served.sha256}, the set 'vacancies-fcc' has {expected}" in message
    assert message.endswith(f"curl --create-dirs -Lo DATA/{served.file} {served.url} && sha256sum DATA/{served.file}")
    assert files(tmp_path) == []


def test_a_download_that_broke_off_leaves_nothing_and_can_be_repeated(
    served: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "broken", True)
    with pytest.raises(MissingDataError, match=r"nor could it be downloaded .*type: curl --create-dirs -Lo DATA/"):
        fetch(served)
    assert files(tmp_path) == []
    monkeypatch.setattr(Server, "broken", False)
    assert fetch(served).read_bytes() == CONTENT


@needs_data
def test_every_named_set_has_its_checksum_and_reads() -> None:
    for name, dataset in DATASETS.items():
        assert fetch(dataset).exists()
        if dataset.energies:
            frames = read_set(name)
            assert all(set(frame.energies) == set(dataset.energies) for frame in frames)
            assert np.isfinite([list(frame.energies.values()) for frame in frames]).all()
    assert len(read_set("wbm")) == 972
    assert len(read_set("mp-elements")) == 88
    assert len(read_moduli()) == 3953
    assert read_vacancies("fcc")["Cu"] == 1.07
    assert read_vacancies("fcc")["Ni"] == 1.43  # the magnetic row
    assert read_vacancies("hcp")["Mg"] == 0.78


@needs_data
def test_stresses_of_mlearn_have_the_sign_and_order_of_a_strained_crystal() -> None:
    compressed_along_x = next(frame for frame in read_set("mlearn-Si") if "mode 0, strain -0.06" in frame.name)
    assert compressed_along_x.stress is not None
    assert compressed_along_x.stress.argmin() == 0
    # 160 GPa times 6 %, more at so large a strain
    assert -0.08 < compressed_along_x.stress[0] < -0.05


def test_a_name_that_is_no_set_lists_the_sets() -> None:
    with pytest.raises(MLIPError, match=r"'wmb' is neither a file nor a reference set with energies\. Sets: wbm, "):
        read_set("wmb")
