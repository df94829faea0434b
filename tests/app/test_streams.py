"""The command line among pipes, files and terminals as they are: closed, full, in other encodings."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from specee.app.chat.history.store import Store
from specee.app.cli.prompt_text import read_prompt
from specee.app.cli.substitutes import Substitutes
from specee.app.formatting import visible

PROGRAM = [sys.executable, "-c", "from specee.app.cli.main import main; main()"]
CHAT = "Ümläut 日本 \U0001f600"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    store = Store(tmp_path / "data" / "history.sqlite")
    chat = store.new_chat(CHAT, None, {})
    store.add_question(chat.id, None, CHAT)
    store.close()
    return {**os.environ, "SPECEE_DATA_DIR": str(tmp_path / "data")}


def shell(env: dict[str, str], line: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a shell line in which $S is specee-chat."""
    program = f"{sys.executable} -c 'from specee.app.cli.main import main; main()'"
    return subprocess.run(
        ["bash", "-c", f'S={program!r}\nrun() {{ eval "$S" \'"$@"\'; }}\n{line}'],
        env={**env, **variables},
        capture_output=True,
        timeout=60,
    )


@pytest.mark.parametrize("arguments", ["history list", "history show 1", "history show 1 --json", "paths", "--help"])
@pytest.mark.parametrize(
    ("output", "why"), [(">&-", "Bad file descriptor"), ("> /dev/full", "No space left on device")]
)
def test_an_output_that_takes_nothing_is_an_error(env: dict[str, str], arguments: str, output: str, why: str) -> None:
    done = shell(env, f"run {arguments} {output}")
    assert done.returncode == 1
    assert done.stderr.decode() == f"specee-chat: cannot write to standard output: {why}\n"


@pytest.mark.parametrize("errors", ["2>&-", "2> /dev/full"])
def test_without_standard_error_the_code_is_the_same(env: dict[str, str], errors: str) -> None:
    done = shell(env, f"run history show 99 {errors}")
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")
    done = shell(env, f"run history show 1 {errors}")
    assert done.returncode == 0 and CHAT in done.stdout.decode()


def test_all_streams_closed(env: dict[str, str]) -> None:
    assert shell(env, "run history show 1 <&- >&- 2>&-").returncode == 1
    assert shell(env, "run history rm 1 --yes <&- >&- 2>&-").returncode == 0
    assert b"no chats" in shell(env, "run history list <&-").stderr


def test_a_reader_that_goes_away_is_no_traceback(env: dict[str, str]) -> None:
    done = shell(env, "run history show 1 | true; exit ${PIPESTATUS[0]}")
    assert done.returncode in (0, 1) and done.stderr == b""


def unread(pipe: int) -> int:
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_an_output_that_does_not_wait_is_waited_for(env: dict[str, str]) -> None:
    store = Store(Path(env["SPECEE_DATA_DIR"]) / "history.sqlite")
    store.add_question(1, None, "long " * 100_000)
    store.close()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with subprocess.Popen([*PROGRAM, "history", "show", "1"], env=env, stdout=writing) as program:
        os.close(writing)
        full = 1 << 15  # bytes: by then it has met a pipe that takes no more, or is about to
        while unread(reading) < full and program.poll() is None:
            time.sleep(0.05)
        time.sleep(0.2)
        with io.FileIO(reading) as file:
            text = file.read()
    assert program.returncode == 0 and text.count(b"long ") == 100_000


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252:strict", "ascii:surrogateescape", "koi8-r"])
def test_other_encodings_of_the_output(env: dict[str, str], tmp_path: Path, encoding: str) -> None:
    line = f"run history show 1; run history list; run history export 1 --output {tmp_path}/chat.md"
    done = shell(env, line, PYTHONIOENCODING=encoding)
    name = encoding.partition(":")[0]
    text, told = done.stdout.decode(name), done.stderr.decode(name).splitlines()
    own = "Ü" if name in ("latin-1", "cp1252") else "U"
    assert done.returncode == 0 and text.count(f"{own}ml{'ä' if own == 'Ü' else 'a'}ut ?? ?") == 3
    assert len(told) == 2 and all("plain ones or ? stand for them" in line and "\\" not in line for line in told)
    assert CHAT in (tmp_path / "chat.md").read_text("utf-8")
    done = shell(env, "run history show 1 --json; run history list --json", PYTHONIOENCODING=encoding)
    shown, listed = map(json.loads, done.stdout.decode(name).splitlines())
    assert shown["title"] == shown["turns"][0]["content"] == listed[0]["title"] == CHAT and done.stderr == b""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("“Isn’t it?” — yes…", '"Isn\'t it?" - yes...'),  # noqa: RUF001
        ("Crème brûlée, Straße, Łódź", "Creme brulee, Strasse, Lodz"),
        ("5 € → 3 ≤ 4 × ½", "5 EUR -> 3 <= 4 x 1/2"),  # noqa: RUF001
        ("\x1b[2J \x7f", "^[[2J ^?"),
        ("👨\u200d👩\u200d👧 👍🏽 ❤\ufe0f", "??? ?? ?"),
        ("half \ud83d", "half ?"),
        ("ａｂｃ １２ ﬁ ①", "abc 12 fi 1"),  # noqa: RUF001
        ("e\u0301 \xa0 x", "e   x"),
        ("Привет 日本", "?????? ??"),
    ],
)
def test_what_stands_for_characters_that_are_lacking(text: str, shown: str) -> None:
    assert visible(text).encode("ascii", Substitutes("specee.test").name).decode() == shown


@pytest.mark.parametrize("locale", ["C", "POSIX", "xx_YY.nonsense"])
def test_other_locales(env: dict[str, str], locale: str) -> None:
    done = shell(env, "run history show 1", LC_ALL=locale, LANG=locale)
    assert done.returncode == 0 and CHAT in done.stdout.decode()


def test_arguments_that_are_not_utf8(env: dict[str, str]) -> None:
    done = shell(env, "run history search $'\\xdcml'")
    assert done.returncode == 0 and CHAT in done.stdout.decode()
    assert b"not UTF-8; it was read as Windows-1252" in done.stderr
    done = shell(env, "run -p hi --persona $'\\xe4' < /dev/null")
    assert done.returncode == 2 and "unknown persona: 'ä'" in done.stderr.decode()
    done = shell(env, "run -p hi --model $'\\xe4.gguf' < /dev/null")
    assert done.returncode == 3 and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("run < /dev/zero", 5, "standard input is larger than 4 MiB"),
        ("yes | run -p hi", 5, "standard input is larger than 4 MiB"),
        ("head -c 100000 /dev/urandom | run", 2, "standard input is not"),
        ("printf 'a\\0b' | run -p hi", 2, "standard input is not text"),
        ("run < /dev/null", 2, "nothing to answer"),
        ("printf ' \\n' | run -p ' '", 2, "nothing to answer"),
        ("run <&-", 2, "nothing to answer"),
        ("run 0> file", 2, "cannot read standard input: Bad file descriptor"),
        ("run -p - < /dev/null", 2, "nothing to answer"),
        ("run -p - 0> file", 2, "cannot read standard input: Bad file descriptor"),
        ("run -p x < /dev/full", 5, "standard input is larger than 4 MiB"),
        ("run -p - < /dev/urandom", 5, "standard input is larger than 4 MiB"),
        ("run -p '@gone.txt' < /dev/null", 2, "there is no file gone.txt"),
    ],
)
def test_inputs_that_cannot_be_answered(env: dict[str, str], tmp_path: Path, line: str, code: int, says: str) -> None:
    done = shell(env, f"cd {tmp_path}; {line}")
    assert done.returncode == code and done.stdout == b""
    assert says in done.stderr.decode() and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("device", ["/dev/kmsg", "/proc/kmsg"])
def test_a_device_without_an_end_is_not_waited_for(env: dict[str, str], device: str) -> None:
    if not os.access(device, os.R_OK):
        pytest.skip("closed to us")
    done = shell(env, f"run -p x < {device}")
    assert done.returncode in (2, 5) and len(done.stderr.splitlines()) == 1


def test_a_minus_stands_for_what_is_piped(env: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "piped"
    file.write_text("what is piped, @gone.txt and all")
    with file.open() as piped:
        monkeypatch.setattr("sys.stdin", piped)
        assert read_prompt("-").text == "what is piped, @gone.txt and all"
