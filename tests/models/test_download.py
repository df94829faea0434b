"""Pulls from a hub on this machine: what arrives, and what happens when it does not."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import hub_server
import pytest
from hub_server import COMMIT, FILE, REPO, Hub

from specee.models import cache, download, resolve
from specee.models.errors import DownloadError, ModelError
from specee.models.hub import CHUNK
from specee.models.source import Source
from specee.models.transfer import RateMeter, TransferProgress

NAME = f"hf:{REPO}"


class StoppedError(Exception):
    pass


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def part(hub: Hub) -> Path:
    return cache.part(REPO, hub.sha256(REPO, FILE))


def test_a_pull_is_verified_and_others_find_it(hub: Hub, payload: Path) -> None:
    from huggingface_hub import scan_cache_dir, try_to_load_from_cache

    with pytest.raises(resolve.NotHere, match="models pull"):
        resolve.resolve(NAME)
    seen: list[TransferProgress] = []
    path = download.pull(NAME, seen.append)
    assert digest(path) == digest(payload) and path == resolve.resolve(NAME).path
    assert try_to_load_from_cache(REPO, FILE) == str(path)
    scanned = scan_cache_dir(cache.root())
    assert [repo.repo_id for repo in scanned.repos] == [REPO] and not scanned.warnings
    assert seen[0].done == 0 and seen[-1].done == seen[-1].total == payload.stat().st_size
    assert hub.tokens[-1] == "Bearer secret" and hub.store_tokens == [None]


def test_what_is_in_the_cache_is_not_fetched_again(hub: Hub, payload: Path) -> None:
    from huggingface_hub import hf_hub_download

    theirs = hf_hub_download(REPO, FILE)
    fetched = len(hub.requests)
    assert download.pull(NAME) == Path(theirs)
    hub.commit = "d" * 40  # the repository has moved on, the file has not changed
    assert download.pull(NAME).parent.name == hub.commit
    assert len(hub.requests) == fetched


@pytest.mark.parametrize("at", [0, 1, 65_536, CHUNK, CHUNK + 1, 5_299_999])
def test_a_cut_at_any_byte_goes_on_from_there(hub: Hub, payload: Path, at: int) -> None:
    hub.cut_after, hub.once = at, True
    with pytest.raises(DownloadError, match="goes on from there") as caught:
        download.pull(NAME)
    assert caught.value.exit_code == 4
    kept = part(hub).stat().st_size
    assert at - CHUNK < kept <= at
    hub.cut_after, hub.once, hub.status = None, False, {}
    hub.requests.clear()
    assert digest(download.pull(NAME)) == digest(payload)
    assert hub.requests == [[kept, payload.stat().st_size - kept]]


def test_a_connection_that_is_cut_again_and_again_is_bridged(hub: Hub, payload: Path) -> None:
    hub.cut_after = 2_000_000
    assert digest(download.pull(NAME)) == digest(payload)
    assert len(hub.requests) > 2


def test_wrong_bytes_are_not_kept(hub: Hub, payload: Path) -> None:
    hub.wrong_bytes = True
    with pytest.raises(DownloadError, match="wrong bytes"):
        download.pull(NAME)
    assert not part(hub).exists() and cache.find(resolve.interpret(NAME).source) is None  # type: ignore[arg-type]
    hub.wrong_bytes = False
    assert digest(download.pull(NAME)) == digest(payload)


def test_a_damaged_part_is_noticed(hub: Hub, payload: Path) -> None:
    part(hub).parent.mkdir(parents=True)
    part(hub).write_bytes(bytes(CHUNK))  # its rest is fetched, then all of it
    assert digest(download.pull(NAME)) == digest(payload)
    cache.remove(REPO, (resolve.resolve(NAME).path,))
    part(hub).parent.mkdir(parents=True)
    part(hub).write_bytes(bytes(payload.stat().st_size + 1))  # longer than the file can be
    assert digest(download.pull(NAME)) == digest(payload)


def test_a_server_without_ranges(hub: Hub, payload: Path) -> None:
    part(hub).parent.mkdir(parents=True)
    part(hub).write_bytes(payload.read_bytes()[:CHUNK])
    hub.ignore_ranges = True
    assert digest(download.pull(NAME)) == digest(payload)
    assert hub.requests == [[0, payload.stat().st_size]]


@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        ({"info": 401}, {"X-Error-Code": "RepoNotFound"}, "check the name"),
        ({"info": 404}, {"X-Error-Code": "RepoNotFound"}, "no such repository"),
        ({"head": 404}, {"X-Error-Code": "EntryNotFound"}, "no such file"),
        ({"head": 401}, {"X-Error-Code": "GatedRepo"}, "accept the licence at"),
        ({"head": 403}, {"X-Error-Code": "GatedRepo"}, "HF_TOKEN"),
        ({"head": 401}, {}, "HF_TOKEN"),
        ({"head": 429}, {}, "too many requests"),
        ({"get": 429}, {"Retry-After": "0"}, "too many requests"),
        ({"head": 500}, {}, "answered 500"),
        ({"get": 500}, {}, "answered 500"),
    ],
)
def test_refusals(hub: Hub, status: dict[str, int], headers: dict[str, str], says: str) -> None:
    hub.status, hub.headers = status, headers
    with pytest.raises(DownloadError, match=says) as caught:
        download.pull(NAME)
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)
    hub.status = {}
    assert download.pull(NAME).is_file()


@pytest.mark.parametrize("commit", ["../../../../outside", "..", "main", "C" * 40, "c" * 39, "/tmp/x"])
def test_a_commit_that_is_none(hub: Hub, commit: str, tmp_path: Path, cache_dir: Path) -> None:
    hub.commit = commit
    with pytest.raises(DownloadError, match="not a name"):
        download.pull(NAME)
    assert not cache_dir.exists() or not list(cache_dir.rglob("*.gguf"))
    hub.commit = COMMIT
    assert download.pull(NAME).is_file()


@pytest.mark.parametrize("name", ["../../../outside.gguf", "/tmp/outside.gguf", "a\\..\\b.gguf", "\x1b[2J.gguf"])
def test_a_file_that_leads_out_of_the_repository(hub: Hub, payload: Path, name: str, cache_dir: Path) -> None:
    hub.repos[REPO] = {name: payload}
    with pytest.raises(ModelError, match="no GGUF file"):
        download.pull(f"hf:{REPO}")
    assert not cache_dir.exists() or not list(cache_dir.rglob("*.gguf"))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        *((body, "it is not JSON") for body in (b"", b"{", b"\xff", b"\xff\xfe{", b"<html>")),
        (b"[" * 9999, "too deep"),
        *((body, "it is not built as the hub's answers are") for body in (b"[]", b"null", b"3", b'"x"', b"true")),
        (b"{}", "it has no 'id'"),
        (b'{"id": "x", "siblings": [{}]}', "it has no 'rfilename'"),
        (b'{"id": "x", "siblings": 3}', "it is not built as the hub's answers are"),
        (b'{"id": "x", "siblings": [3]}', "it is not built as the hub's answers are"),
        (b'{"id": "x", "createdAt": "never"}', "one of its values means nothing"),
    ],
)
def test_an_answer_that_cannot_be_read(hub: Hub, body: bytes, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_server._Handler, "_info", lambda self, repo: self._answer(200, {}, body))
    with pytest.raises(DownloadError) as caught:
        download.pull(f"hf:{REPO}")
    assert f"says of {REPO} cannot be read: " in str(caught.value) and says in str(caught.value)
    assert str(caught.value).isprintable()


ENDLESS = 10**12


@pytest.mark.parametrize("has_length", [True, False])
@pytest.mark.parametrize(
    ("what", "status", "says"),
    [
        ("_info", 200, f"sends for {REPO} goes on beyond 8388608 bytes"),
        ("_info", 302, f"sends for {REPO} goes on beyond 8388608 bytes"),
        ("_info", 404, "goes on beyond|no such repository"),
        ("_info", 500, "goes on beyond|answered 500"),
        ("_bytes", 200, f"sends for {FILE} goes on beyond"),
        ("_bytes", 302, "goes on beyond"),
        ("_bytes", 404, "goes on beyond|no such file"),
        ("_bytes", 500, "goes on beyond|answered 500"),
    ],
)
def test_answers_without_end(
    hub: Hub, payload: Path, what: str, status: int, says: str, has_length: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read of them is bounded, in memory and on the disk."""
    sent = [0]

    def endless(handler: hub_server._Handler, *_: object) -> None:
        handler.send_response(status)
        if status == 302:
            handler.send_header("Location", f"{hub.url}/nothing")
        if has_length:
            handler.send_header("Content-Length", str(ENDLESS))
        handler.end_headers()
        handler.close_connection = True
        with contextlib.suppress(OSError):
            while sent[0] < 1 << 28:
                handler.wfile.write(b" " * (1 << 16))
                sent[0] += 1 << 16

    with monkeypatch.context() as patched:
        patched.setattr(hub_server._Handler, what, endless)
        with pytest.raises(DownloadError, match=says) as caught:
            download.pull(NAME)
        assert caught.value.exit_code == 4 and str(caught.value).isprintable()
    assert sent[0] < 1 << 27
    assert digest(download.pull(NAME)) == digest(payload), "whatever was left is no hindrance"


def test_an_answer_that_is_compressed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes could become any number; it is asked for plain bytes."""
    asked: list[str] = []

    def bomb(handler: hub_server._Handler, repo: str) -> None:
        asked.append(handler.headers["Accept-Encoding"])
        handler._answer(200, {"Content-Encoding": "gzip"}, gzip.compress(bytes(10_000_000)))

    monkeypatch.setattr(hub_server._Handler, "_info", bomb)
    with pytest.raises(DownloadError, match="is compressed, which was not asked for"):
        download.pull(NAME)
    assert asked == ["identity"]


def html(handler: hub_server._Handler, *_: object) -> None:
    body = b"" if handler.command == "HEAD" else b"<html>log in</html>"
    handler._answer(200, {"Content-Type": "text/html"}, body)


def in_a_circle(handler: hub_server._Handler, *_: object) -> None:
    handler._answer(302, {"Location": handler.served.url + handler.path})


def elsewhere(handler: hub_server._Handler, *_: object) -> None:
    handler._answer(302, {"Location": "ftp://127.0.0.1/x"})


def no_http(handler: hub_server._Handler, *_: object) -> None:
    handler.wfile.write(b"\0\xff no such thing\r\n\r\n")
    handler.close_connection = True


def too_short(handler: hub_server._Handler, *_: object) -> None:
    handler._answer(200, {}, b"x" * 1000)


def too_long(handler: hub_server._Handler, repo: str, name: str) -> None:
    handler._answer(200, {}, handler.served.repos[repo][name].read_bytes() + b"x")


def other_part(handler: hub_server._Handler, *_: object) -> None:
    handler._answer(206, {"Content-Range": "bytes 0-9/10"}, b"0123456789")


@pytest.mark.parametrize(
    ("what", "how", "says"),
    [
        ("_info", html, "cannot be read"),
        ("_info", in_a_circle, "the server failed: it sends from one address to the next"),
        ("_info", no_http, "connection lost"),
        ("_resolve", html, "cannot be verified"),
        ("_resolve", in_a_circle, "the server failed: it sends from one address to the next"),
        ("_resolve", no_http, "connection lost"),
        ("_bytes", html, "the server failed: of .* it sent 19 bytes only"),
        ("_bytes", in_a_circle, "the server failed: it sends from one address to the next"),
        ("_bytes", elsewhere, "the server failed: it sends what cannot be followed"),
        ("_bytes", no_http, "connection lost"),
        ("_bytes", too_short, "the server failed: of .* it sent 1000 bytes only"),
        ("_bytes", too_long, "wrong bytes"),
        ("_bytes", other_part, "the server failed: of .* it sent 10 bytes only"),
    ],
)
def test_servers_that_send_something_else(
    hub: Hub, payload: Path, what: str, how: object, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(hub_server._Handler, what, how)
        with pytest.raises(DownloadError, match=says) as told:
            download.pull(NAME)
        assert told.value.exit_code == 4 and str(told.value).isprintable()
        assert ("what has come is kept" in str(told.value)) == (what == "_bytes" and how is not too_long)
        with pytest.raises(resolve.NotHere):
            resolve.resolve(NAME)
    assert digest(download.pull(NAME)) == digest(payload), "whatever was left is no hindrance"


def test_a_server_that_says_nothing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    monkeypatch.setattr(hub_server._Handler, "_info", lambda self, repo: time.sleep(5))
    with pytest.raises(DownloadError, match=r"connection lost: .* timed out; try again later"):
        download.pull(NAME)


def file_in_place_of(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"")


UNUSABLE: dict[str, Callable[[Path], Path]] = {
    "/dev/null": lambda tmp: Path("/dev/null/hub"),
    "a file": lambda tmp: file_in_place_of(tmp / "x" / "hub") or tmp / "x" / "hub",
    "a dead link": lambda tmp: (tmp / "dead").symlink_to("/no/such") or tmp / "dead",
    "a link to itself": lambda tmp: (tmp / "loop").symlink_to(tmp / "loop") or tmp / "loop",
    "a long name": lambda tmp: tmp / ("n" * 300),
    "a long path": lambda tmp: tmp.joinpath(*["n" * 200] * 40),
}


@pytest.mark.skipif(sys.platform == "win32", reason="links and devices")
@pytest.mark.parametrize("what", UNUSABLE)
def test_a_cache_that_cannot_be(hub: Hub, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(UNUSABLE[what](tmp_path)))
    assert list(cache.models()) == []
    with pytest.raises(DownloadError, match=r"cannot write: .*; set HF_HOME") as told:
        download.pull(NAME)
    assert told.value.exit_code == 4 and str(told.value).isprintable()


@pytest.mark.parametrize("place", ["blobs", "snapshots", f"snapshots/{COMMIT}", "blobs/{}.part/x", "blobs/{}/x"])
def test_something_else_in_the_cache(hub: Hub, place: str) -> None:
    file_in_place_of(cache.folder(REPO) / place.format(hub.sha256(REPO, FILE)))
    with pytest.raises(DownloadError, match="cannot write"):
        download.pull(NAME)


def test_the_name_of_the_commit_is_not_needed(hub: Hub) -> None:
    (cache.folder(REPO) / "refs" / "main").mkdir(parents=True)
    assert download.pull(NAME) == resolve.resolve(NAME).path
    assert [path.name for path in (cache.folder(REPO) / "refs").iterdir()] == ["main"], "no temporary file is left"


def test_no_server(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}")
    with pytest.raises(DownloadError, match="connection lost"):
        download.pull(NAME)


def test_another_file_than_the_registry_knows(hub: Hub) -> None:
    from specee.models import hub as client
    from specee.models.source import Source

    with pytest.raises(DownloadError, match="another file"):
        client.files(Source(REPO, file=FILE, sha256="0" * 64))
    assert client.files(Source(REPO, file=FILE, sha256=hub.sha256(REPO, FILE)))[0].commit == COMMIT


def test_each_model_of_the_registry_is_found(hub: Hub, payload: Path) -> None:
    """Under the repository, revision and file that it names."""
    from specee.models import hub as client
    from specee.models import registry, resolve

    for entry in registry.entries().values():
        if entry.embedded:
            continue
        hub.repos = {entry.repo: {entry.file: payload, "other-Q8_0.gguf": payload}}
        source = resolve.interpret(entry.name).source
        assert source is not None and (source.revision, source.sha256) == (entry.revision, entry.sha256)
        found = client.files(dataclasses.replace(source, sha256=None))
        assert [file.name for file in found] == [entry.file], entry.name


def test_a_full_disk_is_told_before_the_first_byte(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(DownloadError, match="no room"):
        download.pull(NAME)
    assert hub.requests == []


def test_the_caller_can_stop_it(hub: Hub, payload: Path) -> None:
    def stop(progress: TransferProgress) -> None:
        if progress.done > 2 * CHUNK:
            raise StoppedError

    with pytest.raises(StoppedError):
        download.pull(NAME, stop)
    assert part(hub).stat().st_size >= 2 * CHUNK
    assert digest(download.pull(NAME)) == digest(payload)


def test_a_split_model(hub: Hub, payload: Path) -> None:
    names = [f"big-q8_0-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    parts = []
    for i, name in enumerate(names):
        parts.append(payload.with_name(name))
        parts[-1].write_bytes(payload.read_bytes()[i::3])
    hub.repos["owner/big"] = dict(zip(names, parts, strict=True))
    seen: list[TransferProgress] = []
    first = download.pull("owner/big:Q8_0", seen.append)
    assert first.name == names[0] and [digest(first.with_name(n)) for n in names] == [digest(p) for p in parts]
    assert seen[-1].total == payload.stat().st_size
    assert resolve.resolve("owner/big:q8_0").path == first
    first.with_name(names[1]).unlink()
    with pytest.raises(resolve.NotHere):
        resolve.resolve("owner/big:q8_0")


def test_a_split_model_that_came_in_part(hub: Hub, payload: Path) -> None:
    """The second pull fetches what is missing; what has come can be deleted."""
    names = [f"big-q8_0-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    for i, name in enumerate(names):
        payload.with_name(name).write_bytes(payload.read_bytes()[i::3])
    hub.repos["owner/big"] = {name: payload.with_name(name) for name in names}
    third = payload.stat().st_size // 3

    def stop(progress: TransferProgress) -> None:
        if progress.done > third + CHUNK // 2:
            raise StoppedError

    for name in ("owner/big:Q8_0", f"hf:owner/big:{names[0]}", f"hf:owner/big:{names[2]}"):
        hub.requests.clear()
        with pytest.raises(StoppedError):
            download.pull(name, stop)
        with pytest.raises(resolve.NotHere):
            resolve.resolve(name)
        begun = sum(path.stat().st_size for path in cache.unfinished("owner/big"))
        assert begun > third
        first = download.pull(name)
        assert [digest(first.with_name(n)) for n in names] == [digest(payload.with_name(n)) for n in names]
        assert sum(sent for _, sent in hub.requests) < payload.stat().st_size + CHUNK
        assert cache.unfinished("owner/big") == ()
        first.with_name(names[1]).unlink()
        assert cache.remove("owner/big", cache.unfinished("owner/big")) >= 2 * third - 3
        found = cache.find(Source("owner/big", quant="q8_0"))
        assert found is None and not any(cache.folder("owner/big").rglob("*.part"))
        for blob in cache.folder("owner/big").glob("blobs/*"):
            blob.unlink()


def test_no_network_no_question(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with pytest.raises(ModelError, match="offline"):
        download.pull(NAME, offline=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="offline"):
        download.pull(NAME)
    assert hub.tokens == []


def test_the_rate_is_of_the_last_seconds() -> None:
    now = [0.0]
    meter = RateMeter(1000, lambda: now[0])
    assert meter.at(500) == TransferProgress(500, 1000)
    now[0] = 2.0
    assert meter.at(700) == TransferProgress(700, 1000, 100.0, 3.0)
    now[0] = 3.0
    assert meter.at(0).rate is None


# ---- processes ------------------------------------------------------------------------------------------------------

PULL = "import sys; from specee.models import download; print(download.pull(sys.argv[1]))"


def start(hub: Hub, cache_dir: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache_dir)}
    return subprocess.Popen(
        [sys.executable, "-c", PULL, NAME], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_kill_9_at_random_moments(hub: Hub, cache_dir: Path, tmp_path: Path) -> None:
    chance, here, size = random.Random(), 0, 40_000_000
    payload = hub.repos[REPO][FILE] = tmp_path / "large"
    payload.write_bytes(chance.randbytes(size))
    hub.slow = 0.003  # for 64 KiB: ten times the longest wait below is not enough for the whole
    for _ in range(10):
        asked = len(hub.requests)
        process = start(hub, cache_dir)
        while len(hub.requests) == asked and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert hub.requests[-1][0] == here, "it did not go on where it stopped"
        here = part(hub).stat().st_size
        assert here >= hub.requests[-1][0]
    hub.slow = 0.0
    output, errors = start(hub, cache_dir).communicate(timeout=60)
    assert digest(Path(output.strip())) == digest(payload), errors
    assert hub.requests[-1] == [here, size - here]  # the rest, not a byte more
    sent = [begin + sent for begin, sent in hub.requests[:-1]]
    following = [begin for begin, _ in hub.requests[1:]]
    # what a kill lost: less than a chunk, and what the sockets of both sides still held
    assert all(a - b < CHUNK + (1 << 20) for a, b in zip(sent, following, strict=True))


def test_two_processes_fetch_it_once(hub: Hub, cache_dir: Path, payload: Path) -> None:
    hub.slow = 0.005
    outputs = [process.communicate(timeout=60) for process in [start(hub, cache_dir) for _ in range(2)]]
    assert {digest(Path(output.strip())) for output, _ in outputs} == {digest(payload)}, json.dumps(outputs)
    assert sum(sent for _, sent in hub.requests) == payload.stat().st_size
