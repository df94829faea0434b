"""`specee-chat models`, and models that are fetched at their first use: subprocesses, against a hub on this machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_chat

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import tiny_eagle
from hub_server import Hub, serving

from specee.models import embedded, registry
from specee.models.hub import CHUNK
from specee.native import library
from specee.native.errors import NativeError

PROGRAM = [sys.executable, "-c", "from specee.app.cli.main import main; main()"]
LLAMA = ("TheBloke/Llama-2-7B-Chat-GGUF", "llama-2-7b-chat.Q4_K_M.gguf")
ANSWER = ["--max-tokens", "4", "--policy", "dense", "--temperature", "0", "--repeat-penalty", "1.0"]
FORBID_SOCKETS = """
import sys

def refuse(event, arguments):
    if event == "socket.__new__":
        raise RuntimeError("a socket")

sys.addaudithook(refuse)
"""


def the_model() -> Path:
    path = embedded.path()
    if path is None:
        pytest.skip("no embedded model in this build")
    return path


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A small model behind a large one's name."""
    with serving(Hub({LLAMA[0]: {LLAMA[1]: the_model()}})) as running:
        yield running


@pytest.fixture
def env(tmp_path: Path, hub: Hub) -> dict[str, str]:
    ours = {"SPECEE_DATA_DIR": str(tmp_path / "data"), "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.url}
    return {**{name: value for name, value in os.environ.items() if not name.startswith("HF_")}, **ours}


@pytest.fixture
def no_sockets(tmp_path: Path, env: dict[str, str]) -> dict[str, str]:
    (tmp_path / "sitecustomize.py").write_text(FORBID_SOCKETS)
    forbidding = {**env, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [env.get("PYTHONPATH")])])}
    probe = subprocess.run(
        [sys.executable, "-c", "import socket; socket.socket()"], env=forbidding, capture_output=True
    )
    assert probe.returncode != 0, "the test's own hook does not work"
    return forbidding


def call(env: dict[str, str], *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*PROGRAM, *arguments], env=env, input="", capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done


def one_line(env: dict[str, str], *arguments: str, code: int) -> str:
    done = call(env, *arguments, code=code)
    assert done.stdout == "" and done.stderr.startswith("specee-chat: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def needs_engine() -> None:
    try:
        library.directory()
    except NativeError as error:
        pytest.skip(f"no real engine: {error}")


def test_a_name_pulls_verifies_and_answers_and_then_needs_no_network(
    env: dict[str, str], no_sockets: dict[str, str], hub: Hub
) -> None:
    needs_engine()
    ask = ["--model", "llama2-7b-q4", "-p", "Say hello.", *ANSWER]
    assert "models pull llama2-7b-q4" in one_line(env, *ask, code=3)  # nobody to ask
    assert hub.tokens == []  # and nothing asked of the hub either
    hub.cut_after = 60_000_000  # the first connection breaks
    done = call(env, *ask, "--yes")
    assert done.stdout.strip() and done.stderr == "fetching llama2-7b-q4, 98.4 MB\n"
    assert len(hub.requests) == 2
    assert sum(sent for _, sent in hub.requests) < the_model().stat().st_size + CHUNK  # what the cut took with it
    assert call(no_sockets, *ask, "--offline").stdout == done.stdout
    assert call({**no_sockets, "HF_HUB_OFFLINE": "1"}, *ask).stdout == done.stdout
    assert done.stdout == call(no_sockets, "-p", "Say hello.", *ANSWER).stdout  # it is the same model
    pulled = call(env, "models", "pull", "llama2:7b", "--json")
    assert json.loads(pulled.stdout)["bytes"] == the_model().stat().st_size and len(hub.requests) == 2


def test_a_draft_head_is_fetched_as_a_model_is(
    env: dict[str, str], no_sockets: dict[str, str], hub: Hub, tmp_path: Path
) -> None:
    needs_engine()
    repo, ask = "owner/head-GGUF", ["-p", "Say hello.", *ANSWER]
    head = tiny_eagle.write(tmp_path / "head.gguf", the_model(), (2, 15, 27), n_known=512)
    hub.repos[repo] = {"head-F16.gguf": head}
    named = [*ask, "--drafter", f"hf:{repo}"]
    assert "models pull hf:owner/head-GGUF" in one_line(env, *named, code=3)
    answer = call(env, *named, "--yes", "--json")
    assert json.loads(answer.stdout)["text"] == json.loads(call(env, *ask, "--json").stdout)["text"]
    path = call(no_sockets, "models", "path", f"{repo}:f16").stdout.strip()
    assert Path(path).read_bytes() == head.read_bytes()
    assert "it reads layers 2, 15, 27 of its model" in call(no_sockets, "models", "show", path).stdout
    assert "cannot answer alone" in one_line(no_sockets, "--model", f"hf:{repo}", "-p", "Hi", code=3)


def test_pull_list_path_rm(env: dict[str, str], no_sockets: dict[str, str]) -> None:
    pulled = call(env, "models", "pull", "llama2-7b-q4")
    assert pulled.stderr.splitlines()[-1] == "tinyllama-1.1b can draft for it: specee-chat models pull tinyllama-1.1b"
    path = pulled.stdout.strip()
    assert path == call(no_sockets, "models", "path", "llama2-7b-q4").stdout.strip()
    rows = {row["name"]: row for row in json.loads(call(no_sockets, "models", "list", "--json").stdout)}
    assert rows["llama2-7b-q4"]["where"] == "cache" and rows["llama2-7b-q4"]["path"] == path
    assert rows["smollm2-135m"]["where"] == "embedded" and rows["smollm2-135m"]["calibrated"]
    assert not rows["mistral-7b"]["here"] and set(rows) == set(registry.entries())
    shown = json.loads(call(no_sockets, "models", "show", "llama2-7b-q4", "--json").stdout)
    assert shown["drafter"] == "tinyllama-1.1b" and shown["drafter_path"] is None
    assert "llama2-7b-q4" in call(no_sockets, "models", "list").stdout.splitlines()[2]
    assert "give --yes" in one_line(env, "models", "rm", "llama2-7b-q4", code=2)
    assert call(no_sockets, "models", "rm", "llama2-7b-q4", "--yes").stdout == "deleted llama2-7b-q4, 98.4 MB\n"
    assert not Path(path).exists() and the_model().exists()
    assert "models pull" in one_line(env, "models", "rm", "llama2-7b-q4", "--yes", code=3)
    assert "not ours" in one_line(env, "models", "rm", "smollm2-135m", code=2)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_keeps_what_has_come(env: dict[str, str], hub: Hub) -> None:
    hub.slow = 0.002
    process = subprocess.Popen(
        [*PROGRAM, "models", "pull", "llama2-7b-q4"],
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        # tests that run in the background of a shell are started with it ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    blobs = Path(env["HF_HOME"], "hub", "models--TheBloke--Llama-2-7B-Chat-GGUF", "blobs")
    end = time.monotonic() + 30
    while not any(part.stat().st_size for part in blobs.glob("*.part")) and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.splitlines()[-1].startswith("stopped; what has come is kept"), errors
    (part,) = blobs.glob("*.part")
    rows = {row["name"]: row for row in json.loads(call(env, "models", "list", "--json").stdout)}
    assert rows["llama2-7b-q4"]["where"] == "partly"
    freed = json.loads(call(env, "models", "rm", "llama2-7b-q4", "--yes", "--json").stdout)["bytes"]
    assert freed > 0 and not part.exists()


def test_show(no_sockets: dict[str, str]) -> None:
    facts = json.loads(call(no_sockets, "models", "show", "--json", "--ctx", "1000").stdout)
    promised = {
        "arch": "llama",
        "layers": 30,
        "width": 576,
        "heads": 9,
        "heads_kv": 3,
        "head_dim": 64,
        "vocabulary": 49152,
        "context": 8192,
        "chat_template": True,
        "licence": "apache-2.0",
        "dense_only": None,
        "head_tied": True,
        "window": 1000,
        "kv_bytes_per_token": 30 * 3 * 128 * 2,
        "fits": True,
    }
    assert promised.items() <= facts.items()
    assert facts["groups"]["feed-forward"].keys() == {"Q4_1"} and 12 < facts["head_layers"] < 14
    assert facts["memory_bytes"] == facts["weight_bytes"] + 1000 * facts["kv_bytes_per_token"]
    small = json.loads(call(no_sockets, "models", "show", "--json", "--ctx", "1000", "--kv-type", "q8_0").stdout)
    assert small["kv_bytes_per_token"] == facts["kv_bytes_per_token"] * 17 // 32
    assert small["memory_bytes"] == small["weight_bytes"] + 1000 * small["kv_bytes_per_token"]
    assert len(facts["sha256"]) == 64 and facts["calibration_metrics"]
    text = call(no_sockets, "models", "show").stdout
    assert "30 of width 576" in text and re.search(
        r"^skips layers +(yes|probably; found out at its first start)$", text, re.MULTILINE
    )


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["models", "pull", "llama2-7b-q4", "--offline"], 3, "offline"),
        (["--offline", "models", "pull", "llama2-7b-q4"], 3, "offline"),
        (["--model", "llama2-7b-q4", "--offline", "-p", "x"], 3, "offline"),
        (["models", "show", "llama2-7b-q4"], 3, "models pull llama2-7b-q4"),
        (["models", "pull", "lama2-7b-q4"], 3, "did you mean llama2-7b-q4"),
        (["calibrate", "--model", "mistral-7b"], 3, "models pull mistral-7b"),
    ],
)
def test_errors_without_a_network(no_sockets: dict[str, str], arguments: list[str], code: int, says: str) -> None:
    assert says in one_line(no_sockets, *arguments, code=code)


def test_a_refusal_of_the_hub_is_one_line(env: dict[str, str], hub: Hub) -> None:
    hub.status, hub.headers = {"head": 401}, {"X-Error-Code": "GatedRepo"}
    line = one_line(env, "models", "pull", "llama2-7b-q4", code=4)
    assert f"accept the licence at {hub.url}/TheBloke/Llama-2-7B-Chat-GGUF" in line and "HF_TOKEN" in line


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal")
@pytest.mark.parametrize(("answer", "code"), [("n", 3), ("y", 0)])
def test_the_question_at_a_terminal(env: dict[str, str], hub: Hub, answer: str, code: int) -> None:
    """With the size and the licence; no is an error, yes shows the progress."""
    import pty

    needs_engine()
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "--model", "llama2-7b-q4", "-p", "Say hello.", *ANSWER],
        env=env,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    shown = b""
    try:
        while piece := os.read(ours, 1 << 16):
            shown += piece
    except OSError:  # the other side is closed
        pass
    output, _ = process.communicate(timeout=60)
    os.close(ours)
    text = shown.decode()
    assert process.returncode == code, text
    assert "Fetch 98.4 MB (TheBloke/Llama-2-7B-Chat-GGUF, Llama 2 Community License)?" in text
    if answer == "y":
        assert "MB of 98.4 MB" in text and "MB/s" in text and " left" in text and output.strip()
    else:
        assert "models pull" in text and hub.requests == []


@pytest.mark.parametrize("content", ["cut", "empty", "text"])
def test_a_file_that_is_damaged_in_its_repository(content: str, hub: Hub, env: dict[str, str], tmp_path: Path) -> None:
    """It arrived as it is there: getting it again cannot help; deleting it frees its place."""
    file = tmp_path / "y-q4_k_m.gguf"
    whole = the_model().read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"no model"}[content])
    hub.repos["inf/y"] = {file.name: file}
    name = f"hf:inf/y:{file.name}"
    for line in (["models", "pull", "hf:inf/y:q4_k_m"], ["-p", "Hi", "--model", "hf:inf/y", "--yes"]):
        done = call(env, *line, code=3)
        assert "the repository's file itself is damaged, so take another model" in done.stderr
        assert f"specee-chat models rm {name} frees its place" in done.stderr
        assert "again" not in done.stderr
    rows = json.loads(call(env, "models", "list", "--json").stdout)
    assert [(row["where"], row["bytes"]) for row in rows if row["name"] == name] == [("damaged", file.stat().st_size)]
    call(env, "models", "rm", name, "--yes")
    assert name not in call(env, "models", "list").stdout


def test_a_file_that_was_damaged_here(hub: Hub, env: dict[str, str]) -> None:
    """What the message says helps."""
    path = Path(call(env, "models", "pull", f"hf:{LLAMA[0]}").stdout.strip())
    whole = path.read_bytes()
    path.resolve().write_bytes(whole[: len(whole) // 2])
    name = f"hf:{LLAMA[0]}:{LLAMA[1]}"
    done = call(env, "models", "show", name, code=3)
    assert f"specee-chat models rm {name}, then specee-chat models pull {name}, gets it again" in done.stderr
    call(env, "models", "rm", name, "--yes")
    assert Path(call(env, "models", "pull", name).stdout.strip()).read_bytes() == whole


GEMMA = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (GEMMA, ("from the file", "no place", "tools +no")),
        (None, ("guessed as ChatML", r"<\|im_start\|>", "system message +yes")),
        ("{% if %}", ("cannot be used: Expected", "guessed as ChatML")),
    ],
)
def test_show_says_how_chats_are_written(
    no_sockets: dict[str, str], tmp_path: Path, template: str | None, says: tuple[str, ...]
) -> None:
    path = tiny_chat.write(tmp_path / "m.gguf", "bpe", ("<|im_start|>", "<|im_end|>"), template)
    text = " ".join(call(no_sockets, "models", "show", str(path)).stdout.split())
    assert all(re.search(each, text) for each in says)
    facts = json.loads(call(no_sockets, "models", "show", str(path), "--json").stdout)
    assert facts["folds_system"] == (template == GEMMA)


def test_show_says_where_keys_and_values_cannot_be_q8_0(env: dict[str, str], tmp_path: Path) -> None:
    """Heads of 16 numbers, of which q8_0 takes 32 together."""
    path = str(tiny_chat.write(tmp_path / "m.gguf", "bpe", (), None))
    assert (
        "tokens in q8_0, which this model cannot have; "
        in call(env, "models", "show", path, "--kv-type", "q8_0").stdout
    )
