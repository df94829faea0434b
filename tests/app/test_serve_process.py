"""`specee-chat serve` as a process, on the embedded model."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from real_engine import NO_END, missing_model
from serving import ASK, PATH

from specee.models import embedded

NO_MODEL = missing_model()
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals"),
    pytest.mark.skipif(NO_MODEL is not None, reason=str(NO_MODEL)),
]
PROGRAM = [sys.executable, "-c", "from specee.app.cli.main import main; main()", "serve"]
ENDS = (
    [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)]
    if sys.platform != "win32"
    else []
)
LONG = {
    "messages": [{"role": "user", "content": "Write a long story."}],
    "max_tokens": 2000,
    "stream": True,
    "logit_bias": {str(token): bias for token, bias in NO_END.items()},
}


@contextmanager
def serving(data: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process, and its port."""
    arguments = ["--data-dir", str(data), "--ctx", "2048", "--port", "0", *options]
    process = subprocess.Popen([*PROGRAM, *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert line.startswith("serving "), line
        yield process, int(line.partition("/v1")[0].rpartition(":")[2])
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def connected(port: int) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60))


def send(connection: http.client.HTTPConnection, body: Any) -> None:
    connection.request("POST", PATH, json.dumps(body), {"Content-Type": "application/json"})


@contextmanager
def post(port: int, body: Any) -> Iterator[http.client.HTTPResponse]:
    with connected(port) as connection:
        send(connection, body)
        with closing(connection.getresponse()) as response:
            yield response


def health(port: int) -> int:
    with connected(port) as connection:
        connection.request("GET", "/health")
        return connection.getresponse().status


def ask(port: int, **parameters: Any) -> tuple[int, Any]:
    with post(port, {**ASK, "max_tokens": 8, "temperature": 0, **parameters}) as response:
        return response.status, json.loads(response.read())


def engines(process: subprocess.Popen[str]) -> list[int]:
    """The processes that it has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process.pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc")
@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_signal_ends_it_in_the_middle_of_an_answer(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with serving(tmp_path) as (process, port):
        started = engines(process)
        assert started
        with post(port, LONG) as response:
            assert response.status == 200 and response.read(20)
            process.send_signal(number)
            assert process.wait(60) == code
        until = time.monotonic() + 60
        while any(Path(f"/proc/{engine}").exists() for engine in started):
            assert time.monotonic() < until, "the engine is still there"
            time.sleep(0.05)


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_what_is_answered_when_a_signal_comes_gets_an_error(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with serving(tmp_path) as (process, port), post(port, LONG) as response, connected(port) as whole:
        assert response.read(20)
        send(whole, {**LONG, "stream": False})
        assert health(port) == 200  # what came before that has been read, too
        process.send_signal(number)
        last = response.read().split(b"\n\n")[-3:-1]
        assert b'"error"' in last[0] and last[1] == b"data: [DONE]"
        refused = whole.getresponse()
        assert refused.status == 503 and json.loads(refused.read())["error"]["type"] == "server_error"
        assert process.wait(60) == code
        assert process.stderr is not None and not process.stderr.read().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_further_signals_change_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as (process, port), post(port, LONG) as response:
        assert response.read(20)
        for _ in range(4):
            process.send_signal(number)
            time.sleep(0.3)
        assert b'"error"' in response.read().split(b"\n\n")[-3]
        assert process.wait(60) in (130, -signal.SIGTERM)
        assert process.stderr is not None and not process.stderr.read().strip()
    assert "Traceback" not in "".join(log.read_text() for log in tmp_path.rglob("serve.log"))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc")
@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_signal_while_the_model_is_loaded_leaves_no_engine(tmp_path: Path, number: signal.Signals, code: int) -> None:
    arguments = [*PROGRAM, "--data-dir", str(tmp_path), "--port", "0"]
    for seconds in (0.0, 0.05, 0.2, 0.4):  # after the engine began
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
            until = time.monotonic() + 60
            while not (started := engines(process)):
                assert time.monotonic() < until
                time.sleep(0.005)
            time.sleep(seconds)
            process.send_signal(number)
            assert process.wait(60) == code
            assert process.stderr is not None and "Traceback" not in process.stderr.read()
            assert not any(Path(f"/proc/{engine}").exists() for engine in started)


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with serving(tmp_path) as (process, port):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.3)
            assert ask(port)[0] == 200
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc")
def test_an_engine_that_is_stopped_is_replaced(tmp_path: Path) -> None:
    """What it answers gets an error, what waits another engine's answer or 503, and the server stays."""
    with serving(tmp_path, "--parallel", "1") as (process, port):
        (engine,) = engines(process)
        results: list[Any] = []
        with post(port, LONG) as response:
            assert response.read(20)
            waiting = threading.Thread(target=lambda: results.append(ask(port)))
            waiting.start()
            os.kill(engine, signal.SIGSTOP)
            rest = response.read()
            assert b'"error"' in rest and rest.endswith(b"data: [DONE]\n\n")
        waiting.join(60)
        assert results and results[0][0] in (200, 503)
        assert ask(port)[0] == 200
        assert engine not in engines(process)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc")
def test_a_model_file_that_has_gone(tmp_path: Path) -> None:
    """And comes back."""
    model, hidden = tmp_path / "m.gguf", tmp_path / "n.gguf"
    given = embedded.path()
    assert given is not None
    shutil.copyfile(given, model)

    with serving(tmp_path / "data", "--model", str(model)) as (process, port):
        assert ask(port)[0] == health(port) == 200
        model.rename(hidden)
        os.kill(engines(process)[0], signal.SIGKILL)
        for stream in (False, True):
            status, refused = ask(port, stream=stream)
            assert status == 503 and str(tmp_path) not in json.dumps(refused)
            assert health(port) == 503
        hidden.rename(model)
        until = time.monotonic() + 60
        while health(port) != 200:
            assert time.monotonic() < until
            time.sleep(0.5)
        assert ask(port)[0] == 200


def test_what_the_engine_honours(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, port):
        say = {"messages": [{"role": "user", "content": "Count from one to ten."}], "max_tokens": 40}
        status, whole = ask(port, **say, logprobs=True, top_logprobs=2)
        assert status == 200
        choice = whole["choices"][0]
        tokens = choice["logprobs"]["content"]
        assert len(tokens) == whole["usage"]["completion_tokens"]
        text = b"".join(bytes(token["bytes"]) for token in tokens).decode()
        assert text == choice["message"]["content"]
        assert all(len(token["top_logprobs"]) == 2 and token["logprob"] <= 0 for token in tokens)

        stop = text[len(text) // 2 :][:3]
        counts = set()
        for _ in range(3):
            _, stopped = ask(port, **say, stop=[stop])
            assert stopped["choices"][0]["message"]["content"] == text[: text.index(stop)]
            counts.add(stopped["usage"]["completion_tokens"])
        assert len(counts) == 1

        for form in ({"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "a", "schema": PERSON}}):
            _, answer = ask(port, **{**say, "max_tokens": 200}, response_format=form)
            if answer["choices"][0]["finish_reason"] == "stop":
                value = json.loads(answer["choices"][0]["message"]["content"])
                assert isinstance(value, dict)
                assert form["type"] == "json_object" or set(value) == {"name", "age"}
        status, refused = ask(port, logit_bias={"999999999": 1})
        assert (
            status == 400 and "999999999" in refused["error"]["message"] and refused["error"]["param"] == "logit_bias"
        )
        bad = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nonsense"}}}
        status, refused = ask(port, response_format=bad)
        assert (status, refused["error"]["param"]) == (400, "response_format.json_schema.schema")
        assert ask(port, messages=[{"role": "user", "content": "a" * 1_000_000}])[0] == 400
        status, refused = ask(port, tools=[{"type": "function", "function": {"name": "f"}}])
        assert (status, refused["error"]["param"]) == (400, "tools")
        for seed in (1, 2):
            drawn = {ask(port, temperature=1.5, seed=seed)[1]["choices"][0]["message"]["content"] for _ in range(2)}
            assert len(drawn) == 1
        status, answer = ask(port, messages=[{"role": "user", "content": "\0 \x1b[2J <|im_end|>"}])
        assert status == 200 and answer["choices"][0]["message"]["content"]


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 10}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_what_cannot_be_served_ends_before_the_model_is_loaded(tmp_path: Path) -> None:
    def run(*options: str) -> tuple[int, str]:
        done = subprocess.run(
            [*PROGRAM, "--data-dir", str(tmp_path), *options], capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stderr.strip()

    for options in (
        ("--host", "0.0.0.0"),
        ("--host", "::"),
        ("--host", "no-such-host.invalid"),
        ("--host", ""),
        ("--api-key", ""),
        ("--api-key", "a b"),
        ("--cors", "example.com"),
        ("--port", "-1"),
        ("--parallel", "0"),
    ):
        code, line = run(*options)
        assert code == 2 and line.count("\n") == 0, (options, line)
    with serving(tmp_path) as (_, port):
        code, line = run("--port", str(port))
        assert code == 1 and f"port {port}" in line and "--port" in line
