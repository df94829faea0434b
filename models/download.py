"""From a name to a verified file: what is missing is fetched into the shared cache, and goes on where it stopped."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from specee.models import cache, hub, resolve
from specee.models.errors import DownloadError
from specee.models.hub import RemoteFile
from specee.models.source import Source
from specee.models.transfer import OnProgress, RateMeter, TransferProgress

_SPARE = 64 << 20  # bytes that a disk should have left
_WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class Plan:
    """What a pull would fetch. Sizes in bytes; `missing` leaves out what is on this machine already."""

    name: str
    source: Source
    files: tuple[RemoteFile, ...]

    @property
    def total(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> int:
        with _writing():
            return self.total - sum(_arrived(file) for file in self.files)


def pull(name: str, on_progress: OnProgress = lambda progress: None, *, offline: bool = False) -> Path:
    """Fetches what is missing of the model `name`, and returns its (first) file.

    `on_progress` is called about once a MiB, in this thread; what it raises stops the transfer and comes out here. What
    has come is kept then, as it is when the process dies. Raises ModelError.
    """
    plan = prepare(name, offline=offline)
    return fetch(plan, on_progress) if plan is not None else resolve.resolve(name).path


def prepare(name: str, *, offline: bool = False) -> Plan | None:
    """Asks the hub for the files of `name`, their sizes and hashes; None for a model that no hub has: a file, ours."""
    wanted = resolve.interpret(name)
    if wanted.source is None:
        return None
    if offline or hub.is_offline():
        raise hub.offline_error(wanted.name)
    return Plan(wanted.name, wanted.source, hub.files(wanted.source))


def fetch(plan: Plan, on_progress: OnProgress = lambda progress: None) -> Path:
    """Fetches the files of a plan. See `pull`."""
    _check_room(plan)
    meter = RateMeter(plan.total)

    def report_after(before: int) -> Callable[[int], None]:
        return lambda done: on_progress(meter.at(before + done))

    before = 0
    paths = []
    for file in plan.files:
        paths.append(_fetch(file, plan.source.revision, report_after(before)))
        before += file.size
    on_progress(TransferProgress(plan.total, plan.total))
    return paths[0]


@contextmanager
def _writing() -> Iterator[None]:
    """Around what is done in the cache, which may be any folder."""
    try:
        yield
    except OSError as error:
        raise hub.not_writable(error) from error


def _arrived(file: RemoteFile) -> int:
    if _complete(file):
        return file.size
    part = cache.part(file.repo, file.sha256)
    return min(part.stat().st_size, file.size) if part.exists() else 0


def _complete(file: RemoteFile) -> bool:
    """Under its hash, or, where there are no links, under its name."""
    return cache.blob(file.repo, file.sha256).is_file() or cache.pointer(file.repo, file.commit, file.name).is_file()


def _check_room(plan: Plan) -> None:
    folder = cache.root()
    with _writing():
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
    if plan.missing and plan.missing + _SPARE > free:
        raise DownloadError(
            "no room",
            f"{plan.missing / 1e6:.0f} MB are missing and {free / 1e6:.0f} MB are free in {cache.root()}; "
            "make room, or set HF_HOME to a folder on another disk",
        )


def _fetch(file: RemoteFile, revision: str, report: Callable[[int], None]) -> Path:
    """One file, fetched by one process at a time; one that waits reports how far the other is."""
    from filelock import FileLock, Timeout

    lock = cache.lock(file.repo, file.sha256)
    with _writing():
        lock.parent.mkdir(parents=True, exist_ok=True)
        cache.blob(file.repo, file.sha256).parent.mkdir(parents=True, exist_ok=True)
        file_lock = FileLock(lock)
        while True:
            try:
                file_lock.acquire(timeout=_WAIT_SECONDS)
                break
            except Timeout:
                report(_arrived(file))
        try:
            if not _complete(file) and not _transfer(file, report):
                _transfer(file, report)
            return cache.link(file.repo, revision, file.commit, file.name, file.sha256)
        finally:
            file_lock.release()


def _transfer(file: RemoteFile, report: Callable[[int], None]) -> bool:
    """Fetches what is missing of the part, and makes it the blob when its hash is right.

    False: what was here before was not of this file, and is deleted.
    """
    path = cache.part(file.repo, file.sha256)
    if path.exists() and path.stat().st_size > file.size:
        path.unlink()  # not of this file
    with _Part(path, report) as part:
        begin = part.tell()
        hub.download(file, part, begin)
        part.flush()
        os.fsync(part.fileno())
        found, size = part.sha256, part.tell()
    if found == file.sha256:
        path.replace(cache.blob(file.repo, file.sha256))
        return True
    if size < file.size:  # a connection that ends early looks like a page that says why
        raise DownloadError(
            "the server failed", f"of {file.name} ({file.size} bytes) it sent {size - begin} bytes only; {hub.AGAIN}"
        )
    path.unlink()
    if begin > 0:
        return False
    raise DownloadError(
        "wrong bytes",
        f"{file.name} of {file.repo} did not arrive as the server describes it ({size} bytes, SHA-256 {found[:12]}..., "
        f"not {file.size}, {file.sha256[:12]}...); it was deleted: try again, or another HF_ENDPOINT",
    )


class _Part(io.FileIO):
    """A file that grows at its end and knows its hash. Unbuffered: what was written survives a kill."""

    def __init__(self, path: Path, report: Callable[[int], None]) -> None:
        super().__init__(path, "a+b")
        self._report = report
        self._hash = hashlib.sha256()
        self.seek(0)
        while piece := self.read(hub.CHUNK):
            self._hash.update(piece)
        report(self.tell())

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:  # type: ignore[override]
        rest = memoryview(data)
        while rest:
            n = super().write(rest)
            self._hash.update(rest[:n])
            rest = rest[n:]
        self._report(self.tell())
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Only huggingface_hub calls it, when a server sends a file from the front though the rest was asked for."""
        assert self.tell() == 0
        self._hash = hashlib.sha256()
        return super().truncate(size)
