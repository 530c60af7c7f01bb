"""Files that cannot be written: a clear error, nothing lost, nothing left. Links are followed."""

import subprocess
import sys

import pytest

from mlip_deploy.errors import MLIPError
from mlip_deploy.files import replacing, write_text

LIMITED = """
import resource, sys
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import write_text
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_text(sys.argv[1], "x" * 100_000)
except MLIPError as error:
    print(error)
"""


def test_a_link_stays_one(tmp_path):
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "file.txt", tmp_path / "link.txt"
    link.symlink_to(target)
    for text in ("new", "newer"):  # first it points to nothing
        write_text(link, text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file.txt", "folder", "link.txt"]


def test_a_device_stays_one(tmp_path):
    link = tmp_path / "full.txt"
    link.symlink_to("/dev/full")
    with pytest.raises(MLIPError, match=r"full.txt' cannot be written: No space left on device. Free some space"):
        write_text(link, "text")
    assert link.is_symlink()
    assert list(tmp_path.iterdir()) == [link]


def test_a_limit_on_the_size(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True)
    assert "file.txt' cannot be written: File too large. The limit on the size of files is too low" in done.stdout
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_kept(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    path.chmod(0o640)
    write_text(path, "new")
    assert path.stat().st_mode & 0o777 == 0o640


def test_an_exception_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
