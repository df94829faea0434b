"""The HTTP server over a fake backend, with the standard library's client and the official one."""

from __future__ import annotations

import http.client
import json
import select
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import ASK, PATH, Make, call, request, running, text_of

from specee.app.engine.chat_template import ChatTemplate
from specee.app.engine.client import EngineClient
from specee.app.engine.protocol import ChatEvent, Failed, Generate, OfRequest, PromptProgress, Started, TokenEvents
from specee.app.engine.stop_sequences import StopSequences
from specee.app.errors import AppError
from specee.app.options import ChatOptions, LoadOptions
from specee.app.serve import server as server_module
from specee.app.serve.server import Access, Server


@pytest.fixture
def backend(make_backend: Make) -> Any:
    return make_backend(n_ctx=200, n_slots=3)


@pytest.fixture
def server(backend: Any, make_link: Make) -> Iterator[Server]:
    with running(backend, make_link) as made:
        yield made


def test_an_answer_with_its_exits(server: Server) -> None:
    status, answer = call(server, ASK)
    assert status == 200
    choice = answer["choices"][0]
    assert choice["message"]["content"] == "Hello there." and choice["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == len("Hello there.") == len(answer["specee"]["exit_layers"])
    assert set(answer["specee"]["exit_layers"]) == {24, 30} and answer["specee"]["policy"] == "exact"
    status, answer = call(server, {**ASK, "max_tokens": 3})
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("no json", "not JSON"),
        ([], "not an object"),
        ({}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role"),
        ({**ASK, "tools": [{}]}, "tools"),
        ({**ASK, "n": 2}, "'n'"),
        ({**ASK, "temperature": "hot"}, "temperature"),
        ({**ASK, "max_tokens": -1}, "max_tokens"),
        ({**ASK, "max_tokens": 0}, "max_tokens"),
        ({**ASK, "max_completion_tokens": 0}, "max_completion_tokens"),
        ({**ASK, "max_tokens": True}, "max_tokens"),
        ({**ASK, "messages": [{"role": "user", "content": "\ud800"}]}, "surrogate"),
        ({**ASK, "messages": [{"role": "user", "content": [{"type": "text", "text": "a\udfff"}]}]}, "surrogate"),
        ({"messages": [{"role": "user", "content": "x" * 300}]}, "prompt too long"),
        ({"messages": [{"role": "user", "content": "x" * 300}], "stream": True}, "prompt too long"),
    ],
)
def test_bad_requests_are_refused(server: Server, body: Any, says: str) -> None:
    status, answer = call(server, body)
    assert status == 400 and says in answer["error"]["message"]
    assert call(server, ASK)[0] == 200


def test_an_answer_ends_with_the_window(make_backend: Make, make_link: Make) -> None:
    """The tokens of a request and its answer are never more than the window holds."""
    with running(make_backend(b"x" * 300, n_ctx=200), make_link) as server:
        status, answer = call(server, {**ASK, "max_tokens": 1000})
    assert status == 200 and answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 200


def test_web_pages_are_kept_out(server: Server) -> None:
    assert call(server, ASK, Host="evil.example")[0] == 403
    assert call(server, ASK, **{"Content-Type": "text/plain"})[0] == 415
    assert call(server, ASK, "/v1/nothing")[0] == 404


def test_a_client_that_leaves_frees_the_engine(server: Server, backend: Any) -> None:
    left, before = threading.Event(), backend.engine.before_chunk
    backend.engine.before_chunk = lambda done: left.wait(10) and None
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", "/v1/chat/completions", json.dumps(ASK), {"Content-Type": "application/json"})
    connection.close()
    left.set()
    backend.engine.before_chunk = before
    assert call(server, ASK)[0] == 200


def call_at_once(server: Server, bodies: list[Any]) -> list[tuple[int, Any]]:
    results: list[Any] = [None] * len(bodies)

    def run(i: int) -> None:
        results[i] = call(server, bodies[i])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_requests_are_answered_side_by_side(server: Server, backend: Any) -> None:
    """Three at once, five wait; one ends at its stop sequence, one is refused, and neither disturbs the others."""
    bodies: list[Any] = [ASK] * 6 + [{**ASK, "stop": "there"}, {"messages": [{"role": "user", "content": "x" * 300}]}]
    *whole, stopped, refused = call_at_once(server, bodies)
    assert [answer["choices"][0]["message"]["content"] for _, answer in whole] == ["Hello there."] * 6
    assert stopped[1]["choices"][0]["message"]["content"] == "Hello "
    assert refused[0] == 400 and "prompt too long" in refused[1]["error"]["message"]


def test_more_than_can_wait_are_sent_away(server: Server, backend: Any) -> None:
    gate = threading.Event()
    for engine in backend.engine.slots:
        engine.before_chunk = lambda done: gate.wait(20) and None
    connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=60) for _ in range(12)]
    for connection in connections:
        connection.request("POST", "/v1/chat/completions", json.dumps(ASK), {"Content-Type": "application/json"})
    answered = select.select([connection.sock for connection in connections], [], [], 20)[0]
    busy = [connection for connection in connections if connection.sock in answered]
    assert len(busy) == 1
    response = busy[0].getresponse()
    assert response.status == 503 and int(response.headers["Retry-After"]) > 0
    assert "11 requests" in json.loads(response.read())["error"]["message"]
    gate.set()
    for connection in connections:
        if connection not in busy:
            assert connection.getresponse().read().count(b"Hello there.") == 1
        connection.close()


@pytest.mark.parametrize(("wanted", "says"), [(3, ""), (4, "3 requests are answered at once: there is no memory")])
def test_fewer_slots_than_wanted_are_told(
    backend: Any,
    make_link: Make,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wanted: int,
    says: str,
) -> None:
    def make_client(load: LoadOptions) -> EngineClient:
        return EngineClient(load, lambda load: make_link(backend))

    monkeypatch.setattr(server_module, "EngineClient", make_client)
    monkeypatch.setattr(Server, "run", lambda self: None)
    monkeypatch.setattr(server_module, "_log_to", lambda folder: None)
    server_module.serve(LoadOptions(n_slots=wanted), ChatOptions(), Access(0))
    *told, serving = capsys.readouterr().err.splitlines()
    assert serving.startswith("serving fake at http://127.0.0.1:") and "".join(told).startswith(says)
    assert len(told) == (says != "")


def test_a_client_that_leaves_while_it_waits_gives_its_place_back(server: Server, backend: Any) -> None:
    gate = threading.Event()
    for engine in backend.engine.slots:
        engine.before_chunk = lambda done: gate.wait(200) and None
    waiting = []
    for _ in range(11):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", "/v1/chat/completions", json.dumps(ASK), {"Content-Type": "application/json"})
        waiting.append(connection)
    until = time.monotonic() + 60
    while server.answers.places._value > 0:
        assert time.monotonic() < until
        time.sleep(0.05)
    for connection in waiting:
        connection.close()
    until = time.monotonic() + 60
    while server.answers.places._value < server.answers.limit:  # noticed within a second
        assert time.monotonic() < until
        time.sleep(0.05)
    gate.set()
    assert call(server, ASK)[0] == 200


def test_an_engine_that_dies_is_an_error_and_comes_back(server: Server) -> None:
    status, answer = call(server, {"messages": [{"role": "user", "content": "crash"}]})
    assert status == 503 and "engine crashed" in answer["error"]["message"]
    assert call(server, ASK)[0] == 200


def test_an_engine_that_cannot_be_started_again(backend: Any, make_link: Make, caplog: Any) -> None:
    """Clients are told to come back, but nothing of this machine's files; the log has it all."""
    refused: list[str] = []

    def start(load: LoadOptions) -> Any:
        if "start" in refused:
            raise AppError("cannot start the engine", "no memory for /secret/python")
        link = make_link(backend)
        if "load" in refused:
            link._inbox.put(Failed("model missing", "there is no /secret/model.gguf", 3, fatal=True))
        return link

    with running(backend, make_link, start=start) as server:
        for why in ("start", "load"):
            assert request(server, "GET", "/health")[0].status == 200
            refused.append(why)
            server.answers.client.kill()
            for method, path, body in (("POST", PATH, ASK), ("POST", PATH, {**ASK, "stream": True})):
                response, text = request(server, method, path, body)
                assert (response.status, json.loads(text)["error"]["code"]) == (503, "unavailable")
                assert int(response.headers["Retry-After"]) > 0 and b"secret" not in text
            for _ in range(2):
                response, text = request(server, "GET", "/health")
                assert response.status == 503 and b"secret" not in text and json.loads(text)["error"]
            assert any("secret" in record.getMessage() for record in caplog.records)
            caplog.clear()
            refused.clear()
            assert call(server, ASK)[0] == 200
        refused.append("load")
        server.answers.client.kill()
        assert request(server, "GET", "/health")[0].status == 503
        refused.clear()
        until = time.monotonic() + 60
        while request(server, "GET", "/health")[0].status != 200:  # without a request
            assert time.monotonic() < until
            time.sleep(0.1)


@pytest.mark.parametrize(
    "error",
    [
        Failed("engine crashed", "signal 9; log: /secret/engine.log", fatal=True),
        Failed("lost the worker at secret:50052", "it was ended, or the network fails", fatal=True, of_device=True),
        Failed("no room on RPC0 (secret:50052)", "give fewer --gpu-layers", of_device=True),
        Failed("the system refused", "no space (/secret/file)"),
        Failed("model missing", "/secret/model.gguf", 3),
        Failed("prompt too long", "it has 300 tokens, the window holds 200; give a larger --ctx or see /secret", 5),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_clients_read_nothing_of_the_servers_files_and_workers(
    backend: Any, make_link: Make, monkeypatch: Any, error: Failed, stream: bool
) -> None:
    send = make_link.send  # type: ignore[attr-defined]

    def failing(link: Any, message: Any) -> None:
        if not isinstance(message, Generate):
            send(link, message)
            return
        for one in (PromptProgress(0, 5), Started("exact", "", 5, 0, 1, None)) if stream else ():
            link._inbox.put(OfRequest(message.request, one))
        link._inbox.put(error if error.fatal else OfRequest(message.request, error))

    monkeypatch.setattr(make_link, "send", failing)
    with running(backend, make_link) as server:
        response, text = request(server, "POST", PATH, {**ASK, "stream": stream})
    assert b'"error"' in text and b"secret" not in text and b"--ctx" not in text
    assert response.status == (200 if stream else 503 if error.fatal else 400 if error.exit_code == 5 else 500)


def test_an_answer_goes_on_without_the_worker(backend: Any, make_link: Make, monkeypatch: Any) -> None:
    """Where the CPU may go on alone: a worker is lost in the middle of an answer."""
    send = make_link.send  # type: ignore[attr-defined]
    lost = Failed("lost the worker at secret:1", "it was ended", fatal=True, of_device=True)
    asked: list[int] = []

    def losing(link: Any, message: Any) -> None:
        if not isinstance(message, Generate) or asked:
            send(link, message)
            return
        asked.append(message.request)
        token = TokenEvents((ChatEvent(0, "Lost", 1, 5, "verified", 0.0),))
        for one in (PromptProgress(0, 5), Started("exact", "", 5, 0, 1, None), token):
            link._inbox.put(OfRequest(message.request, one))
        link._inbox.put(lost)

    with running(backend, make_link) as server:
        expected = text_of(call(server, ASK)[1])
        monkeypatch.setattr(make_link, "send", losing)
        for stream in (False, True):
            asked.clear()
            server.answers.client.reload(LoadOptions(rpc="secret:1", cpu_fallback=True))
            response, text = request(server, "POST", PATH, {**ASK, "stream": stream})
            assert response.status == 200 and b"secret" not in text and b'"error"' not in text and asked
            assert server.answers.client.load.rpc is None
            if stream:
                chunks = [json.loads(line) for line in text.decode().split("data: ")[1:-1]]
                told = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
            else:
                told = text_of(json.loads(text))
            assert told == "Lost" + expected[1:], "a token is a letter"


def test_the_official_client(server: Server) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["fake"]
        whole = client.chat.completions.create(**ASK, temperature=0.5, seed=3)
        assert whole.choices[0].message.content == "Hello there."
        assert whole.specee["n_layers"] == 30
        chunks = list(client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
        texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(texts) == "Hello there." and len(texts) > 5
        assert chunks[-1].usage.completion_tokens == len("Hello there.")
        assert chunks[-2].specee["mean_exit_layer"] < 30 and chunks[-2].choices[0].finish_reason == "stop"
        with pytest.raises(openai.BadRequestError, match="not supported"):
            client.chat.completions.create(**ASK, tools=[{"type": "function", "function": {"name": "f"}}])
        with pytest.raises(openai.NotFoundError, match="no '/v1/embeddings', but /v1/chat/completions"):
            client.embeddings.create(model="any", input="x")
        stream = client.chat.completions.create(**ASK, stream=True)
        next(iter(stream))
        stream.close()  # leaves in the middle
        assert client.chat.completions.create(**ASK).choices[0].message.content == "Hello there."


def test_an_answer_ends_before_a_stop_sequence(server: Server) -> None:
    for stop, expected in (
        ("there", "Hello "),
        (["zebra", "lo th", "."], "Hel"),
        (["?"], "Hello there."),
        (["e.."], "Hello there."),
    ):
        status, answer = call(server, {**ASK, "stop": stop})
        assert status == 200 and answer["choices"][0]["message"]["content"] == expected
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert len(answer["specee"]["exit_layers"]) <= len("Hello there.")
    assert call(server, ASK)[1]["choices"][0]["message"]["content"] == "Hello there."


@pytest.mark.parametrize("stop", ["", [""], [1], ["a"] * 5, {"a": 1}])
def test_what_cannot_stop_is_refused(server: Server, stop: Any) -> None:
    status, answer = call(server, {**ASK, "stop": stop})
    assert status == 400 and "stop" in answer["error"]["message"]


@given(
    text=st.text("ab", max_size=12),
    sequences=st.lists(st.text("ab", min_size=1, max_size=3), max_size=3),
    data=st.data(),
)
def test_no_stop_sequence_gets_through_in_pieces(text: str, sequences: list[str], data: Any) -> None:
    stop = StopSequences(sequences)
    released, rest = "", text
    while rest:
        n = data.draw(st.integers(1, len(rest)))
        released += stop.add(rest[:n])
        rest = rest[n:]
    released += stop.end()
    assert stop.found == any(sequence in text for sequence in sequences)
    assert text.startswith(released) and (released == text or stop.found)
    assert not any(sequence in released for sequence in sequences)


def test_what_the_chat_template_refuses_is_the_clients_to_change(server: Server, backend: Any) -> None:
    """As are chats that it fails on."""
    refusing = "{% if messages[0].content == 'y' %}{{ raise_exception('no y') }}{% endif %}"
    failing = "{% if messages[0].content == 'x' %}{{ messages[9].content.x.y }}{% endif %}"
    formatter = ChatTemplate("{{ messages[0].content }}" + refusing + failing, {})
    for slot in (backend, *(slot.backend for slot in server.answers.client._engine.link.answerer._slots)):
        slot.format = formatter
    for message, says in (({"role": "system", "content": "y"}, "no y"), ({"role": "user", "content": "x"}, "")):
        for stream in (False, True):
            status, answer = call(server, {"messages": [message], "stream": stream})
            assert status == 400 and says in answer["error"]["message"]
            assert answer["error"]["type"] == "invalid_request_error"
