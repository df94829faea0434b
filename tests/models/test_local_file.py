"""What is no regular file is not read, nothing waits for it, and what we make is for the user alone."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from specee.models import gguf_header, local_file, resolve
from specee.models.errors import ModelError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices of Unix")

SPECIAL = ("pipe", "zero", "null", "socket", "folder", "link")


@pytest.fixture
def special(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / str(request.param)
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "folder":
        path.mkdir()
    elif request.param == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif request.param == "link":
        os.mkfifo(tmp_path / "there")
        path.symlink_to("there")
    else:
        path.symlink_to(f"/dev/{request.param}")
    return path


@pytest.mark.parametrize("special", SPECIAL, indirect=True)
@pytest.mark.parametrize(
    "use",
    [
        lambda path: local_file.read(path, 10),
        local_file.open_to_read,
        local_file.open_private,
        lambda path: local_file.open_private(path, append=True),
    ],
    ids=("read", "open", "write", "append"),
)
def test_what_is_no_regular_file_is_refused(special: Path, use: Callable[[Path], object]) -> None:
    with pytest.raises(local_file.NotRegularError, match=r"it is (no regular file|a folder)"):
        use(special)


@pytest.mark.parametrize("special", SPECIAL[:4], indirect=True)
def test_it_is_no_model(special: Path) -> None:
    with pytest.raises(ModelError, match=r"^not a model: .* is no regular file; give the path of a \.gguf file$"):
        resolve.resolve(str(special))
    with pytest.raises(ModelError, match=r"model not readable: .*it is no regular file"):
        gguf_header.read(special)


def test_a_link_to_nowhere_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(ModelError, match="is a link to gone, which is not there"):
        resolve.resolve(str(tmp_path / "link"))


def test_so_much_is_read_and_no_more(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10)
    assert local_file.read(file, 10) == b"x" * 10
    with pytest.raises(local_file.TooLargeError):
        local_file.read(file, 9)


@pytest.mark.skipif(not Path("/proc/kmsg").exists(), reason="Linux")
def test_a_file_without_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = os.pipe()
    os.set_blocking(first, False)
    monkeypatch.setattr(local_file, "open_to_read", lambda path: first)
    with pytest.raises(local_file.EndlessError, match="it has no end"):
        local_file.read(tmp_path, 10)
    os.close(second)


def test_what_is_made_is_for_the_user_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    os.close(local_file.open_private(tmp_path / "new"))
    local_file.make_folder(tmp_path / "one" / "two" / "three")
    made = ("new", "one", "one/two", "one/two/three")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in made]
    assert modes == [0o600, 0o700, 0o700, 0o700]
    (tmp_path / "one").chmod(0o755)
    local_file.make_folder(tmp_path / "one")
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o755
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
