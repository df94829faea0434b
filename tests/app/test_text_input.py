"""Texts in the encodings that there are, and the files that a prompt names."""

from __future__ import annotations

import codecs
import os
import socket
from pathlib import Path

import pytest

from specee.app.chat.attachments import attach
from specee.app.errors import PROMPT_TOO_LONG, USAGE, AppError
from specee.app.text_input import LIMIT, argument, decode

GREETING = "Grüße aus Köln: 5 € für „Äpfel“\n"


@pytest.mark.parametrize(
    ("data", "text", "doubt"),
    [
        (b"", "", None),
        (GREETING.encode(), GREETING, None),
        (codecs.BOM_UTF8 + GREETING.encode(), GREETING, None),
        (GREETING.encode("utf-16"), GREETING, None),
        (codecs.BOM_UTF16_BE + GREETING.encode("utf-16-be"), GREETING, None),
        (GREETING.encode("utf-32"), GREETING, None),
        ("hello".encode("utf-16-le"), "hello", None),
        ("hello".encode("utf-16-be"), "hello", None),
        ("日本語".encode("utf-16"), "日本語", None),
        (b"one\r\ntwo\rthree", "one\ntwo\nthree", None),
        (GREETING.encode("cp1252"), GREETING, "Windows-1252"),
        (b"caf\xe9", "café", "Windows-1252"),
        ("日本語".encode()[:-1], "日本", "middle of a character"),
        (b"smile \xf0\x9f\x98", "smile ", "middle of a character"),
        ("Grüße ".encode() + b"\x80" + " Köln".encode(), "Grüße \ufffd Köln", "not UTF-8"),
        (b"\x1b[1mred\x1b[0m", "\x1b[1mred\x1b[0m", None),
    ],
)
def test_text_in_any_usual_encoding(data: bytes, text: str, doubt: str | None) -> None:
    decoded = decode(data, "it")
    assert decoded.text == text
    assert decoded.doubt is None if doubt is None else decoded.doubt is not None and doubt in decoded.doubt


@pytest.mark.parametrize(
    "data",
    [
        b"\x7fELF\x02\x01\x01\0\0\0\0",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"\x1f\x8b\x08\x10\x04\xff\xe9",
        b"text with \0 in it",
        codecs.BOM_UTF16_LE + b"\x00\xd8x",
        "Привет, мир, как дела".encode("koi8-r"),
        "こんにちは世界、元気ですか".encode("shift-jis"),
        "你好世界今天天气怎么样".encode("gb18030"),
        bytes(range(256)),
    ],
)
def test_what_is_no_text_or_cannot_be_known_is_refused(data: bytes) -> None:
    with pytest.raises(AppError, match=r"^(not a text|unknown encoding): it is not") as caught:
        decode(data, "it")
    assert caught.value.exit_code == USAGE


def test_arguments_with_surrogates_become_text() -> None:
    assert argument("schön 日本", "it").text == "schön 日本"
    assert argument(os.fsdecode(b"sch\xf6n"), "it").text == "schön"
    assert argument("half \ud83d of it", "it").text == "half \ufffd of it"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Shorten @missing.txt", "there is no file missing.txt"),
        ("Shorten @missing.txt.", "there is no file missing.txt;"),
        ('Shorten @"my notes"', "there is no file my notes"),
        ("@src/", "is a folder"),
        ("@src", "is a folder"),
        ("@gone/", "there is no file gone/"),
        ("@./gone", "there is no file ./gone"),
        ("@src/gone", "there is no file src/gone"),
        ("@~nobody99/a.md", "there is no file ~nobody99/a.md"),
        ("@" + "x" * 5000 + ".txt", "there is no file"),
        ("@zero\0.txt", "there is no file"),
        ("@/dev/zero", "no regular file"),
        ("@/dev/null", "no regular file"),
        ("@pipe", "no regular file"),
        ("@loop.txt", "loop.txt is a link that leads back to itself"),
        ("@loop", "loop is a link that leads back to itself"),
        ("@dangling", "dangling is a link to gone, which is not there"),
        ("@dangling.txt!", "dangling.txt is a link to gone, which is not there"),
        ('@"dangling"', "which is not there"),
        ("@closed/x", "closed/x cannot be read: Permission denied"),
        ('@"with space.txt"', "there is no file with space.txt;"),
        ("@'with space.txt'", "there is no file with space.txt;"),
        ("@“with space.txt”", "there is no file with space.txt;"),
        ('@"with space.txt', "its quotes are not closed"),
        ("@with\\ space.txt", "there is no file with\\ space.txt;"),
        ("@with\\ space", "there is no file with\\ space;"),
        ("@(x.txt)", "there is no file x.txt;"),
        ("@<x.txt>", "there is no file x.txt;"),
        ("(see @x.txt)", "there is no file x.txt;"),
        ("see [@x.txt], @nobody", "there is no file x.txt;"),
        ("@x.txt:12", "there is no file x.txt;"),
        ("@x.txt's end", "there is no file x.txt;"),
        ("请看@x.txt并总结", "there is no file x.txt;"),
        ("@x.txt。", "there is no file x.txt;"),
        ("@src,@x.txt", "src is a folder"),
        ("@nobody,@x.txt", "there is no file x.txt;"),
        ("@$HOME/x", "there is no file $HOME/x; variables in it are not replaced"),
        ("@$HOME", "variables in it are not replaced"),
        ("@${HOME}/x", "variables in it are not replaced"),
        ("@%HOME%\\x", "variables in it are not replaced"),
        ("@src/$NAME.md", "variables in it are not replaced"),
        ("@~nobody99/x", "there is no user nobody99;"),
        ("@~/nobody99", "there is no file ~/nobody99;"),
        ("@*.txt", "patterns are not replaced"),
        ("@src/*", "patterns are not replaced"),
        ("@https://example.com/a", "it is an address"),
        ("@file:///etc/hostname", "it is an address"),
        ("@.env", "there is no file .env;"),
        ("@..\\x", "there is no file ..\\x;"),
        ("@photo.heic", "there is no file photo.heic;"),
        ("@a.txt\n@b.txt\nclass notes", "there is no file a.txt;"),
        ("@/proc/self/mem", "Input/output error"),
        ("@binary", "is not text"),
    ],
)
def test_a_file_that_cannot_be_sent_is_told(folder: Path, text: str, says: str) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "loop.txt").symlink_to("loop.txt")
    (folder / "dangling").symlink_to("gone")
    (folder / "dangling.txt").symlink_to("gone")
    (folder / "loop").symlink_to("loop")
    if os.geteuid() == 0:  # to whom nothing is closed
        says = says.replace("closed/x cannot be read: Permission denied", "there is no file closed/x")
    (folder / "closed").mkdir(0)
    (folder / "binary").write_bytes(b"\0\1\2")
    with pytest.raises(AppError) as caught:
        attach(text)
    assert says in caught.value.line and caught.value.exit_code == USAGE
    assert attach(text.replace("@", "@ ")) == ("", [])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('@"with space.txt"', ["with space.txt"]),
        ("@'with space.txt', please", ["with space.txt"]),
        ("@“with space.txt”", ["with space.txt"]),
        ("@with\\ space.txt.", ["with space.txt"]),
        ("@a\\(1\\).txt", ["a(1).txt"]),
        ("@a(1).txt", ["a(1).txt"]),
        ("@(x.txt)", ["x.txt"]),
        ("(see @x.txt)", ["x.txt"]),
        ("@x.txt,@y.txt;@y.txt", ["x.txt", "y.txt"]),
        ("请看@x.txt并总结，@y.txt。", ["x.txt", "y.txt"]),  # noqa: RUF001
        ("@x.txt:12, @y.txt's and @nobody's", ["x.txt", "y.txt"]),
        ("Is @link the same as @$x?", ["link", "$x"]),
        ("@x.txt\n\n@x.txt", ["x.txt"]),
    ],
)
def test_what_a_name_is_and_where_it_ends(folder: Path, text: str, names: list[str]) -> None:
    for name in ("with space.txt", "x.txt", "y.txt", "a(1).txt", "$x"):
        (folder / name).write_text("text")
    (folder / "link").symlink_to("x.txt")
    assert [str(file.path) for file in attach(text)[1]] == names


def test_files_without_an_end_are_not_waited_for(folder: Path) -> None:
    with pytest.raises(AppError, match="socket"), socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        attach("@socket")
    if os.access("/proc/kmsg", os.R_OK):
        with pytest.raises(AppError, match="/proc/kmsg"):
            attach("@/proc/kmsg")
    with (folder / "large.log").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(AppError, match="larger than") as caught:
        attach("@large.log")
    assert caught.value.exit_code == PROMPT_TOO_LONG
    assert LIMIT < 1 << 40


@pytest.mark.parametrize(
    "text",
    [
        "@app.route('/a.json')",
        "@app.get( '/a.json' )",
        "write to @~nobody99 today",
        "me@src and @nobody, @angular/core",
        "@ src",
        "a @",
        "@nobody's, @nobody. (@nobody) [@nobody]; @nobody: @nobody!",
        "mail a.b@c.txt, <a@b.md> or mailto:a@b.py",
        "@alice@python.org and @alice:matrix.org",
        "@property\ndef x(self): ...",
        "@app.log\n@other.c  \n    async def x(): ...",
        "@pytest.mark.slow\n@dataclass(frozen=True)\nclass X: ...",
        "@Override @NotNull(message = 'x.txt') @Path(\"/x\")",
        "@@ -1,2 +3,4 @@ def x.py",
        "HEAD@{1} and @{u}, @~1, @^",
        "@import 'x.css'; @media (x) {}",
        "import x from '@/x.js'; import '@scope/x/y.css'",
        "@article{smith/x.txt, ...}",
        "$x = @$_GET['a/b']; @$ref",
        "the @'s and the #'s; @. @, @... @@",
        "user@host:/etc/hosts, git@github.com:a/b.git",
    ],
)
def test_an_at_sign_before_anything_else_means_nothing(folder: Path, text: str) -> None:
    assert attach(text) == ("", [])


def test_attached_texts_are_decoded(folder: Path) -> None:
    (folder / "windows.txt").write_bytes(GREETING.encode("utf-16"))
    (folder / "old.txt").write_bytes(b"caf\xe9\r\n")
    Path(os.fsdecode(b"na\xefve.txt")).write_bytes(b"\xef\xbb\xbfone")
    text, files = attach(f"@windows.txt @old.txt @{os.fsdecode(b'na')}{os.fsdecode(bytes([0xEF]))}ve.txt")
    assert f"windows.txt:\n```\n{GREETING}```" in text and "\ncafé\n" in text and text.endswith("```\none\n```")
    assert [file.doubt is None for file in files] == [True, False, True]
