"""Layers on workers: the policies' texts, what is told of them, and what happens when one is lost."""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from decoded import run
from workers import END_SECONDS, PROGRAM, worker_process, workers

from specee.app import settings
from specee.app.chat.session import Session
from specee.app.cli.main import INTERRUPTED
from specee.app.engine.client import ON_CPU, EngineClient, EngineLostError, NoEngineError
from specee.app.engine.loading import open_backend
from specee.app.engine.measurements import Measurements
from specee.app.engine.protocol import ChatEvent, Done, Message, Notice
from specee.app.errors import USAGE, AppError, as_app_error
from specee.app.options import PLAIN_GREEDY, ChatOptions, LoadOptions, PolicyChoice, Sampling
from specee.models import embedded
from specee.native import devices, library, rpc
from specee.native.endpoint import Endpoint, parse
from specee.native.errors import DeviceError, NativeError
from specee.predictors.cost_model import CostModel
from specee.predictors.decoding.build_policy import build_chain, build_tree, make_chain_drafter, make_tree_drafter

needs_model = pytest.mark.skipif(
    embedded.path() is None or embedded.calibration() is None,
    reason="built without the embedded model or its calibration",
)
HELLO = struct.pack("<BQ24x", 14, 24)  # RPC_CMD_HELLO, with no abilities
GREETING = 8 + 28  # bytes: their number, and what a worker says of itself
COUNT_DEVICES = struct.pack("<BQ", 15, 0)
QUESTION = (Message("user", "Count slowly from one to two hundred."),)
STORY = Message("user", "Tell a long story about a cat.")
PROMPT = "Repeat this line three times: the cat sat on the mat."
FREE = {1: 1.0, 8: 1.01}  # rows cost nothing: many are drafted
LONG, SHORT = (ChatOptions(PolicyChoice("dense"), PLAIN_GREEDY, n) for n in (400, 24))


# ---- answers -------------------------------------------------------------------------------------------------------


@needs_model
def test_policies_generate_the_tokens_of_the_cpu(tmp_path: Path) -> None:
    """With half of the layers on two workers; tests/native has all layers, on one and on two."""

    def opened(**options: Any) -> Any:
        load = LoadOptions(n_ctx=512, threads=1, data_dir=str(tmp_path), drafter="none", **options)
        return closing(open_backend(load, lambda what, share: None))

    with opened() as backend:
        expected, _ = run(backend, PolicyChoice("dense"), PROMPT)
    with workers(2) as endpoints, opened(rpc=",".join(endpoints), gpu_layers=15) as backend:
        where = backend.info.places
        assert all(endpoint in where for endpoint in endpoints) and where in Measurements().key(backend)
        assert where.endswith("layers 16-30 and the LM head on the CPU")
        if "AMX" in library.cpu_buffers():  # which adds in another order, and a worker has none
            expected, _ = run(backend, PolicyChoice("dense"), PROMPT)
        sources = CostModel(FREE), backend.datastores
        chain, tree = build_chain(make_chain_drafter(*sources)), build_tree(make_tree_drafter(*sources))
        wanted = (PolicyChoice("dense"), chain, tree, PolicyChoice("exact"), PolicyChoice("pipelined"))
        stats = []
        for policy in wanted:
            tokens, counted = run(backend, policy, PROMPT)
            assert tokens == expected, policy
            stats.append(counted)
        assert stats[1].accepted and stats[2].accepted and stats[3].exits, "drafts stand, and tokens exit"


# ---- lost workers --------------------------------------------------------------------------------------------------


@contextmanager
def client_of(endpoint: str, data: Path, **options: Any) -> Iterator[EngineClient]:
    options = {"n_ctx": 512, **options}
    load = LoadOptions(threads=1, data_dir=str(data), rpc=endpoint, drafter="none", **options)
    with closing(EngineClient(load)) as client:
        yield client


def answer(client: EngineClient) -> tuple[str, list[str]]:
    """The text of an answer, and the notices before it."""
    text, notices = "", []
    for event in client.generate(QUESTION, SHORT):
        if isinstance(event, ChatEvent):
            text += event.said
        if isinstance(event, Notice):
            notices.append(event.text)
    return text, notices


@needs_model
def test_a_worker_lost_in_the_middle_is_named_and_the_chat_goes_on(tmp_path: Path) -> None:
    with worker_process() as (process, endpoint):
        load = LoadOptions(n_ctx=512, threads=1, data_dir=str(tmp_path), rpc=endpoint, drafter="none")
        session = Session(load)
        with closing(session):
            text = ""
            with pytest.raises(EngineLostError, match=f"lost the worker at {endpoint}: ") as lost:
                for event in session.send("Count slowly from one to two hundred.", LONG):
                    if isinstance(event, ChatEvent) and event.said:
                        text += event.said
                        process.kill()
            assert lost.value.of_device and "\n" not in lost.value.line
            assert session.branch[-1].state == "interrupted" and session.branch[-1].content == text
            with pytest.raises(AppError, match=f"no worker at {endpoint}: nothing listens there") as refused:
                list(session.continue_answer(SHORT))
            assert refused.value.of_device and session.branch[-1].content == text, "what was written stays"
            session.leave_out(refused.value.worker)  # what the screen asks
            done = [event for event in session.continue_answer(SHORT) if isinstance(event, Done)]
            assert len(done) == 1 and session.branch[-1].content.startswith(text)
            assert session.info is not None and session.info.places == ""


def assert_both_ask_whether_the_other_is_there(port: int) -> None:
    """A machine that loses its network says nothing: each end has a timer, also where nothing is on the way."""
    if sys.platform != "linux":
        return  # timers can be seen there
    until = time.monotonic() + END_SECONDS
    timers: list[str] = []
    while len(timers) < 2 or set(timers) != {"02"}:  # 01: something is on the way
        assert time.monotonic() < until, timers
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        timers = [row[5][:2] for row in rows if row[3] == "01" and f"{port:04X}" in (row[1][-4:], row[2][-4:])]
        time.sleep(0.02)


@needs_model
def test_the_cpu_goes_on_at_once_where_that_is_allowed(tmp_path: Path) -> None:
    with closing(EngineClient(LoadOptions(n_ctx=512, threads=1, data_dir=str(tmp_path), drafter="none"))) as client:
        expected, _ = answer(client)
    with worker_process() as (process, endpoint), client_of(endpoint, tmp_path, cpu_fallback=True) as client:
        assert list(client.open()) and client.info is not None and endpoint in client.info.places
        assert_both_ask_whether_the_other_is_there(parse(endpoint).port)
        process.kill()
        process.wait(END_SECONDS)
        text, notices = answer(client)  # lost between two answers
        assert text == expected and len(notices) == 1
        assert f"lost the worker at {endpoint}" in notices[0] and "the CPU computes alone now" in notices[0]
        assert client.info is not None and client.info.places == ""
    with client_of(endpoint, tmp_path, cpu_fallback=True) as client:  # not there when the model is loaded
        notices = [event.text for event in client.open() if isinstance(event, Notice)]
        assert [f"no worker at {endpoint}" in text for text in notices] == [True]
        assert client.info is not None and client.info.places == ""
    with client_of(endpoint, tmp_path) as client, pytest.raises(NoEngineError, match="no worker at") as refused:
        list(client.open())
    assert refused.value.of_device


def tokens_of(client: EngineClient, options: ChatOptions, on_token: dict[int, Any]) -> tuple[list[int], list[str]]:
    """The tokens of an answer, in which something is done when so many have come; and the notices."""
    tokens: list[int] = []
    notices: list[str] = []
    for event in client.generate((STORY,), options):
        if isinstance(event, Notice):
            notices.append(event.text)
        if isinstance(event, ChatEvent) and event.state == "verified" and not event.stop and event.index >= len(tokens):
            assert event.index == len(tokens)
            tokens.append(event.token)
            on_token.pop(len(tokens), lambda: None)()
        if isinstance(event, Done):
            assert event.stats.tokens == len(tokens)
    return tokens, notices


@needs_model
def test_an_answer_goes_on_with_what_is_left(tmp_path: Path) -> None:
    """On two workers, on the one that is left, and on the CPU: each token once, and those of the CPU."""
    sampling = Sampling(temperature=0.8, repeat_penalty=1.2, seed=3)
    dense = ChatOptions(PolicyChoice("dense"), sampling, 48)
    with closing(EngineClient(LoadOptions(n_ctx=512, threads=1, data_dir=str(tmp_path), drafter="none"))) as client:
        expected, _ = tokens_of(client, dense, {})
    rest = {"cpu_fallback": True, "gpu_layers": 15, "tensor_split": "2,1"}
    with (
        worker_process() as (first, one),
        worker_process() as (second, other),
        client_of(f"{one},{other}", tmp_path, **rest) as client,
    ):
        asked = replace(dense, policy=PolicyChoice("chain"))
        tokens, notices = tokens_of(client, asked, {4: first.kill, 10: second.kill})
    assert [notice.rpartition("; ")[2] for notice in notices] == [f"it goes on with {other}", ON_CPU]
    assert f"lost the worker at {one}" in notices[0] and f"lost the worker at {other}" in notices[1]
    assert len(tokens) > 12
    if "AMX" not in library.cpu_buffers():  # which adds in another order, and a worker has none
        assert tokens == expected


@needs_model
def test_a_script_reads_one_answer_where_a_worker_is_lost(tmp_path: Path) -> None:
    """As text and as JSON lines: nothing twice, and one line of what happened."""
    options = ["--temperature", "0", "--max-tokens", "80", "--threads", "1", "--ctx", "512", "--offline"]
    command = [sys.executable, "-c", PROGRAM, "-p", STORY.content, *options]
    command += ["--data-dir", str(tmp_path), "--drafter", "none", "--policy", "dense"]
    expected = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    text, told = _losing_a_worker(command, " ")
    if "AMX" not in library.cpu_buffers():  # which adds in another order, and a worker has none
        assert text == expected
    assert told.count("specee-chat: ") == 1 and "specee-chat: lost the worker at 127.0.0.1:" in told
    printed, told = _losing_a_worker([*command, "--jsonl"], '"type": "token"')
    lines = [json.loads(line) for line in printed.splitlines()]
    kinds = [line["type"] for line in lines]
    assert kinds.count("start") == kinds.count("done") == kinds.count("notice") == 1
    assert kinds[-1] == "done" and not told
    assert "".join(line["text"] for line in lines if line["type"] == "token") == lines[-1]["text"]
    if "AMX" not in library.cpu_buffers():
        assert lines[-1]["text"] == expected.rstrip("\n")
    assert len(lines[-1]["tokens"]) == lines[-1]["stats"]["tokens"]


def _losing_a_worker(command: list[str], sign: str) -> tuple[str, str]:
    """What a command prints whose worker is lost once it has printed six signs of tokens."""
    with worker_process() as (worker, endpoint):
        process = subprocess.Popen(
            [*command, "--rpc", endpoint, "--cpu-fallback"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stderr is not None
        with process, process.stdout, process.stderr:
            printed = ""
            while printed.count(sign) < 6:
                more = process.stdout.read(1)
                assert more, process.stderr.read()
                printed += more
            worker.kill()
            printed += process.stdout.read()
            assert process.wait() == 0
            return printed, process.stderr.read()


@needs_model
def test_a_device_without_room_is_one_line(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (450 << 20, before[1]))  # for what is started now
    try:
        starting = worker_process()
        process, endpoint = starting.__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    try:
        with client_of(endpoint, tmp_path, gpu_layers=31, n_ctx=8192) as client, pytest.raises(AppError) as error:
            list(client.generate(QUESTION, SHORT))
        assert error.value.of_device and "--gpu-layers" in error.value.line and "\n" not in error.value.line
        assert process.poll() is None
    finally:
        starting.__exit__(None, None, None)


# ---- who is there --------------------------------------------------------------------------------------------------


@contextmanager
def listener(reply: bytes | None) -> Iterator[Endpoint]:
    """Something that takes connections, and sends this; None: nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(64)
                if reply is not None:
                    connection.sendall(reply)
                else:
                    connection.recv(64)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Endpoint(*server.getsockname())
        thread.join(END_SECONDS)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what listens there is no worker"),
        (b"", "what listens there is no worker"),
        (struct.pack("<Q4B24x", 28, 6, 1, 0, 0), r"version 6\.1\.0 of the RPC protocol, this program 7\.0\.0"),
        (None, "no answer within"),
    ],
)
def test_what_is_no_worker_is_one_line(reply: bytes | None, says: str) -> None:
    with listener(reply) as endpoint, pytest.raises(DeviceError, match=f"no worker at {endpoint}: .*{says}") as error:
        rpc.check(endpoint, 0.5)
    assert "\n" not in str(error.value)


def test_who_is_not_there_is_one_line() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(DeviceError, match="nothing listens there; 'specee-chat worker'"):
            rpc.check(Endpoint(*unused.getsockname()))
    with pytest.raises(DeviceError, match=r"no IPv4 address is known of nobody\.invalid"):
        rpc.check(parse("nobody.invalid:50052"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("::1:50052", "'::1:50052': workers have IPv4 only"),
        ("a:1,[::1]:50052", r"'\[::1\]:50052': workers have IPv4 only"),
        ("a", "'a' has no port; give HOST:PORT"),
        (":1", "':1' has no machine; give HOST:PORT"),
        ("a:", "the port of HOST:PORT is a number"),
        ("a:65536", "the port of HOST:PORT is a number"),
        ("a:\u0663", "the port of HOST:PORT is a number"),
        ("http://a:1", "'http://a:1' is more than HOST:PORT"),
        ("a:1,", "a worker is missing"),
        ("a:1,,b:1", "a worker is missing"),
        ("a:1, a:1", "a:1 is there twice"),
    ],
)
def test_what_cannot_be_an_endpoint_is_one_line(given: str, says: str) -> None:
    with pytest.raises(AppError, match=f"bad value: rpc: .*{says}") as error:
        settings.check(settings.Endpoints, "rpc", given)
    assert error.value.exit_code == USAGE and "\n" not in error.value.line


def test_one_worker_under_two_names_is_one_line() -> None:
    with worker_process() as (_, endpoint):
        port = parse(endpoint).port
        with pytest.raises(AppError, match=f"the same worker twice: {endpoint} and localhost:{port} are one") as error:
            raise as_app_error(_error_of(lambda: devices.choose((endpoint, f"localhost:{port}"))))
    assert error.value.exit_code == USAGE and not error.value.of_device


def _error_of(call: Callable[[], object]) -> Exception:
    with pytest.raises(NativeError) as error:
        call()
    return error.value


def test_a_worker_speaks_the_version_that_is_asked_for() -> None:
    with worker_process() as (_, endpoint):
        assert rpc.check(parse(endpoint)) == endpoint
        with socket.create_connection(parse(endpoint)) as busy:  # one at a time
            busy.sendall(HELLO)
            assert busy.recv(64)
            with pytest.raises(DeviceError, match="another program uses it"):
                rpc.check(parse(endpoint), 0.3)
            with socket.create_connection(parse(endpoint)) as waiting:  # another one has its turn later
                waiting.sendall(HELLO)
                assert _is_greeted(waiting)
                waiting.sendall(COUNT_DEVICES)
                waiting.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    waiting.recv(64)
                busy.close()
                waiting.settimeout(END_SECONDS)
                assert waiting.recv(64)


def test_who_does_not_greet_a_worker_keeps_others_waiting_for_seconds_only() -> None:
    def greeted() -> socket.socket:
        connection = socket.create_connection(parse(endpoint), END_SECONDS)
        connection.sendall(HELLO)
        assert connection.recv(64)
        return connection

    def drip(connection: socket.socket) -> None:
        for i in range(len(HELLO)):
            connection.sendall(HELLO[i : i + 1])
            if ended.wait(1):
                return

    ended = threading.Event()
    with worker_process() as (_, endpoint):
        time.sleep(0.2)  # it has left whoever started it, and serves nobody
        with socket.create_connection(parse(endpoint)):  # says nothing
            assert rpc.check(parse(endpoint), END_SECONDS) == endpoint
        with greeted(), socket.create_connection(parse(endpoint)) as slow:
            dripping = threading.Thread(target=_ignoring(OSError, drip), args=(slow,))
            dripping.start()
            greeted().close()
            ended.set()
            dripping.join()


def _is_greeted(connection: socket.socket) -> bool:
    """The worker's greeting comes in two parts."""
    with connection.makefile("rb") as answer:
        return len(answer.read(GREETING)) == GREETING


def _ignoring(kind: type[Exception], call: Callable[..., object]) -> Callable[..., None]:
    def quiet(*arguments: object) -> None:
        with suppress(kind):
            call(*arguments)

    return quiet


@pytest.mark.parametrize("size", [1 << 40, 1 << 63, (1 << 64) - 1])
def test_a_length_that_cannot_be_ends_the_connection_and_not_the_worker(size: int) -> None:
    with worker_process() as (process, endpoint):
        with socket.create_connection(parse(endpoint), END_SECONDS) as connection:
            connection.sendall(HELLO)
            assert _is_greeted(connection)
            connection.sendall(struct.pack("<BQ", 6, size))  # RPC_CMD_SET_TENSOR
            with suppress(ConnectionResetError):
                assert not connection.recv(64)
        assert rpc.check(parse(endpoint), END_SECONDS) == endpoint
        assert process.poll() is None


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="a process cannot be stopped here")
def test_a_worker_that_is_stopped_is_told_and_one_that_serves_is_not() -> None:
    told: list[DeviceError] = []
    with worker_process() as (process, endpoint), socket.create_connection(parse(endpoint)) as busy:
        busy.sendall(HELLO)
        assert busy.recv(64)
        watching = threading.Thread(target=rpc.watch, args=(endpoint, told.append, 0.1))
        watching.start()
        time.sleep(1)  # it serves, and so it would while it computes
        assert not told
        process.send_signal(signal.SIGSTOP)
        watching.join(END_SECONDS)
        assert [error.worker for error in told] == [endpoint] and "does not answer any more" in str(told[0])


# ---- the command ---------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_a_worker() -> None:
    with worker_process() as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(END_SECONDS) == INTERRUPTED
        assert process.stderr is not None and "Traceback" not in process.stderr.read()


def test_a_worker_that_others_reach_warns() -> None:
    with worker_process("--host", "0.0.0.0", "--device", "cpu") as (process, endpoint):
        assert rpc.check(Endpoint("127.0.0.1", parse(endpoint).port))
        process.kill()
        assert process.stderr is not None and "only for networks that you trust" in process.stderr.read()


def test_a_worker_that_cannot_listen_says_so() -> None:
    with worker_process() as (_, endpoint):
        for options, says in (
            (("--port", str(parse(endpoint).port)), f"cannot listen: {endpoint}: "),
            (("--host", "nobody.invalid"), "cannot listen: no IPv4 address is known of nobody.invalid"),
            (("--device", "GPU7"), "no device GPU7: there is: CPU"),
        ):
            try:
                with worker_process(*options):
                    pytest.fail("it listens")
            except AssertionError as error:
                told = str(error)
            assert f"specee-chat: {says}" in told and told.count("specee-chat: ") == 1 and "fallback" not in told
