"""The command line as a subprocess, as scripts use it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from real_engine import ENDLESS, LONG_STORY, missing_model

PROGRAM = [sys.executable, "-c", "from specee.app.cli.main import main; main()"]
FORBID_SOCKETS = """
import sys

def refuse(event, arguments):
    if event == "socket.__new__":
        raise RuntimeError("a socket")

sys.addaudithook(refuse)
"""
GREEDY = ["--temperature", "0", "--repeat-penalty", "1.0"]


MISSING = missing_model()
needs_engine = pytest.mark.skipif(MISSING is not None, reason=f"no real engine: {MISSING}")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "SPECEE_DATA_DIR": str(tmp_path / "data")}


def call(
    env: dict[str, str], *arguments: str, text: str = "", timeout: float = 300, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        env=env,
        input=text,
        capture_output=True,
        text=True,
        timeout=timeout,
        encoding="utf-8",
        cwd=cwd,
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--bogus", "unknown option: '--bogus' (specee-chat --help"),
        ("--temperatur 1", "unknown option: '--temperatur'; did you mean --temperature?"),
        ("hello", "unknown command: 'hello'; a question goes behind -p, in quotes"),
        ("modles", "unknown command: 'modles'; did you mean models?"),
        ("models lst", "unknown command: 'lst'; did you mean list? (specee-chat models --help"),
        ("history show", "usage: ID is missing (specee-chat history show --help"),
        ("history search", "usage: WORDS is missing"),
        ("history show 1 2", "usage: '2' is one word too many"),
        ("paths x", "usage: 'x' is one word too many"),
        ("-p", "usage: -p needs a value"),
        ("bench --model", "usage: --model needs a value (specee-chat bench --help"),
        ("--json=yes", "usage: --json takes no value"),
        ("--help=1", "usage: --help takes no value"),
        ("--seed x", "bad value: --seed: 'x' is not a whole number from 0 to 4294967295"),
        ("completions tcsh", "bad value: SHELL: 'tcsh' is not one of 'bash', 'zsh', 'fish'"),
        ("history list --temperature 1", "usage: --temperature means nothing to 'specee-chat history list'"),
    ],
)
def test_a_wrong_command_line_is_told_in_our_words(capsys: pytest.CaptureFixture[str], line: str, says: str) -> None:
    from specee.app.cli import usage_errors
    from specee.app.cli.program import program

    with pytest.raises(click.ClickException) as caught:
        program.main(line.split(), prog_name="specee-chat", standalone_mode=False)
    error = usage_errors.as_app_error(caught.value)
    assert error.line.startswith(says) and error.line.endswith(" --help says more)") and error.exit_code == 2


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("specee-chat: "), done.stderr
    assert done.stdout == ""
    return lines[0]


# ---- without a model ------------------------------------------------------------------------------------------------


def test_help_is_quick_and_loads_nothing_heavy(env: dict[str, str]) -> None:
    heavy = "('numpy', 'textual', 'llama_cpp', 'rich', 'sqlite3', 'huggingface_hub')"
    code = f"import sys; import specee.app.cli.program; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    program = "from specee.app.cli import one_answer, open_session; from specee.app.plain import chat"
    code = f"import sys; {program}; from specee.app.tui import run; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "False", "the engine's process computes, the program does not"
    assert "--max-pending" in call(env, "--help").stdout


def test_options_before_and_after_a_subcommand(env: dict[str, str]) -> None:
    assert json.loads(call(env, "--data-dir", "/a", "paths", "--json").stdout)["data"] == "/a"
    assert json.loads(call(env, "--data-dir", "/a", "paths", "--json", "--data-dir", "/b").stdout)["data"] == "/b"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--nonsense"], 2, "--nonsense"),
        (["-p", "x", "--policy", "fast"], 2, "unknown policy"),
        (["-p", "x", "--threshold", "7"], 2, "'7' is not a number from 0 to 1 or 'calibrated'"),
        (["-p", "x", "--threshold", "0.5"], 2, "--threshold changes nothing: policy auto has no use for it"),
        (["-p", "x", "--policy", "chain:rejection", "--acceptance", "typical"], 2, "these exclude each other"),
        (["--plain", "-p", "x"], 2, "--plain is a chat in lines; -p"),
        (["--plain", "--json"], 2, "--plain is a chat in lines; -p"),
        (["--plain", "--more"], 2, "--plain is a chat in lines; -p"),
        (["-p", "x", "--policy", "dense", "--draft-length", "2"], 2, "--draft-length changes nothing"),
        (["-p", "x", "--policy", "tree:early"], 2, "tree can be followed by exact, rejection, typical"),
        (["-p", "x", "--policy", "dense:margin"], 2, "nothing can follow dense"),
        (["-p", "x", "--policy", "dense@0.5"], 2, "dense has no threshold; exact and specee have it"),
        (["-p", "x", "--policy", "exact:margin", "--draft-length", "2"], 2, "these exclude each other"),
        (["-p", "x", "--policy", "chain", "--draft-length", "9"], 2, "draft-length"),
        (["bench", "--policies", " , "], 2, "nothing to compare"),
        (["bench", "--policies", "dense,chain", "--kv", "propagate"], 2, "policy dense and chain has no use for it"),
        (["-p", "x", "--json", "--jsonl"], 2, "exclude"),
        (["-p", "x", "--temperature", "-1"], 2, "temperature"),
        (["-p", "  "], 2, "nothing to answer"),
        ([], 2, "nothing to answer"),
        (["-p", "x", "--model", "no/such.gguf"], 3, "no/such.gguf"),
        (["-p", "x", "--model", "smolm2-135"], 3, "smollm2-135m"),
        (["bench", "--prompts", "no/such.jsonl"], 2, "no/such.jsonl"),
        (["bench", "--json", "--markdown"], 2, "exclude"),
        (["bench", "--svg", "no/such/folder.svg"], 2, "no/such/folder.svg"),
        (["-p", "x", "--kv", "settle"], 2, "complete"),
        (["--temperature", "1", "paths"], 2, "--temperature means nothing to 'specee-chat paths'"),
        (["paths", "--temperature", "1"], 2, "specee-chat paths --help says more"),
        (["--policy", "exact", "bench"], 2, "--policy means nothing to 'specee-chat bench'"),
        (["--jsonl", "history"], 2, "--jsonl means nothing to 'specee-chat history list'"),
    ],
)
def test_errors_are_one_line_with_a_code(env: dict[str, str], arguments: list[str], code: int, says: str) -> None:
    done = call(env, *arguments)
    assert says in one_line(done)
    assert done.returncode == code


def test_models_and_history_alone_list(env: dict[str, str]) -> None:
    done = call(env, "models")
    assert done.returncode == 0 and done.stdout.startswith("NAME ") and "\nsmollm2-135m " in done.stdout
    assert json.loads(call(env, "models", "--json").stdout)[0]["name"]
    done = call(env, "history")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no chats are kept yet\n")
    assert json.loads(call(env, "--json", "history").stdout) == []


@pytest.mark.parametrize(("content", "says"), [(b"", "is empty"), (b"hello world", "not a GGUF"), (b"GGUF", "cut off")])
def test_files_that_are_no_model(env: dict[str, str], tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "some.gguf"
    file.write_bytes(content)
    done = call(env, "-p", "x", "--model", str(file))
    assert done.returncode == 3 and says in one_line(done)


# ---- with the embedded model ----------------------------------------------------------------------------------------


@needs_engine
def test_a_model_that_is_cut_off(env: dict[str, str], tmp_path: Path) -> None:
    from specee.models import embedded

    whole = embedded.path()
    assert whole is not None
    cut = tmp_path / "cut.gguf"
    with whole.open("rb") as file:
        cut.write_bytes(file.read(3_000_000))
    done = call(env, "-p", "x", "--model", str(cut))
    assert done.returncode == 3 and "cut off" in one_line(done)


@needs_engine
def test_json_has_the_promised_fields_and_no_socket_is_opened(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FORBID_SOCKETS)
    paths = [str(tmp_path), *filter(None, [env.get("PYTHONPATH")])]
    env = {**env, "PYTHONPATH": os.pathsep.join(paths)}
    probe = subprocess.run([sys.executable, "-c", "import socket; socket.socket()"], env=env, capture_output=True)
    assert probe.returncode != 0, "the test's own hook does not work"
    done = call(env, "-p", "Why is the sky blue?", "--json", "--max-tokens", "12", "--policy", "dense", *GREEDY)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    promised = (
        "model policy policy_reason text prompt_tokens tokens n_layers mean_exit_layer tokens_per_second ttft_s "
        "stop_reason stats"
    )
    assert set(promised.split()) <= answer.keys()
    assert answer["policy"] == "dense" and answer["n_layers"] == 30 and answer["mean_exit_layer"] == 30
    assert len(answer["tokens"]) == 12 and answer["stop_reason"] == "length"
    assert "".join(t["text"] for t in answer["tokens"]) == answer["text"]
    assert all(set(t) == {"id", "text", "exit_layer", "drafter", "channel"} for t in answer["tokens"])
    assert answer["tokens_per_step"] == 1 and answer["acceptance"] is None  # nothing was drafted


@needs_engine
def test_the_answer_alone_goes_to_standard_output(env: dict[str, str]) -> None:
    arguments = ["--max-tokens", "8", "--policy", "dense", *GREEDY]
    done = call(env, "-p", "Say hello.", "--stats", *arguments)
    assert done.returncode == 0 and "tokens/s" in done.stderr and "policy dense" in done.stderr
    piped = call(env, *arguments, text="Say hello.")
    assert piped.stdout == done.stdout and done.stdout.endswith("\n") and piped.stderr == ""
    log = Path(env["SPECEE_DATA_DIR"], "logs", "engine.log")
    assert log.stat().st_size > 0  # what llama.cpp says goes there


@needs_engine
def test_a_pipe_goes_with_the_text_of_p(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes("Äpfel\n".encode("utf-16"))
    arguments = ["--max-tokens", "2", *GREEDY]
    done = call(env, "-p", f"Shorten @{tmp_path}/notes.txt", *arguments, text="and this\n")
    assert (done.returncode, done.stderr) == (0, "")
    shown = call(env, "history", "show", "1").stdout
    assert "notes.txt:\n```\nÄpfel\n```\n\nand this\n" in shown
    done = call(env, "-p", "", *arguments, text="only this")
    assert done.returncode == 0 and "\nonly this\n" in call(env, "history", "show", "2").stdout


@needs_engine
@pytest.mark.parametrize("form", [[], ["--json"], ["--jsonl"]])
@pytest.mark.parametrize(("output", "why"), [("/dev/full", "No space left"), (None, "Bad file descriptor")])
def test_an_answer_that_cannot_be_written(env: dict[str, str], form: list[str], output: str | None, why: str) -> None:
    command = [*PROGRAM, "-p", "Hi", "--max-tokens", "2", *GREEDY, *form]
    closed = (lambda: os.close(1)) if output is None else None
    with Path(output or os.devnull).open("w") as file:
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=closed,
        )
    assert done.returncode == 1 and why in done.stderr and len(done.stderr.splitlines()) == 1


@needs_engine
def test_an_answer_in_ascii(env: dict[str, str]) -> None:
    env = {**env, "PYTHONIOENCODING": "ascii"}
    for form in ([], ["--json"], ["--jsonl"]):
        done = call(env, "-p", "Write: é", "--system", "日本", "--max-tokens", "8", *GREEDY, *form)
        assert done.returncode == 0 and done.stdout.isascii() and done.stderr == ""
        assert all(json.loads(line) for line in done.stdout.splitlines() if form)


@needs_engine
def test_json_lines_are_typed_events(env: dict[str, str]) -> None:
    done = call(env, "-p", "Say hello.", "--jsonl", "--max-tokens", "6", *GREEDY)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event["type"] for event in events]
    assert set(kinds) <= {"progress", "prompt", "start", "token", "done"} and kinds[-1] == "done"
    verified = [e for e in events if e["type"] == "token" and e["state"] == "verified"]
    assert "".join(e["text"] for e in verified) == events[-1]["text"]
    assert {"token", "exit_layer", "scores", "candidates", "state", "t"} <= verified[0].keys()


@needs_engine
def test_the_same_seed_says_the_same(env: dict[str, str]) -> None:
    arguments = ["-p", "Tell me a story.", "--max-tokens", "10", "--policy", "dense", "--temperature", "1"]
    first = call(env, *arguments, "--seed", "7").stdout
    assert first == call(env, *arguments, "--seed", "7").stdout != call(env, *arguments, "--seed", "8").stdout


@needs_engine
def test_a_prompt_beyond_the_window(env: dict[str, str]) -> None:
    done = call(env, "-p", "word " * 1000, "--ctx", "256")
    assert done.returncode == 5 and "256" in one_line(done)


@needs_engine
def test_a_chat_goes_on_with_its_model(env: dict[str, str], tmp_path: Path) -> None:
    from specee.models import embedded

    model = embedded.path()
    assert model is not None
    (tmp_path / "other.gguf").symlink_to(model)
    say = ("--max-tokens", "2", "--policy", "dense", "--json")
    call(env, "-p", "x", *say, "--model", "other.gguf", cwd=tmp_path)
    assert json.loads(call(env, "-c", "-p", "y", *say).stdout)["model"] == "other"
    assert json.loads(call(env, "-c", "-p", "y", *say, "--model", "smollm2-135m").stdout)["model"] == "smollm2-135m"
    assert json.loads(call(env, "-c", "-p", "y", *say).stdout)["model"] == "smollm2-135m", "the last one counts"


@needs_engine
def test_a_chat_goes_on_without_files_that_are_gone(env: dict[str, str], tmp_path: Path) -> None:
    from specee.models import embedded

    model = embedded.path()
    assert model is not None
    (tmp_path / "big.gguf").symlink_to(model)
    (tmp_path / "small.gguf").write_bytes(Path(model).read_bytes() + b"another file")
    say = ("--max-tokens", "2")
    call(env, "-p", "x", *say, "--model", "big.gguf", "--drafter", "small.gguf", cwd=tmp_path)
    for content in (None, b"no model"):
        (tmp_path / "small.gguf").unlink()
        if content is not None:
            (tmp_path / "small.gguf").write_bytes(content)
        done = call(env, "--resume", "1", "-p", "y", *say)
        assert done.returncode == 0 and done.stdout.strip()
        assert [line for line in done.stderr.splitlines() if "small.gguf" in line and "goes on without" in line]
        chat = ("--model", "big.gguf", "--drafter", "small.gguf")
        assert call(env, "-c", "-p", "y", *say, *chat, cwd=tmp_path).returncode == 3, "what is typed must be there"
        (tmp_path / "small.gguf").write_bytes(Path(model).read_bytes() + b"another file")
        assert call(env, "--resume", "1", "-p", "y", *say, *chat, cwd=tmp_path).returncode == 0
    (tmp_path / "big.gguf").unlink()
    before = call(env, "history", "show", "1").stdout
    done = call(env, "-c", "-p", "y", *say)
    assert done.returncode == 0 and done.stdout.strip()
    assert "big.gguf cannot answer it any more (model not found); smollm2-135m does now, or --model NAME" in done.stderr
    assert call(env, "history", "show", "1").stdout.startswith(before.rstrip())


def test_no_calibration(env: dict[str, str], tmp_path: Path) -> None:
    from specee.models import embedded

    model = embedded.path()
    assert model is not None
    other = tmp_path / "other.gguf"  # as a file of its own it has no shipped calibration
    other.symlink_to(model)
    for policy in (["exact"], ["pipelined"], ["chain:early"], ["specee", "--draft-length", "2"]):
        done = call(env, "-p", "x", "--model", str(other), "--policy", *policy)
        assert done.returncode == 2 and "specee-chat calibrate" in one_line(done)
    done = call(env, "-p", "x", "--model", str(other), "--json", "--max-tokens", "2")
    answer = json.loads(done.stdout)
    assert answer["policy"] == "chain" and "drafting" in answer["policy_reason"]


@needs_engine
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_with_130_and_leaves_no_engine(env: dict[str, str]) -> None:
    program = subprocess.Popen(
        [*PROGRAM, "-p", LONG_STORY, *ENDLESS],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert program.stdout is not None
    assert program.stdout.read(1)  # it is answering
    children = _children(program.pid)
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 130 and errors == b""
    _all_gone(children)


@needs_engine
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_an_engine_crash_is_one_line(env: dict[str, str], number: signal.Signals) -> None:
    program = subprocess.Popen(
        [*PROGRAM, "-p", LONG_STORY, *ENDLESS],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.read(1)
    for child in _children(program.pid):
        os.kill(child, number)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 1
    assert errors.count("\n") == 1 and "engine crashed" in errors and number.name in errors


@needs_engine
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_the_engine_ends_with_its_parent(env: dict[str, str]) -> None:
    program = subprocess.Popen(
        [*PROGRAM, "-p", LONG_STORY, *ENDLESS],
        env=env,
        stdout=subprocess.PIPE,
    )
    assert program.stdout is not None
    assert program.stdout.read(1)
    children = _children(program.pid)
    program.kill()
    program.wait()
    program.stdout.close()
    _all_gone(children)


@needs_engine
def test_bench_refuses_a_library_that_is_none(env: dict[str, str]) -> None:
    done = call(env, "bench", "--stock", "no/such/python")
    assert "no/such/python: No such file" in done.stderr and done.returncode == 2 and done.stdout == ""


@needs_engine
def test_bench_reports_its_figures(env: dict[str, str], tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"id": "x", "category": "chat", "prompt": "Say hello."}\n')
    svg = tmp_path / "speed.svg"
    arguments = ["bench", "--prompts", str(prompts), "--max-tokens", "12"]
    done = call(env, *arguments, "--policies", "chain", "--temperature", "0.6", "--json", "--svg", str(svg))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["complete"] and report["prompts"] == 1 and len(report["model_sha256"]) == 64
    assert report["stock"] is None and {"commit", "date", "threads", "max_tokens", "temperature"} <= report.keys()
    assert {"cpu", "cores", "instruction_sets"} <= report["machine"].keys()
    promised = (
        "tokens_per_second speedup speedup_min speedup_max by_category mean_exit_layer acceptance "
        "acceptance_by_position drafters tokens_per_step agreement ppl_ratio duplicate_words identical_texts vs_stock"
    )
    until_loop = "tokens_per_second speedup speedup_min speedup_max by_category tokens_per_step acceptance"
    for figures in report["policies"].values():
        assert set(promised.split()) <= figures.keys() and set(until_loop.split()) <= figures["until_loop"].keys()
        assert figures["identical_texts"] == figures["by_category"]["chat"]["identical_texts"] == 1
    assert list(report["policies"]) == ["dense", "chain"] and report["policies"]["dense"]["speedup"] == 1.0
    assert svg.read_text().startswith("<svg")
    done = call(env, *arguments, "--markdown")
    assert done.returncode == 0 and "| auto = chain |" in done.stdout and "| exact |" in done.stdout


@needs_engine
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupted_bench_shows_what_it_has(env: dict[str, str]) -> None:
    program = subprocess.Popen(
        [*PROGRAM, "bench", "--policies", "dense", "--max-tokens", "24", "--repeats", "200", "--json"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stderr is not None
    for line in program.stderr:
        if "prompt 3 of" in line:
            break
    children = _children(program.pid)
    program.send_signal(signal.SIGINT)
    out, _ = program.communicate(timeout=60)
    report = json.loads(out)
    assert program.returncode == 130 and not report["complete"] and report["prompts"] >= 2
    _all_gone(children)


def _children(pid: int) -> list[int]:
    """Processes started by `pid`; [] where there is no /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == str(pid) and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def _all_gone(pids: list[int]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if not any(_alive(pid) for pid in pids):
            return
        time.sleep(0.05)
    pytest.fail("an engine process is left behind")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---- chats that are kept --------------------------------------------------------------------------------------------


@needs_engine
def test_chats_are_kept_and_go_on(env: dict[str, str]) -> None:
    arguments = ["--policy", "dense", "--max-tokens", "12", *GREEDY]
    first = json.loads(call(env, "-p", "My name is Ada.", "--json", "--system", "Be brief.", *arguments).stdout)
    done = call(env, "-c", "-p", "What is my name?", "--json", "--max-tokens", "6")
    second = json.loads(done.stdout)
    assert second["chat"] == first["chat"] and second["prompt_tokens"] > first["prompt_tokens"]
    assert second["policy"] == "dense" and len(second["tokens"]) <= 6  # the chat's settings, and what was typed
    other = json.loads(call(env, "-p", "Something else", "--json", *arguments).stdout)
    assert other["chat"] != first["chat"]
    listed = json.loads(call(env, "history", "list", "--json").stdout)
    assert [chat["id"] for chat in listed] == [other["chat"], first["chat"]] and listed[1]["turns"] == 4
    table = call(env, "history", "--limit", "1").stdout.splitlines()
    assert len(table) == 2 and table[0].split() == ["ID", "LAST", "USED", "TURNS", "TITLE"]
    assert table[1].split()[0] == str(other["chat"]) and table[1].endswith("2  Something else")
    shown = call(env, "history", "show", str(first["chat"])).stdout
    assert "My name is Ada." in shown and "*System: Be brief.*" in shown and "\x1b" not in shown
    hits = json.loads(call(env, "history", "search", "ada", "--json").stdout)
    assert hits[0]["chat"] == first["chat"]
    whole = json.loads(call(env, "history", "export", str(first["chat"]), "--json").stdout)
    assert whole["turns"][1]["exit_layers"] == [30] * first["stats"]["tokens"]
    assert whole["turns"][1]["drafters"] == [token["drafter"] for token in first["tokens"]]
    rest = json.loads(call(env, "--more", "--resume", str(first["chat"]), "--json", "--max-tokens", "6").stdout)
    grown = json.loads(call(env, "history", "export", str(first["chat"]), "--json").stdout)["turns"][-1]["content"]
    assert rest["chat"] == first["chat"] and grown == second["text"] + rest["text"] and rest["text"]
    resumed = call(env, "--resume", str(first["chat"]), "-p", "Bye", "--json", "--max-tokens", "2")
    assert json.loads(resumed.stdout)["chat"] == first["chat"]
    removed = call(env, "history", "rm", str(first["chat"]), "--yes", "--json")
    assert json.loads(removed.stdout) == {"removed": [first["chat"]]}
    assert call(env, "history", "show", str(first["chat"])).returncode == 2
    call(env, "-p", "secret", "--no-history", *arguments)
    assert len(json.loads(call(env, "history", "list", "--json").stdout)) == 1


@needs_engine
def test_a_full_window_is_told_or_room_is_made(env: dict[str, str]) -> None:
    arguments = ["--ctx", "256", "--max-tokens", "8", "--policy", "dense", *GREEDY]
    call(env, "-p", "word " * 100, *arguments)
    call(env, "-c", "-p", "more " * 60, *arguments)
    full = call(env, "-c", "-p", "again " * 60, *arguments)
    assert full.returncode == 5 and "256" in one_line(full)
    done = call(env, "-c", "-p", "again " * 60, "--when-full", "drop", *arguments)
    assert done.returncode == 0 and "the oldest 2 turns are left out" in done.stderr
    assert "not sent any more" in call(env, "history", "show", "1").stdout


def test_nothing_to_go_on_with(env: dict[str, str]) -> None:
    assert call(env, "--more").returncode == 2 and call(env, "--more", "-p", "x").returncode == 2
    done = call(env, "-c", "-p", "x")
    assert done.returncode == 2 and "no chat to go on with" in one_line(done)
    done = call(env, "--resume", "7", "-p", "x")
    assert done.returncode == 2 and "no such chat" in one_line(done)


def test_a_damaged_history_is_one_line(env: dict[str, str]) -> None:
    file = Path(env["SPECEE_DATA_DIR"], "history.sqlite")
    file.parent.mkdir()
    file.write_bytes(b"nothing like a database" * 100)
    for arguments in (["-p", "x"], ["history", "list"]):
        done = call(env, *arguments)
        assert done.returncode == 1 and "damaged" in one_line(done)
    assert file.read_bytes().startswith(b"nothing like")
    done = call(env, "doctor", "--quick", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1 and not checks["history"]["ok"] and checks["disk"]["detail"]


def test_config_gives_defaults_and_is_checked(env: dict[str, str]) -> None:
    file = Path(env["SPECEE_DATA_DIR"], "config.toml")
    file.parent.mkdir()
    file.write_text('model = "no/such.gguf"\n[personas]\ntutor = "Explain."\n')
    done = call(env, "-p", "x")
    assert done.returncode == 3 and "no/such.gguf" in one_line(done)
    done = call(env, "-p", "x", "--persona", "nobody")
    assert done.returncode == 2 and "tutor" in one_line(done)
    file.write_text('ctx = "wide"')
    done = call(env, "-p", "x")
    assert done.returncode == 2 and "wide" in one_line(done)
    file.write_text("modle = 3")
    done = call(env, "paths")
    assert done.returncode == 2 and "did you mean model" in one_line(done)
    assert call(env, "--help").returncode == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions(env: dict[str, str], shell: str) -> None:
    done = call(env, "completions", shell)
    assert done.returncode == 0 and "_SPECEE_CHAT_COMPLETE" in done.stdout
    words = {**env, "_SPECEE_CHAT_COMPLETE": "bash_complete", "COMP_WORDS": "specee-chat hist", "COMP_CWORD": "1"}
    assert "history" in call(words).stdout


@needs_engine
def test_the_doctor_says_ok(env: dict[str, str]) -> None:
    done = call(env, "doctor")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout
    assert all(line.startswith("OK ") for line in lines) and any("self-test" in line for line in lines)


def test_a_secret_is_not_repeated(env: dict[str, str]) -> None:
    done = call({**env, "SPECEE_API_KEY": "open sesame"}, "serve")
    assert done.returncode == 2 and "SPECEE_API_KEY: " in done.stderr and "sesame" not in done.stderr
    done = call(env, "serve", "--api-key", "open sesame")
    assert done.returncode == 2 and "--api-key: " in done.stderr and "sesame" not in done.stderr
