"""Text that is not ours never steers the terminal: on the command line, in errors, exports and JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specee.app.chat.history import export
from specee.app.chat.history.store import Store
from specee.app.cli import tables
from specee.app.formatting import label, to_json, visible

HOSTILE = "first\x1b]0;X\x07\x1b[2J\x9b2J\x08\x7f\u202eline\r"
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
PROGRAM = [sys.executable, "-c", "from specee.app.cli.main import main; main()"]
BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0" + "".join(
    map(chr, range(0xE0100, 0xE01F0))
)
"""Letters and marks, says Unicode, that show nothing by themselves."""
any_text = st.text(st.characters(), max_size=40)


@given(any_text)
def test_no_control_character_is_left(text: str) -> None:
    shown = visible(text)
    assert not FORBIDDEN.search(shown) and visible(shown) == shown
    shown.encode("utf-8")


@given(st.text(st.characters(categories=("L", "M", "N", "P", "S", "Zs"), exclude_characters=BLANK), max_size=40))
def test_what_can_be_seen_stays(text: str) -> None:
    assert visible(text) == text


@given(any_text)
def test_json_escapes_them_and_keeps_the_text(text: str) -> None:
    line = to_json({text: [text]})
    assert not FORBIDDEN.search(line) and "\n" not in line and json.loads(line) == {text: [text]}
    line.encode("utf-8")


@pytest.mark.parametrize("text", ["L" * 100_000, "MIT\r\n\n" * 50_000, "a\nspecee-chat: done", " "])
def test_what_a_file_says_of_itself_is_one_short_line_of_a_table(text: str) -> None:
    line = label(text)
    assert len(line) <= 120 and "\n" not in line and line.removesuffix("\u2026") in " ".join(text.split())


def test_line_ends_and_tabs_stay() -> None:
    assert visible("a\tb\r\nc\nd\x1b") == "a\tb\nc\nd␛"
    text = "\u200f\u05e9\u05dc é \U0001f469\u200d\U0001f4bb \u0627 \u2764\ufe0f"
    text += " \u0645\u06cc\u200c\u062e\u0648 \u0915\u094d\u200d\u0937"  # Persian, Hindi
    text += " \u845b\U000e0100"  # a variant of a Japanese sign
    for region in ("eng", "sct", "wls"):
        text += "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in f"gb{region}\x7f")
    assert visible(text) == text


@pytest.mark.parametrize(
    "code", [0xAD, 0x200B, 0x200D, 0x200E, 0x2028, 0x2029, 0x2060, 0x3164, 0xFEFF, 0xFFFA, 0xE0041, 0x61C]
)
def test_what_cannot_be_seen_is_shown_as_something(code: int) -> None:
    text = f"a{chr(code)}b"
    assert visible(text) == "a\ufffdb"
    assert to_json(text).isprintable() and json.loads(to_json(text)) == text


@pytest.mark.parametrize(
    "flag", ["", "\U0001f3f4", "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"]
)
def test_text_hidden_in_tags_is_shown_as_something(flag: str) -> None:
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "gbeng run this")
    assert visible(f"a{flag}{hidden}b").count("\ufffd") == 1
    assert json.loads(to_json(f"a{flag}{hidden}b")) == f"a{flag}{hidden}b"


def test_a_cell_of_a_table_is_as_wide_as_what_is_shown() -> None:
    first, second = tables.pairs([("a\x1b\x07b", "1"), ("abcd", "2")]).splitlines()
    assert first.index("1") == second.index("2")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "SPECEE_DATA_DIR": str(tmp_path / "data"), "HF_HUB_CACHE": str(tmp_path / "hub")}


def printed(env: dict[str, str], *arguments: str, text: str = "") -> str:
    """What a command prints on both streams; checks that it steers nothing."""
    done = subprocess.run([*PROGRAM, *arguments], env=env, input=text.encode(), capture_output=True, timeout=300)
    shown = (done.stdout + done.stderr).decode("utf-8")
    assert not FORBIDDEN.search(shown), repr(shown)
    assert "Traceback" not in shown
    return shown


@pytest.fixture
def kept(env: dict[str, str]) -> dict[str, str]:
    """With a chat that is hostile all over."""
    Path(env["SPECEE_DATA_DIR"]).mkdir()
    store = Store(Path(env["SPECEE_DATA_DIR"]) / "history.sqlite")
    chat = store.new_chat(HOSTILE, HOSTILE, {"model": HOSTILE})
    recorder = store.add_answer(chat.id, store.add_question(chat.id, None, HOSTILE, f"\n\n{HOSTILE}"))
    recorder.finish("complete")
    store.close()
    return env


@pytest.mark.parametrize(
    "arguments",
    [
        ["history"],
        ["history", "list", "--json"],
        ["history", "show", "1"],
        ["history", "show", "1", "--json"],
        ["history", "export", "1"],
        ["history", "search", "line"],
        ["history", "search", "line", "--json"],
        ["history", "search", HOSTILE],
        ["history", "rm", "1"],
    ],
)
def test_kept_chats(kept: dict[str, str], arguments: list[str]) -> None:
    assert printed(kept, *arguments)


def test_exports_to_a_file(kept: dict[str, str], tmp_path: Path) -> None:
    for name, option in (("a.md", []), ("a.json", ["--json"])):
        printed(kept, "history", "export", "1", "--output", str(tmp_path / name), *option)
        text = (tmp_path / name).read_text("utf-8")
        assert "first" in text and not FORBIDDEN.search(text)
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["title"] == HOSTILE.strip()


def test_what_the_screen_exports() -> None:
    store = Store()
    chat = store.new_chat(HOSTILE, HOSTILE, {})
    store.add_question(chat.id, None, HOSTILE, HOSTILE)
    assert not FORBIDDEN.search(export.markdown(store.chat(chat.id), store.branch(chat.id)))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", HOSTILE, "-p", "x"],
        ["--model", f"hf:{HOSTILE}/x", "-p", "x"],
        ["--model", f"{HOSTILE}.gguf", "-p", "x"],
        ["--drafter", HOSTILE, "-p", "x"],
        ["--policy", HOSTILE, "-p", "x"],
        ["--persona", HOSTILE, "-p", "x"],
        ["--temperature", HOSTILE, "-p", "x"],
        [f"--{HOSTILE}"],
        [HOSTILE],
        ["-p", f'@"{HOSTILE}.txt"'],
        ["--data-dir", f"/proc/{HOSTILE}", "-p", "x"],
        ["models", "show", HOSTILE],
        ["models", "rm", f"hf:a/{HOSTILE}", "--yes"],
        ["models", "path", HOSTILE, "--json"],
        ["history", "export", "1", "--output", f"/proc/{HOSTILE}"],
        ["bench", "--prompts", HOSTILE],
        ["doctor", "--quick", "--model", HOSTILE],
    ],
)
def test_arguments_in_errors(env: dict[str, str], arguments: list[str]) -> None:
    assert "first" in printed(env, *arguments) or arguments[:2] == ["history", "export"]


def test_files_in_errors(env: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / f"{HOSTILE}.gguf"
    broken.write_bytes(b"GGUF" + HOSTILE.encode() * 9)
    printed(env, "--model", str(broken), "-p", "x")
    printed(env, "models", "show", str(broken))
    config = Path(env["SPECEE_DATA_DIR"]) / "config.toml"
    config.parent.mkdir(exist_ok=True)
    escaped = json.dumps(HOSTILE)
    for text in (f"{escaped} = 1", f"persona = {escaped}", f"model = {escaped}", f"[personas]\n{escaped} = 3", HOSTILE):
        config.write_text(text, "utf-8")
        printed(env, "-p", "x", "--model", "no-such-model")


def test_metadata_of_a_model(env: dict[str, str], tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(HOSTILE)
    writer.add_license(HOSTILE)
    writer.add_description(HOSTILE)
    writer.add_chat_template(f"{{{{ raise_exception({json.dumps(HOSTILE)}) }}}}")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([HOSTILE, *(f"<{i}>" for i in range(95))])
    writer.add_token_scores([0.0] * 96)
    writer.add_token_types([4] * 96)
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    import numpy as np

    writer.add_tensor("token_embd.weight", np.zeros((96, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "first" in printed(env, "models", "show", str(path))
    assert "first" in printed(env, "models", "show", str(path), "--json")
    printed(env, "--model", str(path), "-p", "x")


class _Hostile(BaseHTTPRequestHandler):
    status = 404

    def do_GET(self) -> None:
        body = json.dumps({"error": HOSTILE}).encode() if self.status != 500 else HOSTILE.encode()
        self.send_response(self.status, "no \x1b[2J")
        self.send_header("X-Error-Message", "first\x1b]0;X\x07")
        self.send_header("X-Request-Id", "\x1b[2J")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(params=[200, 403, 404, 500])
def hub(request: pytest.FixtureRequest) -> Iterator[str]:
    handler = type("Handler", (_Hostile,), {"status": request.param})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_what_a_server_says(env: dict[str, str], hub: str) -> None:
    for arguments in (["models", "pull", "hf:owner/repo"], ["models", "pull", "llama3.2-1b"]):
        assert printed({**env, "HF_ENDPOINT": hub}, *arguments).startswith("specee-chat: ")
